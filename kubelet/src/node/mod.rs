//! The Node object, its status and its Lease: the node's promise that it is there.
//!
//! Always holds: the heartbeat waits for nothing but its own request, so slow pods or a slow disk never
//! make a living node look dead; what others write over the node's status is set right at once.

pub mod facts;
pub mod images;
pub mod lease;
pub mod object;
mod report;
pub mod tenure;

pub use report::NodeReporter;
