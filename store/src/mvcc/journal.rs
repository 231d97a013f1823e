//! Reading the journal: who wrote what, when and why, by revision and by key, as far back as history goes.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::family::{self, Change, Family, JournalRecord, Place};
use super::read;
use super::state::Head;
use super::view::{DiskError, ReadView};
use crate::codec::Reader;
use crate::kv::{EventKind, KeyRange, Revision};

/// A revision with who wrote it and what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journaled {
    /// The revision.
    pub revision: Revision,
    /// Who, when and why.
    pub record: JournalRecord,
    /// Kind, key and size of the value of each change, in order.
    pub changes: Vec<(EventKind, Bytes, usize)>,
}

/// What is known about a revision; `None` if it is compacted or doesn't exist yet.
///
/// # Errors
/// If the disk can't be read.
pub fn journaled(view: &impl ReadView, revision: Revision) -> Result<Option<Journaled>, DiskError> {
    let Some(record) = read::journal(view, revision)? else { return Ok(None) };
    let mut changes = Vec::new();
    let start = Place { main: revision, sub: 0 }.key();
    let end = Place { main: Revision(revision.0 + 1), sub: 0 }.key();
    view.scan(Family::History, &start, Some(&end), &mut |_, record| {
        let change = Change::decode(Bytes::copy_from_slice(record));
        let change = change.map_err(DiskError::damaged(Family::History))?;
        changes.push((change.kind, change.key, change.value.len()));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Some(Journaled { revision, record, changes }))
}

/// The journal of `from..=to` in order, at most `limit` revisions.
///
/// # Errors
/// If the disk can't be read.
pub fn journal_between(
    view: &impl ReadView,
    from: Revision,
    to: Revision,
    limit: usize,
) -> Result<Vec<Journaled>, DiskError> {
    // Records at or below the compaction are only there because nobody has cleaned up yet.
    let from = from.max(Revision(Head::load(view)?.compacted.0 + 1));
    let mut revisions = Vec::new();
    let end = to.0.checked_add(1).map(|end| family::journal_key(Revision(end)));
    view.scan(
        Family::Journal,
        &family::journal_key(from),
        end.as_ref().map(|end| &end[..]),
        &mut |key, _| {
            if revisions.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let mut input = Reader::new(Bytes::copy_from_slice(key));
            revisions.push(Revision(input.u64("revision").map_err(DiskError::damaged(Family::Journal))?));
            Ok(ControlFlow::Continue(()))
        },
    )?;
    revisions.into_iter().filter_map(|revision| journaled(view, revision).transpose()).collect()
}

/// The journal of the revisions that changed `key`, newest first, at most `limit` of them.
///
/// # Errors
/// If the disk can't be read.
pub fn journal_of(view: &impl ReadView, key: &[u8], limit: usize) -> Result<Vec<Journaled>, DiskError> {
    let compacted = Head::load(view)?.compacted;
    let mut revisions: Vec<Revision> = Vec::new();
    let prefix = family::index_prefix(key);
    let end = KeyRange::prefix(prefix.clone()).end;
    view.scan(Family::Index, &prefix, end.as_deref(), &mut |key, _| {
        let (_, place) = family::split_index_key(key).map_err(DiskError::damaged(Family::Index))?;
        if place.main <= compacted || revisions.len() == limit {
            return Ok(ControlFlow::Break(()));
        }
        if revisions.last() != Some(&place.main) {
            revisions.push(place.main);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    revisions.into_iter().filter_map(|revision| journaled(view, revision).transpose()).collect()
}
