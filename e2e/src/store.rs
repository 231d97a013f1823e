//! A group of store members as real processes under faults: the harness, the workload and the oracles.
//!
//! Everything goes through etcd's gRPC API, by a stock client, so that stock etcd can take our store's place:
//! what the oracles say about etcd shows whether the oracles themselves are right.

pub mod client;
mod disk;
pub mod disturb;
pub mod failover;
pub mod failpoints;
pub mod group;
pub mod history;
pub mod namespace;
pub mod oracle;
pub mod plan;
pub mod random;
pub mod recovery;
pub mod schedule;
pub mod tools;
pub mod watcher;
pub mod workload;
