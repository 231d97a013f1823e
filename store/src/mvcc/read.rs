//! Reading: ranges at the newest or an older revision, events of the past, the journal.
//!
//! Every function reads one view, so its answer is one moment, whatever is applied meanwhile.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::family::{self, Change, Family, JournalRecord, Pair, Place};
use super::state::Head;
use super::view::{DiskError, ReadView, Visit};
use crate::kv::{Event, EventKind, KeyRange, KeyValue, KvError, RangeRequest, RangeResponse, Revision};

/// All events of one revision.
pub type RevisionEvents = (Revision, Arc<[Event]>);

/// Whether a read at `revision` can be answered.
///
/// # Errors
/// [`KvError::FutureRevision`] or [`KvError::Compacted`].
pub fn check_revision(head: &Head, revision: Option<Revision>) -> Result<(), KvError> {
    match revision {
        Some(requested) if requested > head.revision => {
            Err(KvError::FutureRevision { requested, current: head.revision })
        }
        Some(requested) if requested < head.compacted => {
            Err(KvError::Compacted { requested, compacted: head.compacted })
        }
        _ => Ok(()),
    }
}

/// Answers a range request, whose revision is checked before. `newest` is the revision it reports.
///
/// # Errors
/// If the disk can't be read.
pub fn range(
    view: &impl ReadView,
    newest: Revision,
    request: &RangeRequest,
) -> Result<RangeResponse, DiskError> {
    let response = range_within(view, newest, request, usize::MAX)?;
    Ok(response.expect("no range has so many records"))
}

/// As [`range`], but gives up, with `None`, when it would look at more than `most` records.
///
/// # Errors
/// If the disk can't be read.
pub fn range_within(
    view: &impl ReadView,
    newest: Revision,
    request: &RangeRequest,
    most: usize,
) -> Result<Option<RangeResponse>, DiskError> {
    let mut out = Collector::new(request, newest, most);
    match request.revision {
        Some(revision) if revision < newest => range_past(view, revision, &mut out)?,
        _ => scan_pairs(view, &request.range, &mut |key, value| out.add_latest(key, value))?,
    }
    Ok(out.finish())
}

/// Collects a response; goes on beyond its limit only to count.
struct Collector<'a> {
    request: &'a RangeRequest,
    response: RangeResponse,
    seen: u64,
    /// Records that may still be looked at; `None` if there were more.
    left: Option<usize>,
}

impl<'a> Collector<'a> {
    fn new(request: &'a RangeRequest, revision: Revision, most: usize) -> Self {
        let response = RangeResponse { revision, ..Default::default() };
        Self { request, response, seen: 0, left: Some(most) }
    }

    /// Looks at a record; false if that is one too many.
    fn spend(&mut self) -> bool {
        self.left = self.left.and_then(|left| left.checked_sub(1));
        self.left.is_some()
    }

    /// Sees a key; true if its pair is wanted too.
    fn wants_next(&mut self) -> bool {
        self.seen += 1;
        let full = self.request.limit > 0 && self.response.kvs.len() == self.request.limit;
        self.response.more |= full && !self.request.count_only;
        !full && !self.request.count_only
    }

    /// Whether another key can't change the response.
    fn is_done(&self) -> bool {
        self.response.more && !self.request.count
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finish(mut self) -> Option<RangeResponse> {
        self.left?;
        self.response.count = (!self.is_done()).then_some(self.seen);
        Some(self.response)
    }

    fn push(&mut self, mut kv: KeyValue) {
        if self.request.keys_only {
            kv.value = Bytes::new();
        }
        self.response.kvs.push(kv);
    }

    fn add_latest(&mut self, key: &[u8], record: &[u8]) -> Result<ControlFlow<()>, DiskError> {
        if !self.spend() {
            return Ok(ControlFlow::Break(()));
        }
        if self.wants_next() {
            let pair = decode_pair(Bytes::copy_from_slice(record))?;
            self.push(pair.to_kv(Bytes::copy_from_slice(key)));
        }
        Ok(self.flow())
    }
}

fn decode_pair(record: Bytes) -> Result<Pair, DiskError> {
    Pair::decode(record).map_err(DiskError::damaged(Family::Latest))
}

/// Visits the records of all keys in `range`; a single key costs one point read.
fn scan_pairs(view: &impl ReadView, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), DiskError> {
    if is_single_key(range) {
        if let Some(record) = view.get(Family::Latest, &range.start)? {
            // There is nothing to go on with.
            let _flow = visit(&range.start, &record)?;
        }
        return Ok(());
    }
    view.scan(Family::Latest, &range.start, range.end.as_deref(), visit)
}

fn is_single_key(range: &KeyRange) -> bool {
    let end = range.end.as_deref().and_then(|end| end.split_last());
    matches!(end, Some((0, key)) if key == range.start.as_ref())
}

/// The newest pairs in `range`, in key order.
///
/// # Errors
/// If the disk can't be read.
pub fn latest(view: &impl ReadView, range: &KeyRange) -> Result<Vec<(Bytes, Pair)>, DiskError> {
    let mut pairs = Vec::new();
    scan_pairs(view, range, &mut |key, record| {
        pairs.push((Bytes::copy_from_slice(key), decode_pair(Bytes::copy_from_slice(record))?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(pairs)
}

fn range_past(view: &impl ReadView, revision: Revision, out: &mut Collector<'_>) -> Result<(), DiskError> {
    let range = &out.request.range;
    let start = family::index_prefix(&range.start);
    let end = range.end.as_deref().map(family::index_prefix);
    let mut decided: Vec<u8> = Vec::new();
    view.scan(Family::Index, &start, end.as_deref(), &mut |key, value| {
        if !out.spend() {
            return Ok(ControlFlow::Break(()));
        }
        let (prefix, place) = family::split_index_key(key).map_err(DiskError::damaged(Family::Index))?;
        // Newest first: the first version at or below the revision decides for this key.
        if place.main > revision || decided == prefix {
            return Ok(ControlFlow::Continue(()));
        }
        decided.clear();
        decided.extend_from_slice(prefix);
        if value == [1] && out.wants_next() {
            let change = change(view, place)?.ok_or(DiskError::Missing("a version named by the index"))?;
            out.push(change.to_kv(place.main));
        }
        Ok(out.flow())
    })
}

fn change(view: &impl ReadView, place: Place) -> Result<Option<Change>, DiskError> {
    let record = view.get(Family::History, &place.key())?;
    record.map(|record| Change::decode(record).map_err(DiskError::damaged(Family::History))).transpose()
}

/// The events of whole revisions from `from` on, until at least `max_bytes` of values are collected.
/// `from` must be above the compaction of the view.
///
/// # Errors
/// If the disk can't be read.
pub fn events(
    view: &impl ReadView,
    from: Revision,
    max_bytes: usize,
) -> Result<Vec<RevisionEvents>, DiskError> {
    let mut revisions: Vec<(Revision, Vec<Change>)> = Vec::new();
    let mut bytes = 0;
    let start = Place { main: from, sub: 0 }.key();
    view.scan(Family::History, &start, None, &mut |key, record| {
        let damaged = DiskError::damaged(Family::History);
        let place = Place::decode(key).map_err(&damaged)?;
        let starts_new = revisions.last().is_none_or(|(main, _)| *main != place.main);
        if starts_new && bytes >= max_bytes {
            return Ok(ControlFlow::Break(()));
        }
        bytes += record.len();
        let change = Change::decode(Bytes::copy_from_slice(record)).map_err(&damaged)?;
        match revisions.last_mut().filter(|_| !starts_new) {
            Some((_, changes)) => changes.push(change),
            None => revisions.push((place.main, vec![change])),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let as_events = |(main, changes): (Revision, Vec<Change>)| {
        let events: Result<Arc<[Event]>, DiskError> =
            changes.into_iter().map(|change| event(view, main, change)).collect();
        Ok((main, events?))
    };
    revisions.into_iter().map(as_events).collect()
}

fn event(view: &impl ReadView, main: Revision, change: Change) -> Result<Event, DiskError> {
    let prev = match change.prev {
        // The version before an event above the compaction is the newest one at the compaction or
        // above it, so it is still there.
        Some(place) => self::change(view, place)?.map(|prev| prev.to_kv(place.main)),
        None => None,
    };
    Ok(Event { kind: change.kind, kv: change.to_kv(main), prev })
}

/// The kind, key and size of what a revision changed are in its events; this is who did it and when.
///
/// # Errors
/// If the disk can't be read.
pub fn journal(view: &impl ReadView, revision: Revision) -> Result<Option<JournalRecord>, DiskError> {
    let record = view.get(Family::Journal, &family::journal_key(revision))?;
    record
        .map(|record| JournalRecord::decode(record).map_err(DiskError::damaged(Family::Journal)))
        .transpose()
}

/// The newest revision that was written at or before `wall_ms`, found by halving.
///
/// # Errors
/// If the disk can't be read.
pub fn revision_at(view: &impl ReadView, head: &Head, wall_ms: u64) -> Result<Revision, DiskError> {
    let (mut low, mut high) = (head.compacted.0, head.revision.0);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        // A missing record is below a compaction that has begun to clean up: old.
        let old = journal(view, Revision(middle))?.is_none_or(|record| record.wall_ms() <= wall_ms);
        if old { low = middle } else { high = middle - 1 }
    }
    Ok(Revision(low))
}

/// The event for a key that is gone.
pub fn deletion(key: Bytes, main: Revision, prev: KeyValue) -> Event {
    let kv = KeyValue {
        key,
        value: Bytes::new(),
        create_revision: Revision(0),
        mod_revision: main,
        version: 0,
        lease: None,
    };
    Event { kind: EventKind::Delete, kv, prev: Some(prev) }
}
