//! The store's journal, read on a thread that may block.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Store, unreadable};
use crate::journal::{Journal, JournalChange, JournalEntry};
use crate::kv::{KvError, Revision};
use crate::mvcc::journal::{self, Journaled};
use crate::mvcc::read;
use crate::mvcc::state::Head;

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

#[async_trait]
impl Journal for Store {
    async fn of_key(&self, key: Bytes, limit: usize) -> Result<Vec<JournalEntry>, KvError> {
        self.journal_of(key, limit).await
    }

    async fn between(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, KvError> {
        self.journal_between(from, to, limit).await
    }

    async fn at_time(&self, wall_ms: u64) -> Result<Option<Revision>, KvError> {
        self.read_aside(move |rocks| {
            let view = rocks.view();
            let head = Head::load(&view).map_err(unreadable)?;
            let found = read::revision_at(&view, &head, wall_ms).map_err(unreadable)?;
            // What is compacted has no time any more: its end may have been after the moment asked for.
            Ok((found > head.compacted || head.compacted == Revision(0)).then_some(found))
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
