//! One transaction: decide all comparisons on the state before it, then take the steps.
//!
//! Everything that can make a step fail is found while deciding, so a transaction that begins to write
//! also ends. Nested comparisons see the state before the outermost transaction, as etcd's do.

use bytes::Bytes;

use super::family::{self, Change, Family, Pair, Place};
use super::read;
use super::scrub;
use super::state::Head;
use super::view::{DiskError, Overlay, ReadView};
use crate::bug::bug;
use crate::kv::{
    Compare, CompareOp, Event, EventKind, KeyRange, KeyValue, KvError, LeaseId, Op, OpResponse, Revision,
    Target, Txn, TxnResponse,
};

/// A transaction after its comparisons: which steps to take, with nested transactions decided.
pub struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Op(&'a Op),
    Nested(Path<'a>),
}

/// Decides which way `txn` goes on the state of `view`.
///
/// The outer error means that the disk failed; the inner one is the transaction's result.
///
/// # Errors
/// If the disk can't be read.
pub fn decide<'a>(
    view: &impl ReadView,
    head: &Head,
    txn: &'a Txn,
) -> Result<Result<Path<'a>, KvError>, DiskError> {
    let mut succeeded = true;
    for compare in &txn.compare {
        succeeded = succeeded && holds(view, compare)?;
    }
    let mut steps = Vec::new();
    for op in if succeeded { &txn.success } else { &txn.failure } {
        match decide_step(view, head, op)? {
            Ok(step) => steps.push(step),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(Path { succeeded, steps }))
}

fn decide_step<'a>(
    view: &impl ReadView,
    head: &Head,
    op: &'a Op,
) -> Result<Result<Step<'a>, KvError>, DiskError> {
    match op {
        Op::Range(request) => {
            let mut head = *head;
            if bug!(CompactedReadPerMember) {
                head.compacted = scrub::scrubbed(view)?;
            }
            Ok(read::check_revision(&head, request.revision).map(|()| Step::Op(op)))
        }
        Op::Put { key, lease, .. } => check_write(view, key, false, *lease, op),
        Op::Amend { key, lease, .. } => check_write(view, key, true, lease.flatten(), op),
        Op::Txn(nested) => Ok(decide(view, head, nested)?.map(Step::Nested)),
        Op::Delete(_) => Ok(Ok(Step::Op(op))),
    }
}

/// A key that is amended must exist, and so must a lease that a key is attached to.
fn check_write<'a>(
    view: &impl ReadView,
    key: &Bytes,
    must_exist: bool,
    lease: Option<LeaseId>,
    op: &'a Op,
) -> Result<Result<Step<'a>, KvError>, DiskError> {
    if must_exist && view.get(Family::Latest, key)?.is_none() {
        return Ok(Err(KvError::KeyNotFound(key.clone())));
    }
    match lease {
        Some(id) if view.get(Family::Leases, &family::lease_key(id))?.is_none() => {
            Ok(Err(KvError::LeaseNotFound(id)))
        }
        _ => Ok(Ok(Step::Op(op))),
    }
}

fn holds(view: &impl ReadView, compare: &Compare) -> Result<bool, DiskError> {
    let pairs = read::latest(view, &compare.range)?;
    if pairs.is_empty() {
        return Ok(!matches!(compare.target, Target::Value(_)) && holds_for(None, compare));
    }
    Ok(pairs.iter().all(|(_, pair)| holds_for(Some(pair), compare)))
}

fn holds_for(pair: Option<&Pair>, compare: &Compare) -> bool {
    let zero = Revision(0);
    let ordering = match &compare.target {
        Target::ModRevision(expected) => pair.map_or(zero, |pair| pair.place.main).cmp(expected),
        Target::CreateRevision(expected) => pair.map_or(zero, |pair| pair.create).cmp(expected),
        Target::Version(expected) => pair.map_or(0, |pair| pair.version).cmp(expected),
        Target::Value(expected) => pair.map_or(&[][..], |pair| &pair.value).cmp(expected),
        Target::Lease(expected) => pair.and_then(|pair| pair.lease).cmp(expected),
    };
    match compare.op {
        CompareOp::Equal => ordering.is_eq(),
        CompareOp::NotEqual => ordering.is_ne(),
        CompareOp::Greater => ordering.is_gt(),
        CompareOp::Less => ordering.is_lt(),
    }
}

/// Writes of one revision onto an overlay.
pub struct Writer<'a, 'b, V> {
    overlay: &'a mut Overlay<'b, V>,
    before: Revision,
    /// The events so far; each has the next sub revision.
    pub events: Vec<Event>,
}

impl<'a, 'b, V: ReadView> Writer<'a, 'b, V> {
    /// Will write at the revision after `before`.
    pub fn new(overlay: &'a mut Overlay<'b, V>, before: Revision) -> Self {
        Self { overlay, before, events: Vec::new() }
    }

    /// The newest revision, this one included once it has changed something.
    pub fn revision(&self) -> Revision {
        if self.events.is_empty() { self.before } else { self.next() }
    }

    fn next(&self) -> Revision {
        Revision(self.before.0 + 1)
    }

    /// Takes the steps of a decided transaction.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn perform(&mut self, path: Path<'_>) -> Result<TxnResponse, DiskError> {
        let mut responses = Vec::with_capacity(path.steps.len());
        for step in path.steps {
            responses.push(match step {
                Step::Nested(nested) => OpResponse::Txn(self.perform(nested)?),
                Step::Op(op) => self.perform_op(op)?,
            });
        }
        Ok(TxnResponse { succeeded: path.succeeded, revision: self.revision(), responses })
    }

    fn perform_op(&mut self, op: &Op) -> Result<OpResponse, DiskError> {
        Ok(match op {
            Op::Range(request) => {
                let mut request = request.clone();
                // "At the newest before us" is not the newest any more once we have written.
                request.revision = request.revision.filter(|revision| *revision <= self.before);
                OpResponse::Range(read::range(&*self.overlay, self.revision(), &request)?)
            }
            Op::Put { key, value, lease } => OpResponse::Put(self.put(key, Some(value), Some(*lease))?),
            Op::Amend { key, value, lease } => OpResponse::Put(self.put(key, value.as_ref(), *lease)?),
            Op::Delete(range) => OpResponse::Delete(self.delete(range)?),
            Op::Txn(_) => unreachable!("decide turned nested transactions into paths"),
        })
    }

    fn place(&self) -> Place {
        let sub = u32::try_from(self.events.len()).expect("a transaction's events fit in memory");
        Place { main: self.next(), sub }
    }

    /// Writes a pair; what isn't given stays as it was.
    fn put(
        &mut self,
        key: &Bytes,
        value: Option<&Bytes>,
        lease: Option<Option<LeaseId>>,
    ) -> Result<Option<KeyValue>, DiskError> {
        let prev = match self.overlay.get(Family::Latest, key)? {
            Some(record) => Some(Pair::decode(record).map_err(DiskError::damaged(Family::Latest))?),
            None => None,
        };
        let place = self.place();
        let kept = prev.as_ref().map(|prev| prev.value.clone());
        let value = value.cloned().or(kept).unwrap_or_default();
        let lease = lease.unwrap_or(prev.as_ref().and_then(|prev| prev.lease));
        let pair = Pair {
            create: prev.as_ref().map_or(place.main, |prev| prev.create),
            place,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease,
            value: value.clone(),
        };
        self.attach(key, prev.as_ref().and_then(|prev| prev.lease), lease);
        self.overlay.batch.put(Family::Latest, &key[..], pair.encode());
        let change = Change {
            kind: EventKind::Put,
            prev: prev.as_ref().map(|prev| prev.place),
            key: key.clone(),
            create: pair.create,
            version: pair.version,
            lease,
            value,
        };
        self.record(place, &change);
        let prev = prev.map(|prev| prev.to_kv(key.clone()));
        self.events.push(Event { kind: EventKind::Put, kv: pair.to_kv(key.clone()), prev: prev.clone() });
        Ok(prev)
    }

    /// Deletes all keys in `range`; what was deleted.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn delete(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>, DiskError> {
        let pairs = read::latest(&*self.overlay, range)?;
        let mut gone = Vec::with_capacity(pairs.len());
        for (key, pair) in pairs {
            let place = self.place();
            self.attach(&key, pair.lease, None);
            self.overlay.batch.delete(Family::Latest, &key[..]);
            let change = Change {
                kind: EventKind::Delete,
                prev: Some(pair.place),
                key: key.clone(),
                create: Revision(0),
                version: 0,
                lease: None,
                value: Bytes::new(),
            };
            self.record(place, &change);
            let prev = pair.to_kv(key.clone());
            self.events.push(read::deletion(key, place.main, prev.clone()));
            gone.push(prev);
        }
        Ok(gone)
    }

    fn record(&mut self, place: Place, change: &Change) {
        let live: &'static [u8] = if change.kind == EventKind::Put { &[1] } else { &[0] };
        self.overlay.batch.put(Family::Index, family::index_key(&change.key, place), live);
        self.overlay.batch.put(Family::History, place.key(), change.encode());
    }

    fn attach(&mut self, key: &[u8], from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        if let Some(id) = from {
            self.overlay.batch.delete(Family::Leases, family::attachment_key(id, key));
        }
        if let Some(id) = to {
            self.overlay.batch.put(Family::Leases, family::attachment_key(id, key), Bytes::new());
        }
    }
}
