//! What a member writes down about incarnations, its own and the others': local, no part of a snapshot.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::Reader;
use crate::kv::{KeyRange, MemberId};
use crate::mvcc::family::Family;
use crate::mvcc::view::{Batch, DiskError, ReadView};

const INCARNATION_KEY: &[u8] = b"incarnation";
/// There as long as the member isn't admitted.
const NEWCOMER_KEY: &[u8] = b"newcomer";
const ACQUAINTED_PREFIX: &[u8] = b"acquainted/";

/// What the directory says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its number.
    pub incarnation: u64,
    /// Whether it has yet to be admitted.
    pub is_newcomer: bool,
}

/// What the directory says of itself; a new one takes the number that was drawn for it, in `batch`.
///
/// # Errors
/// If it can't be read.
pub fn claim(view: &impl ReadView, drawn: u64, batch: &mut Batch) -> Result<Own, DiskError> {
    if let Some(record) = view.get(Family::Raft, INCARNATION_KEY)? {
        let incarnation = number(record)?;
        return Ok(Own { incarnation, is_newcomer: view.get(Family::Raft, NEWCOMER_KEY)?.is_some() });
    }
    batch.put(Family::Raft, INCARNATION_KEY, Bytes::copy_from_slice(&drawn.to_be_bytes()));
    batch.put(Family::Raft, NEWCOMER_KEY, Bytes::from_static(b"1"));
    Ok(Own { incarnation: drawn, is_newcomer: true })
}

/// The member is admitted, for ever; must be synced before it takes part.
pub fn admitted(batch: &mut Batch) {
    batch.delete(Family::Raft, NEWCOMER_KEY);
}

/// Whether the directory is there, and its member not admitted yet.
///
/// # Errors
/// If it can't be read.
#[cfg(test)]
pub fn is_admitted(view: &impl ReadView) -> Result<bool, DiskError> {
    let there = view.get(Family::Raft, INCARNATION_KEY)?.is_some();
    Ok(there && view.get(Family::Raft, NEWCOMER_KEY)?.is_none())
}

/// Writes down whom this member has heard of; must be synced before it vouches.
pub fn acquaint(batch: &mut Batch, member: MemberId, incarnation: u64) {
    let key = [ACQUAINTED_PREFIX, &member.0.to_be_bytes()].concat();
    batch.put(Family::Raft, key, Bytes::copy_from_slice(&incarnation.to_be_bytes()));
}

/// Whom this member has heard of.
///
/// # Errors
/// If it can't be read.
pub fn acquainted(view: &impl ReadView) -> Result<BTreeMap<MemberId, u64>, DiskError> {
    let mut records = Vec::new();
    let end = KeyRange::prefix(ACQUAINTED_PREFIX).end;
    view.scan(Family::Raft, ACQUAINTED_PREFIX, end.as_deref(), &mut |key, value| {
        let member = Bytes::copy_from_slice(&key[ACQUAINTED_PREFIX.len()..]);
        records.push((member, Bytes::copy_from_slice(value)));
        Ok(ControlFlow::Continue(()))
    })?;
    records.into_iter().map(|(member, record)| Ok((MemberId(number(member)?), number(record)?))).collect()
}

fn number(record: Bytes) -> Result<u64, DiskError> {
    Reader::new(record).u64("incarnation").map_err(DiskError::damaged(Family::Raft))
}
