//! Oracles: what a store's answers must satisfy, checked on recorded histories.
//!
//! They know nothing of this store: the simulation uses them, and so do the tests with real processes.
//!
//! - [`linearizable`]: could concurrent operations on a register have happened one after another?
//! - [`watch`]: the nine guarantees of a watch.

pub mod linearizable;
pub mod watch;
