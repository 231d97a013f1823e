//! Giving compacted history back to the disk, a bounded piece at a time.
//!
//! Compaction itself is a replicated entry that only moves a mark; each member cleans up behind the
//! mark at its own pace. Every event points at the version it replaced, so the pass walks only the
//! events between the last finished mark and the new one: the version before each of them is
//! superseded, and a deletion is needed by nobody. A crash in the middle repeats a piece, which is harmless.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::family::{self, Change, Family, Place};
use super::state::{Head, SCRUBBED_KEY};
use super::view::{Batch, DiskError, ReadView};
use crate::bug::bug;
use crate::codec::Reader;
use crate::kv::{EventKind, Revision};

/// One piece of cleaning.
#[derive(Debug, Default)]
pub struct Piece {
    /// The removals, and the mark of how far they go.
    pub batch: Batch,
    /// Whether more is left.
    pub more: bool,
}

/// The next piece behind the view's compaction, looking at about `max_events` events; `None` if all is clean.
///
/// # Errors
/// If the disk can't be read.
pub fn next_piece(view: &impl ReadView, max_events: usize) -> Result<Option<Piece>, DiskError> {
    let compacted = Head::load(view)?.compacted;
    let done = scrubbed(view)?;
    if done >= compacted {
        return Ok(None);
    }
    let mut batch = Batch::default();
    let mut seen = 0;
    let mut last = done;
    let mut more = false;
    let start = Place { main: Revision(done.0 + 1), sub: 0 }.key();
    let end = Place { main: Revision(compacted.0 + 1), sub: 0 }.key();
    view.scan(Family::History, &start, Some(&end), &mut |key, record| {
        let place = Place::decode(key).map_err(DiskError::damaged(Family::History))?;
        if seen >= max_events && place.main != last {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        (seen, last) = (seen + 1, place.main);
        forget(place, record, &mut batch)?;
        Ok(ControlFlow::Continue(()))
    })?;
    let upto = if more { last } else { compacted };
    forget_journal(view, done, upto, &mut batch)?;
    batch.put(Family::Meta, SCRUBBED_KEY, Bytes::copy_from_slice(&upto.0.to_be_bytes()));
    Ok(Some(Piece { batch, more }))
}

/// How far the cleaning is.
///
/// # Errors
/// If the disk can't be read.
pub fn scrubbed(view: &impl ReadView) -> Result<Revision, DiskError> {
    match view.get(Family::Meta, SCRUBBED_KEY)? {
        Some(record) => {
            Reader::new(record).u64("revision").map(Revision).map_err(DiskError::damaged(Family::Meta))
        }
        None => Ok(Revision(0)),
    }
}

/// Only what is there: after a restore there are a billion revisions that nobody ever wrote.
fn forget_journal(
    view: &impl ReadView,
    done: Revision,
    upto: Revision,
    batch: &mut Batch,
) -> Result<(), DiskError> {
    let (start, end) = (family::journal_key(Revision(done.0 + 1)), family::journal_key(Revision(upto.0 + 1)));
    view.scan(Family::Journal, &start, Some(&end), &mut |key, _| {
        batch.delete(Family::Journal, key);
        Ok(ControlFlow::Continue(()))
    })
}

fn forget(place: Place, record: &[u8], batch: &mut Batch) -> Result<(), DiskError> {
    let change =
        Change::decode(Bytes::copy_from_slice(record)).map_err(DiskError::damaged(Family::History))?;
    let keep = bug!(KeepDeletedAtCompaction) && change.kind == EventKind::Delete;
    if let Some(prev) = change.prev.filter(|_| !keep) {
        remove(prev, &change.key, batch);
    }
    if change.kind == EventKind::Delete {
        remove(place, &change.key, batch);
    }
    Ok(())
}

fn remove(place: Place, key: &[u8], batch: &mut Batch) {
    batch.delete(Family::History, place.key());
    batch.delete(Family::Index, family::index_key(key, place));
}
