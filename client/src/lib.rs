//! The door from outside: everything a control loop needs to talk to a Kubernetes API server.
//!
//! This crate owns how we *observe* (an [`informer`] keeps a local, indexed copy of one kind), how we
//! *take turns* (a [`queue`] runs one key at a time, an [`election`] lets one process act), how we
//! *tell* (a [`recorder`] writes Events, a [`cause`] says why we write) and how we *connect* ([`config`]). What always holds: a cache is
//! only filled by one list and one watch, nothing is polled, and every background task has an owner
//! that ends it. It deliberately knows no kind's meaning; that is the business of the crates above it.

pub mod backoff;
pub mod cause;
pub mod clock;
pub mod config;
pub mod election;
mod failover;
pub mod fence;
pub mod informer;
pub mod kubeconfig;
pub mod queue;
pub mod recorder;
pub mod shutdown;

pub use kube;
pub use shutdown::Shutdown;
