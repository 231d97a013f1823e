//! Raft around `raft::RawNode`, without I/O.
//!
//! - [`log`]: the retained log in memory, which Raft reads.
//! - [`persist`]: its records on disk, and recovery with start-up checks.
//! - [`member`]: the state machine, with the order `Ready → Persisted → messages` as types.
//! - [`newcomer`]: how a member with a new directory gets its say, and one that lost its own doesn't.
//! - [`changes`]: membership changes judged before the leader appends them.
//! - [`proposals`], [`reads`], [`leases`], [`lease_desk`]: what waits for the group, as values fed with time.
//! - [`replica`]: all of it together with MVCC over any [`crate::disk::Disk`].

pub mod changes;
pub mod health;
pub mod lease_desk;
pub mod leases;
pub mod log;
pub mod member;
pub mod newcomer;
pub mod persist;
pub mod proposals;
pub mod reads;
pub mod replica;
