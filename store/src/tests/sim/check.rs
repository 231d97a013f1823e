//! What must hold, looked at after each step and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::kv::{Event, KeyRange, MemberId, Revision, WatchMessage};

/// A finished operation of a client: when it began and ended, and the revision it saw or made.
#[derive(Clone, Debug)]
pub struct Operation {
    pub began: u64,
    pub ended: u64,
    pub revision: Revision,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Write { key: Bytes, value: Bytes },
    Read { key: Bytes, value: Option<Bytes> },
}

/// What all members agreed on, as far as it was seen.
#[derive(Default)]
pub struct Oracle {
    leaders: BTreeMap<u64, MemberId>,
    digests: BTreeMap<u64, u64>,
    /// The one history: what happened at each revision.
    history: BTreeMap<Revision, Arc<[Event]>>,
    pub operations: Vec<Operation>,
}

impl Oracle {
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    pub fn newest(&self) -> Revision {
        self.history.keys().next_back().copied().unwrap_or_default()
    }

    pub fn invariant_one_leader_per_term(&mut self, term: u64, leader: MemberId) {
        let first = *self.leaders.entry(term).or_insert(leader);
        assert_eq!(first, leader, "two leaders in term {term}");
    }

    pub fn invariant_same_digest_at_same_index(&mut self, index: u64, digest: u64) {
        let first = *self.digests.entry(index).or_insert(digest);
        assert_eq!(first, digest, "members differ after entry {index}");
    }

    pub fn invariant_one_history(&mut self, revision: Revision, events: &Arc<[Event]>) {
        let first = self.history.entry(revision).or_insert_with(|| events.clone());
        assert_eq!(first, events, "members differ about revision {revision}");
    }

    fn value_at(&self, key: &Bytes, revision: Revision) -> Option<Bytes> {
        let upto = self.history.range(..=revision).rev().flat_map(|(_, events)| events.iter());
        let last = upto.into_iter().find(|event| event.kv.key == *key)?;
        last.value_after()
    }

    /// Each acknowledged write is in the history where it was said to be, once; nothing is there twice.
    pub fn invariant_no_acknowledged_write_lost(&self) {
        let mut seen = BTreeSet::new();
        for event in self.history.values().flat_map(|events| events.iter()) {
            assert!(seen.insert(event.kv.value.clone()), "{:?} was applied twice", event.kv);
        }
        for operation in &self.operations {
            if let What::Write { key, value } = &operation.what {
                let events = self.history.get(&operation.revision);
                let there = events.is_some_and(|e| e.iter().any(|e| e.kv.key == key && e.kv.value == value));
                assert!(there, "acknowledged and lost: {operation:?}");
            }
        }
    }

    /// Operations in the order of their revisions are in an order that respects time, and each read saw
    /// the state at its revision.
    pub fn invariant_linearizable(&self) {
        let mut by_end: Vec<&Operation> = self.operations.iter().collect();
        by_end.sort_by_key(|operation| operation.ended);
        let mut by_begin = by_end.clone();
        by_begin.sort_by_key(|operation| operation.began);
        let mut finished = by_end.into_iter().peekable();
        let mut newest = Revision(0);
        for operation in by_begin {
            while let Some(earlier) = finished.next_if(|earlier| earlier.ended < operation.began) {
                newest = newest.max(earlier.revision);
            }
            match &operation.what {
                What::Write { .. } => assert!(operation.revision > newest, "{operation:?} after {newest}"),
                What::Read { key, value } => {
                    assert!(operation.revision >= newest, "stale read: {operation:?} after {newest}");
                    assert_eq!(*value, self.value_at(key, operation.revision), "{operation:?}");
                }
            }
        }
    }

    /// A watcher that has everything below `next` gets `message`: nothing is skipped, repeated or invented.
    /// Returns what it needs next.
    pub fn invariant_watch(&self, range: &KeyRange, next: Revision, message: &WatchMessage) -> Revision {
        let missed_before = |end: Revision| {
            let between = self.history.range(next..end).flat_map(|(_, events)| events.iter());
            between.filter(|event| range.contains(&event.kv.key)).count()
        };
        match message {
            WatchMessage::Events { revision, events } => {
                assert!(*revision >= next, "revision {revision} came to a watcher that needs {next}");
                assert_eq!(missed_before(*revision), 0, "skipped before {revision}, needed {next}");
                let expected: Vec<&Event> =
                    self.history[revision].iter().filter(|e| range.contains(&e.kv.key)).collect();
                assert_eq!(events.iter().collect::<Vec<_>>(), expected, "at {revision}");
                Revision(revision.0 + 1)
            }
            WatchMessage::Progress(revision) => {
                let end = Revision(revision.0 + 1);
                assert!(end >= next, "progress {revision} below what was delivered ({next})");
                assert_eq!(missed_before(end), 0, "progress {revision} overtook events from {next}");
                end
            }
            WatchMessage::Compacted(revision) => {
                assert!(*revision >= next, "compacted at {revision}, but {next} is above");
                Revision(revision.0 + 1)
            }
        }
    }
}

impl Event {
    /// The value after the event.
    fn value_after(&self) -> Option<Bytes> {
        (self.kind == crate::kv::EventKind::Put).then(|| self.kv.value.clone())
    }
}
