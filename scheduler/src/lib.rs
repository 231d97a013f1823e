//! Where: a pod and a snapshot to a node.
//!
//! [`scheduler::Scheduler`] decides as a state machine over a struct-of-arrays [`snapshot::Snapshot`];
//! [`run`] connects it to an API server. Every decision explains itself, per node and per rule
//! ([`diagnosis`]). What always holds: a pod that waits is either about to be tried, in back-off, or fits
//! nowhere at present; nothing polls. Only [`driver`] and [`writes`] await; the rest is values.

#![warn(missing_docs)]

pub mod affinity;
pub mod budget;
mod changes;
pub mod configuration;
pub mod decision;
pub mod diagnosis;
mod driver;
pub mod gang;
pub mod images;
mod memo;
pub mod name;
pub mod namespace;
pub mod node;
mod nomination;
pub mod object;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod profile;
pub mod queue;
mod ranking;
mod reservation;
pub mod resources;
pub mod scheduler;
pub mod selector;
pub mod snapshot;
pub mod spread;
pub mod storage;
pub mod taint;
mod tally;
mod topology;
pub mod volumes;
mod writes;

pub use driver::{SchedulerConfig, run};
pub use memo::Memo;
