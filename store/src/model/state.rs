//! What the model knows, and how it changes: with nothing that waits or follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::wall_ms;
use crate::journal::{JournalChange, JournalEntry};
use crate::kv::{
    Compare, CompareOp, Event, EventKind, FIRST_REVISION, KeyRange, KeyValue, KvError, Lease, LeaseId, Op,
    OpResponse, Origin, RangeRequest, RangeResponse, Revision, Target, Txn, TxnResponse, WatchMessage,
};

/// The state itself, with nothing that waits or follows: what the simulation replays logs on.
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    /// All versions of a key in order; `None` is a deletion.
    keys: BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>,
    /// What happened at each revision.
    pub(crate) history: BTreeMap<Revision, Arc<[Event]>>,
    /// Who made each revision, if a transaction did.
    origins: BTreeMap<Revision, Origin>,
    pub(super) leases: BTreeMap<LeaseId, LeaseState>,
    last_lease: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: FIRST_REVISION,
            compacted: Revision::default(),
            keys: BTreeMap::new(),
            history: BTreeMap::new(),
            origins: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
        }
    }
}

pub(super) struct LeaseState {
    pub(super) ttl_seconds: u64,
    pub(super) deadline: Instant,
    pub(super) keys: BTreeSet<Bytes>,
}

/// A transaction after its comparisons: which steps to take, with nested transactions decided.
struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Op(&'a Op),
    Nested(Path<'a>),
}

impl State {
    pub(crate) fn check_revision(&self, request: &RangeRequest) -> Result<(), KvError> {
        match request.revision {
            Some(requested) if requested > self.revision => {
                Err(KvError::FutureRevision { requested, current: self.revision })
            }
            Some(requested) if requested < self.compacted => {
                Err(KvError::Compacted { requested, compacted: self.compacted })
            }
            _ => Ok(()),
        }
    }

    fn get(&self, key: &[u8], at: Revision) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        versions.iter().rev().find(|(revision, _)| *revision <= at)?.1.as_ref()
    }

    fn pairs(&self, range: &KeyRange, at: Revision) -> Vec<KeyValue> {
        let keys = self.keys.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| self.get(key, at).cloned()).collect()
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> RangeResponse {
        let mut kvs = self.pairs(&request.range, request.revision.unwrap_or(self.revision));
        let seen = kvs.len() as u64;
        let more = request.limit > 0 && kvs.len() > request.limit;
        if more {
            kvs.truncate(request.limit);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        if request.count_only {
            kvs.clear();
        }
        let more = more && !request.count_only;
        let count = (!more || request.count).then_some(seen);
        RangeResponse { kvs, more, count, revision: self.revision }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pairs = self.pairs(&compare.range, self.revision);
        if pairs.is_empty() {
            return !matches!(compare.target, Target::Value(_)) && holds_for(None, compare);
        }
        pairs.iter().all(|kv| holds_for(Some(kv), compare))
    }

    /// Decides all comparisons, nested ones too, on the state before the transaction, and finds what
    /// would make a step fail, so that the steps themselves can't fail half-way.
    fn decide<'a>(&self, txn: &'a Txn) -> Result<Path<'a>, KvError> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let steps = ops.iter().map(|op| self.decide_step(op)).collect::<Result<_, _>>()?;
        Ok(Path { succeeded, steps })
    }

    fn decide_step<'a>(&self, op: &'a Op) -> Result<Step<'a>, KvError> {
        match op {
            Op::Range(request) => self.check_revision(request)?,
            Op::Put { lease, .. } => self.check_lease(*lease)?,
            Op::Amend { key, .. } if self.get(key, self.revision).is_none() => {
                return Err(KvError::KeyNotFound(key.clone()));
            }
            Op::Amend { lease, .. } => self.check_lease(lease.flatten())?,
            Op::Txn(nested) => return Ok(Step::Nested(self.decide(nested)?)),
            Op::Delete(_) => {}
        }
        Ok(Step::Op(op))
    }

    fn check_lease(&self, lease: Option<LeaseId>) -> Result<(), KvError> {
        match lease.filter(|id| !self.leases.contains_key(id)) {
            Some(id) => Err(KvError::LeaseNotFound(id)),
            None => Ok(()),
        }
    }

    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), KvError> {
        if revision > self.revision {
            return Err(KvError::FutureRevision { requested: revision, current: self.revision });
        }
        if revision <= self.compacted && self.compacted > Revision::default() {
            return Err(KvError::Compacted { requested: revision, compacted: self.compacted });
        }
        self.compacted = revision;
        Ok(())
    }

    pub(crate) fn grant(&mut self, chosen: Option<LeaseId>, ttl_seconds: u64) -> Result<Lease, KvError> {
        let id = self.new_lease_id(chosen)?;
        let deadline = Instant::now() + Duration::from_secs(ttl_seconds);
        self.leases.insert(id, LeaseState { ttl_seconds, deadline, keys: BTreeSet::new() });
        Ok(Lease { id, ttl_seconds })
    }

    fn new_lease_id(&mut self, chosen: Option<LeaseId>) -> Result<LeaseId, KvError> {
        if let Some(id) = chosen {
            return if self.leases.contains_key(&id) { Err(KvError::LeaseExists(id)) } else { Ok(id) };
        }
        loop {
            self.last_lease += 1;
            let id = LeaseId(self.last_lease);
            if !self.leases.contains_key(&id) {
                return Ok(id);
            }
        }
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnResponse, KvError> {
        let path = self.decide(txn)?;
        let before = self.revision;
        let mut events = Vec::new();
        let response = self.perform(path, before, &mut events);
        if !events.is_empty() {
            self.origins.insert(self.revision, txn.origin.clone());
        }
        self.record(events);
        Ok(response)
    }

    fn perform(&mut self, path: Path<'_>, before: Revision, events: &mut Vec<Event>) -> TxnResponse {
        let mut responses = Vec::new();
        for step in path.steps {
            responses.push(match step {
                Step::Nested(nested) => OpResponse::Txn(self.perform(nested, before, events)),
                Step::Op(Op::Range(request)) => OpResponse::Range(self.range(request)),
                Step::Op(Op::Put { key, value, lease }) => {
                    OpResponse::Put(self.put(key, value, *lease, before, events))
                }
                Step::Op(Op::Amend { key, value, lease }) => {
                    let kept = self.get(key, self.revision).expect("decide saw that it exists").clone();
                    let value = value.clone().unwrap_or(kept.value);
                    OpResponse::Put(self.put(key, &value, lease.unwrap_or(kept.lease), before, events))
                }
                Step::Op(Op::Delete(range)) => OpResponse::Delete(self.delete(range, before, events)),
                Step::Op(Op::Txn(_)) => unreachable!("decide turned nested transactions into paths"),
            });
        }
        TxnResponse { succeeded: path.succeeded, revision: self.revision, responses }
    }

    fn put(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        lease: Option<LeaseId>,
        before: Revision,
        events: &mut Vec<Event>,
    ) -> Option<KeyValue> {
        let prev = self.get(key, self.revision).cloned();
        self.revision = Revision(before.0 + 1);
        self.detach(key, prev.as_ref().and_then(|kv| kv.lease));
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: prev.as_ref().map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            version: prev.as_ref().map_or(1, |kv| kv.version + 1),
            lease,
        };
        self.keys.entry(key.clone()).or_default().push((self.revision, Some(kv.clone())));
        events.push(Event { kind: EventKind::Put, kv, prev: prev.clone() });
        prev
    }

    fn delete(&mut self, range: &KeyRange, before: Revision, events: &mut Vec<Event>) -> Vec<KeyValue> {
        let gone = self.pairs(range, self.revision);
        for kv in &gone {
            self.revision = Revision(before.0 + 1);
            self.detach(&kv.key, kv.lease);
            self.keys.entry(kv.key.clone()).or_default().push((self.revision, None));
            events.push(deletion(kv.clone(), self.revision));
        }
        gone
    }

    fn detach(&mut self, key: &Bytes, lease: Option<LeaseId>) {
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    pub(crate) fn revoke(&mut self, id: LeaseId) -> Result<(), KvError> {
        let lease = self.leases.remove(&id).ok_or(KvError::LeaseNotFound(id))?;
        let before = self.revision;
        let mut events = Vec::new();
        for key in lease.keys {
            self.delete(&KeyRange::key(key), before, &mut events);
        }
        self.record(events);
        Ok(())
    }

    fn record(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.history.insert(self.revision, events.into());
        }
    }

    pub(super) fn journal(
        &self,
        from: Revision,
        to: Revision,
    ) -> impl DoubleEndedIterator<Item = JournalEntry> {
        let from = from.max(Revision(self.compacted.0 + 1));
        let kept = self.history.range(from..).take_while(move |(revision, _)| **revision <= to);
        let kept: Vec<_> = kept.map(|(revision, events)| self.journal_entry(*revision, events)).collect();
        kept.into_iter()
    }

    fn journal_entry(&self, revision: Revision, events: &[Event]) -> JournalEntry {
        let change = |event: &Event| JournalChange {
            kind: event.kind,
            key: event.kv.key.clone(),
            value_bytes: event.kv.value.len(),
        };
        JournalEntry {
            revision,
            time: wall_ms(revision) << 16,
            wall_ms: wall_ms(revision),
            origin: self.origins.get(&revision).cloned().unwrap_or_default(),
            changes: events.iter().map(change).collect(),
        }
    }

    /// The next message for a watcher of `range` that has seen everything below `next`.
    pub(super) fn next_message(&self, range: &KeyRange, next: Revision) -> Option<WatchMessage> {
        if next <= self.compacted {
            return Some(WatchMessage::Compacted(self.compacted));
        }
        self.history.range(next..).find_map(|(revision, events)| {
            let events: Arc<[Event]> = events.iter().filter(|e| range.contains(&e.kv.key)).cloned().collect();
            (!events.is_empty()).then_some(WatchMessage::Events { revision: *revision, events })
        })
    }
}

fn deletion(prev: KeyValue, revision: Revision) -> Event {
    let kv = KeyValue {
        key: prev.key.clone(),
        value: Bytes::new(),
        create_revision: Revision(0),
        mod_revision: revision,
        version: 0,
        lease: None,
    };
    Event { kind: EventKind::Delete, kv, prev: Some(prev) }
}

fn holds_for(kv: Option<&KeyValue>, compare: &Compare) -> bool {
    let zero = Revision(0);
    let ordering = match &compare.target {
        Target::ModRevision(r) => kv.map_or(zero, |kv| kv.mod_revision).cmp(r),
        Target::CreateRevision(r) => kv.map_or(zero, |kv| kv.create_revision).cmp(r),
        Target::Version(v) => kv.map_or(0, |kv| kv.version).cmp(v),
        Target::Value(v) => kv.map_or(&[][..], |kv| kv.value.as_ref()).cmp(v.as_ref()),
        Target::Lease(l) => kv.and_then(|kv| kv.lease).cmp(l),
    };
    match compare.op {
        CompareOp::Equal => ordering.is_eq(),
        CompareOp::NotEqual => ordering.is_ne(),
        CompareOp::Greater => ordering.is_gt(),
        CompareOp::Less => ordering.is_lt(),
    }
}
