//! The journal as users of the store read it: who wrote what, when and why, kept as long as history.
//!
//! It is ours, beyond etcd: a [`crate::kv::Kv`] that has one gives it by [`crate::kv::Kv::journal`]. Only
//! what made a revision is in it. A write by the store itself, the end of a lease, is by `system:store`, with
//! the lease as its agent and `lease-expire` or `lease-revoke` as its verb; a compaction makes no revision.

use async_trait::async_trait;
use bytes::Bytes;

use crate::kv::{EventKind, KvError, Origin, Revision};

/// What a revision did to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalChange {
    /// Put or delete.
    pub kind: EventKind,
    /// Which key.
    pub key: Bytes,
    /// Size of the new value in bytes; 0 for a delete.
    pub value_bytes: usize,
}

/// Who wrote a revision, when and why, and what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The revision.
    pub revision: Revision,
    /// When, as a hybrid logical clock: milliseconds since 1970 times 65,536, plus a counter. Grows with each
    /// revision, whatever the members' clocks say.
    pub time: u64,
    /// Its part in milliseconds since 1970; never decreases with the revision.
    pub wall_ms: u64,
    /// Who and why.
    pub origin: Origin,
    /// What was changed, in the order of the transaction.
    pub changes: Vec<JournalChange>,
}

/// Reads the journal, as far as this member has applied it and history is kept.
#[async_trait]
pub trait Journal: Send + Sync {
    /// The revisions that changed `key`, newest first, at most `limit` of them.
    async fn of_key(&self, key: Bytes, limit: usize) -> Result<Vec<JournalEntry>, KvError>;
    /// The revisions `from..=to` in order, at most `limit` of them.
    async fn between(&self, from: Revision, to: Revision, limit: usize)
    -> Result<Vec<JournalEntry>, KvError>;
    /// The newest revision written at or before `wall_ms`, in milliseconds since 1970; `None` if history
    /// doesn't reach back so far.
    async fn at_time(&self, wall_ms: u64) -> Result<Option<Revision>, KvError>;
}
