//! The memory of the cluster: bytes under revisions, agreed by Raft, kept in RocksDB.
//!
//! [`kv`] is the contract. [`model::Model`] is its obvious in-memory implementation for tests. This
//! crate never parses a value and knows no Kubernetes.

pub mod kv;
pub mod model;
mod validate;
