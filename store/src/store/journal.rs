//! The journal as users of the store read it: who wrote what, when and why, kept as long as history.
//!
//! Only what made a revision is in it. A write by the store itself, the end of a lease, is by
//! `system:store`, with the lease as its agent and `lease-expire` or `lease-revoke` as its verb; a
//! compaction makes no revision.

use bytes::Bytes;

use super::{Store, unreadable};
use crate::kv::{EventKind, KvError, Origin, Revision};
use crate::mvcc::journal::{self, Journaled};

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

impl Store {
    /// What is known about `revision`; `None` if it is compacted or doesn't exist yet.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn journal(&self, revision: Revision) -> Result<Option<JournalEntry>, KvError> {
        let found = journal::journaled(&self.rocks()?.view(), revision).map_err(unreadable)?;
        Ok(found.map(entry))
    }

    /// The revisions that changed `key`, newest first, at most `limit` of them; as far as this member has
    /// applied them and history is kept.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub async fn journal_of(&self, key: Bytes, limit: usize) -> Result<Vec<JournalEntry>, KvError> {
        self.read_aside(move |rocks| {
            let found = journal::journal_of(&rocks.view(), &key, limit).map_err(unreadable)?;
            Ok(found.into_iter().map(entry).collect())
        })
        .await
    }

    /// The revisions `from..=to` in order, at most `limit` of them; as far as this member has applied them
    /// and history is kept.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub async fn journal_between(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, KvError> {
        self.read_aside(move |rocks| {
            let found = journal::journal_between(&rocks.view(), from, to, limit).map_err(unreadable)?;
            Ok(found.into_iter().map(entry).collect())
        })
        .await
    }
}

fn entry(found: Journaled) -> JournalEntry {
    let change = |(kind, key, value_bytes)| JournalChange { kind, key, value_bytes };
    JournalEntry {
        revision: found.revision,
        time: found.record.time,
        wall_ms: found.record.wall_ms(),
        origin: found.record.origin,
        changes: found.changes.into_iter().map(change).collect(),
    }
}
