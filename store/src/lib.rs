//! The memory: bytes under revisions, agreed by Raft. Knows no Kubernetes.

pub mod kv;
