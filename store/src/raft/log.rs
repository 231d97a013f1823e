//! The retained part of the Raft log, in memory: what Raft reads back.
//!
//! It mirrors what is on disk and is bounded by truncation, so no read on Raft's path ever waits for a
//! disk. It also holds the snapshot that a lagging follower is being sent: Raft asks for one, gets
//! "temporarily unavailable", and asks again when it has been made.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// The log from the entry after `truncated` on.
#[derive(Debug, Default)]
pub struct LogCache {
    truncated_index: u64,
    truncated_term: u64,
    entries: VecDeque<Entry>,
    /// Under which index each record on the disk stands; several entries may share one.
    records: VecDeque<u64>,
    bytes: usize,
    /// Term, vote and commit as last persisted.
    pub hard_state: HardState,
    /// As of recovery; Raft's tracker knows the current one.
    conf_state: ConfState,
    snapshot: RefCell<SnapshotSlot>,
}

#[derive(Debug, Default)]
struct SnapshotSlot {
    wanted: bool,
    ready: Option<Snapshot>,
}

impl LogCache {
    /// An empty log after `truncated_index`.
    pub fn new(
        truncated_index: u64,
        truncated_term: u64,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        Self { truncated_index, truncated_term, hard_state, conf_state, ..Self::default() }
    }

    /// Index and term before the first retained entry.
    pub fn truncated(&self) -> (u64, u64) {
        (self.truncated_index, self.truncated_term)
    }

    /// The last index.
    pub fn last(&self) -> u64 {
        self.truncated_index + self.entries.len() as u64
    }

    /// Number of retained entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of retained payloads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term of an index from `truncated` to `last`.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.truncated_index {
            return Some(self.truncated_term);
        }
        let at = index.checked_sub(self.truncated_index + 1)?;
        self.entries.get(usize::try_from(at).ok()?).map(|entry| entry.term)
    }

    /// The retained entries after `index`.
    pub fn entries_after(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.index > index)
    }

    /// Adds entries, replacing a conflicting tail; they are one record on the disk.
    pub fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            self.append_record(first.index, entries);
        }
    }

    /// Like [`LogCache::append`], for what is left of a record that begins at index `record`.
    pub fn append_record(&mut self, record: u64, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.truncated_index,
            "an entry that is truncated is committed and can't change"
        );
        assert!(first.index <= self.last() + 1, "the log has no gap");
        while self.last() >= first.index {
            let entry = self.entries.pop_back().expect("last() counts the entries");
            self.bytes -= entry.data.len();
        }
        while self.records.back().is_some_and(|last| *last >= first.index) {
            self.records.pop_back();
        }
        self.records.push_back(record);
        self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets everything up to and including `index`; returns the records that nothing is left of.
    pub fn truncate_to(&mut self, index: u64) -> Vec<u64> {
        while self.truncated_index < index {
            let entry = self.entries.pop_front().expect("only existing entries are truncated");
            (self.truncated_index, self.truncated_term) = (entry.index, entry.term);
            self.bytes -= entry.data.len();
        }
        let is_left = |next: Option<&u64>| match next {
            Some(next) => *next > self.truncated_index + 1,
            None => !self.entries.is_empty(),
        };
        let gone = (0..self.records.len()).take_while(|at| !is_left(self.records.get(at + 1))).count();
        self.records.drain(..gone).collect()
    }

    /// Starts again after an installed snapshot.
    pub fn reset(&mut self, index: u64, term: u64) {
        (self.truncated_index, self.truncated_term) = (index, term);
        self.entries.clear();
        self.records.clear();
        self.bytes = 0;
        *self.snapshot.borrow_mut() = SnapshotSlot::default();
    }

    /// Whether Raft has asked for a snapshot that isn't there; asks once.
    pub fn take_snapshot_wanted(&self) -> bool {
        std::mem::take(&mut self.snapshot.borrow_mut().wanted)
    }

    /// Offers a snapshot to Raft, or withdraws it.
    pub fn set_snapshot(&self, snapshot: Option<Snapshot>) {
        self.snapshot.borrow_mut().ready = snapshot;
    }

    /// The index of the snapshot on offer; entries after it are needed by who receives it.
    pub fn snapshot_index(&self) -> Option<u64> {
        self.snapshot.borrow().ready.as_ref().map(|snapshot| snapshot.get_metadata().index)
    }
}

impl Storage for LogCache {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated_index {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "entries up to {high} asked for, but the last is {}", self.last());
        let budget = max_size.into().unwrap_or(u64::MAX);
        let at =
            |index: u64| usize::try_from(index - self.truncated_index - 1).expect("the log fits in memory");
        let mut size = 0;
        let mut out = Vec::new();
        for entry in self.entries.range(at(low)..at(high)) {
            size += entry.data.len() as u64 + 16;
            if size > budget && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated_index {
            return Err(StorageError::Compacted.into());
        }
        self.term_of(index).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut slot = self.snapshot.borrow_mut();
        let usable = |s: &&Snapshot| {
            let index = s.get_metadata().index;
            index >= request_index && index >= self.truncated_index
        };
        match slot.ready.as_ref().filter(usable).cloned() {
            Some(snapshot) => Ok(snapshot),
            None => {
                slot.wanted = true;
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        indexes.map(|index| Entry { index, ..Entry::default() }).collect()
    }

    #[test]
    fn a_record_goes_with_the_last_of_its_entries() {
        let mut log = LogCache::new(9, 1, HardState::default(), ConfState::default());
        log.append(&entries(10..=12));
        log.append(&entries(13..=13));
        log.append(&entries(14..=20));
        assert_eq!(log.truncate_to(11), [], "12 is left of the first");
        assert_eq!(log.truncate_to(13), [10, 13]);
        // A conflict: what is left of the record at 14 ends before 16.
        log.append(&entries(16..=17));
        assert_eq!((log.last(), log.truncate_to(15)), (17, vec![14]));
        assert_eq!(log.truncate_to(17), [16]);
        assert_eq!(log.truncate_to(17), []);
    }
}
