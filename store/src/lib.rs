//! The memory of the cluster: bytes under revisions, agreed by Raft, kept in RocksDB.
//!
//! [`kv`] is the contract and [`Store`] its real implementation; [`model::Model`] is an obvious one in
//! memory, for tests. This crate never parses a value and knows no Kubernetes.
//!
//! Inside, decisions are values and drivers are thin: [`mvcc`] turns log entries into writes and
//! events, [`raft`] decides what to persist, send and apply, [`watch::hub`] what each watcher gets; the
//! drivers are one thread (`driver`), one database (`rocks`), sockets (`peer`) and one task for watchers.

mod alarm;
pub mod backup;
mod bug;
mod chain;
mod codec;
mod command;
mod config;
mod disk;
mod driver;
pub mod failpoint;
pub mod journal;
pub mod kv;
mod logging;
mod maintenance;
mod mark;
mod members;
pub mod membership;
pub mod model;
mod mvcc;
mod peer;
pub mod proof;
mod raft;
pub mod recovery;
mod rocks;
mod snapshot;
mod space;
mod start;
mod store;
mod validate;
mod verify;
mod watch;

pub use alarm::{Alarm, AlarmKind};
pub use config::{ClusterId, Config, History, Join, Limits, PeerTls};
pub use journal::{JournalChange, JournalEntry};
pub use maintenance::{Backup, DiskUse, HashKv};
pub use membership::{MemberError, MemberInfo, Refusal};
pub use peer::join::JoinError;
pub use store::{OpenError, Store};

#[cfg(test)]
mod tests;
