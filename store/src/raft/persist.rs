//! Raft's records on disk, and how a member finds itself again at start.
//!
//! Entries and hard state carry a checksum. Recovery refuses a log with a gap, a damaged entry, or
//! less than what was applied: such a member has lost what it promised and must not vote.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};

use super::log::LogCache;
use crate::bug::bug;
use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::MemberId;
use crate::membership::{MemberInfo, Membership};
use crate::mvcc::family::{Family, SCHEMA_VERSION};
use crate::mvcc::state::{FOUNDED_INDEX, FOUNDED_TERM, State};
use crate::mvcc::view::{Batch, DiskError, ReadView};

/// What stands before a sealed record.
const CHECKSUM_BYTES: usize = 4;
/// What stands before an entry's payload: index, term, type and length.
const ENTRY_HEAD: usize = 24;
/// A record of the log that has so many bytes takes no further entry.
const RECORD_BYTES: usize = 1 << 20;
const HARD_KEY: &[u8] = b"hard";
const TRUNCATED_KEY: &[u8] = b"truncated";
const IDENTITY_KEY: &[u8] = b"identity";
const BOOT_KEY: &[u8] = b"boot";
const REMOVED_KEY: &[u8] = b"removed";

/// Whose disk this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which cluster; any number that its members share.
    pub cluster: u64,
    /// Which member.
    pub member: MemberId,
}

/// Why a member can't start from its disk.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The disk can't be read.
    #[error("reading the member's state")]
    Disk(#[from] DiskError),
    /// It is somebody else's.
    #[error("the directory belongs to member {found:?}, but this is {expected:?}")]
    WrongIdentity {
        /// What is on disk.
        found: Identity,
        /// What the configuration says.
        expected: Identity,
    },
    /// Another program's, or a newer one's.
    #[error("the directory has schema {found}, but this program knows {SCHEMA_VERSION}")]
    Schema {
        /// What is on disk.
        found: u32,
    },
    /// The group has removed this member.
    #[error(
        "member {0} was removed from the cluster and can't come back; to join again, add a new member and \
         start it with an empty directory"
    )]
    Removed(MemberId),
    /// It has been found to differ from the others.
    #[error("member {member} is fenced: {detail}")]
    Fenced {
        /// This member.
        member: MemberId,
        /// What was found and what to do.
        detail: String,
    },
    /// The log on disk isn't whole.
    #[error("the Raft log is not whole: {0}; remove this member and let it join again as a new one")]
    LogLost(String),
}

impl RecoverError {
    /// Whether the disk is full, rather than broken.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_no_space())
    }
}

/// Records entries that replace everything from the first of them on; `old_last` is the last index so far.
/// What is appended together is one record, under the index of its first entry.
pub fn append(batch: &mut Batch, entries: &[Entry], old_last: u64) {
    for record in records(entries) {
        batch.put(Family::Log, record[0].index.to_be_bytes(), encode_entries(record));
    }
    if let Some(first) = entries.first() {
        let kept: BTreeSet<u64> = records(entries).map(|record| record[0].index).collect();
        let stale = (first.index..=old_last).filter(|index| !kept.contains(index));
        stale.for_each(|index| batch.delete(Family::Log, index.to_be_bytes()));
    }
}

/// Entries as they are cut into records.
pub fn records(mut entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let beyond = entries.iter().position(|entry| {
            let full = bytes >= RECORD_BYTES;
            bytes += entry.data.len();
            full
        });
        let (record, rest) = entries.split_at(beyond.unwrap_or(entries.len()));
        entries = rest;
        (!record.is_empty()).then_some(record)
    })
}

/// Records term, vote and commit.
pub fn hard_state(batch: &mut Batch, state: &HardState) {
    let mut out = Writer::with_capacity(28);
    out.u64(state.term).u64(state.vote).u64(state.commit);
    batch.put(Family::Raft, HARD_KEY, seal(&out.finish()));
}

/// Records that the log begins after `index`, and removes the `records` before.
pub fn truncate(batch: &mut Batch, records: impl IntoIterator<Item = u64>, index: u64, term: u64) {
    records.into_iter().for_each(|old| batch.delete(Family::Log, old.to_be_bytes()));
    let mut out = Writer::with_capacity(20);
    out.u64(index).u64(term);
    batch.put(Family::Raft, TRUNCATED_KEY, seal(&out.finish()));
}

/// Checks whose disk it is, or marks a new one, and counts the start. On a new disk the group begins with
/// `founders`; without any, the member waits to be told by the group that it joins. The batch must be synced
/// before anything is proposed.
///
/// # Errors
/// If it is somebody else's, its member was removed, or it can't be read.
pub fn claim(
    view: &impl ReadView,
    expected: Identity,
    founders: &[MemberInfo],
) -> Result<(u64, Batch), RecoverError> {
    let mut batch = Batch::default();
    match self::identity(view)? {
        Some(found) if found != expected => return Err(RecoverError::WrongIdentity { found, expected }),
        Some(_) => {}
        None => found(&mut batch, &expected, founders),
    }
    if view.get(Family::Raft, REMOVED_KEY)?.is_some() {
        return Err(RecoverError::Removed(expected.member));
    }
    let boot = match view.get(Family::Raft, BOOT_KEY)? {
        Some(record) => Reader::new(record).u64("boot").map_err(DiskError::damaged(Family::Raft))? + 1,
        None => 1,
    };
    batch.put(Family::Raft, BOOT_KEY, Bytes::copy_from_slice(&boot.to_be_bytes()));
    Ok((boot, batch))
}

/// Whose disk it is; `None` if it is new.
///
/// # Errors
/// If it can't be read, or has another schema.
pub fn identity(view: &impl ReadView) -> Result<Option<Identity>, RecoverError> {
    let Some(record) = view.get(Family::Raft, IDENTITY_KEY)? else { return Ok(None) };
    let damaged = DiskError::damaged(Family::Raft);
    let mut input = Reader::new(open(record).map_err(&damaged)?);
    let schema = input.u32("schema").map_err(&damaged)?;
    if schema != SCHEMA_VERSION {
        return Err(RecoverError::Schema { found: schema });
    }
    Ok(Some(decode_identity(input).map_err(damaged)?))
}

/// Records whose disk it is.
pub fn identify(batch: &mut Batch, identity: &Identity) {
    batch.put(Family::Raft, IDENTITY_KEY, seal(&encode_identity(identity)));
}

/// Records an empty log after `index`, which is applied: of a member that was restored.
pub fn begin_after(batch: &mut Batch, index: u64, term: u64) {
    truncate(batch, [], index, term);
    let mut state = HardState::default();
    state.set_term(term);
    state.set_commit(index);
    hard_state(batch, &state);
}

/// Marks a new disk, on which the group begins if it has founders.
fn found(batch: &mut Batch, identity: &Identity, founders: &[MemberInfo]) {
    identify(batch, identity);
    if !founders.is_empty() {
        State::found(Membership::found(founders.iter().cloned()), batch);
        begin_after(batch, FOUNDED_INDEX, FOUNDED_TERM);
    }
}

/// Empties the membership changes in the log after `index`: those of a lost group mean nothing to the one
/// that its survivor makes.
pub fn void_conf_changes(log: &LogCache, index: u64, batch: &mut Batch) {
    let void = |entry: &Entry| {
        let mut void = Entry::new();
        (void.index, void.term) = (entry.index, entry.term);
        if entry.get_entry_type() == EntryType::EntryNormal { entry.clone() } else { void }
    };
    let entries: Vec<Entry> = log.entries_after(index).map(void).collect();
    append(batch, &entries, log.last());
}

/// Records that the group has removed this member; must be synced.
pub fn removed(batch: &mut Batch) {
    batch.put(Family::Raft, REMOVED_KEY, Bytes::from_static(b"1"));
}

/// Reads the log back.
///
/// # Errors
/// If it can't be read or isn't whole.
pub fn recover(view: &impl ReadView) -> Result<LogCache, RecoverError> {
    let State { head, membership, .. } = State::load(view)?;
    let (index, term) = load_truncated(view)?;
    let mut log = LogCache::new(index, term, load_hard_state(view)?, membership.conf_state());
    for (record, entries) in load_records(view)? {
        let after = entries.iter().position(|entry| entry.index > index).unwrap_or(entries.len());
        let Some(first) = entries.get(after) else { continue };
        // A record may begin before the end of the one before it, whose tail it replaces.
        if first.index > log.last() + 1 {
            return Err(RecoverError::LogLost(format!("entry {} follows {}", first.index, log.last())));
        }
        log.append_record(record, &entries[after..]);
    }
    // The commit index is persisted lazily; what is applied was committed.
    if !bug!(CommitBehindAppliedOnOpen) {
        log.hard_state.commit = log.hard_state.commit.max(head.index);
    }
    let (commit, last) = (log.hard_state.commit, log.last());
    if commit > last || head.index < index {
        return Err(RecoverError::LogLost(format!(
            "entries {} to {last} are there, but {commit} is committed and {} applied",
            index + 1,
            head.index,
        )));
    }
    Ok(log)
}

fn load_truncated(view: &impl ReadView) -> Result<(u64, u64), DiskError> {
    let Some(record) = view.get(Family::Raft, TRUNCATED_KEY)? else { return Ok((0, 0)) };
    let decode = |record| {
        let mut input = Reader::new(open(record)?);
        Ok((input.u64("index")?, input.u64("term")?))
    };
    decode(record).map_err(DiskError::damaged(Family::Raft))
}

fn load_hard_state(view: &impl ReadView) -> Result<HardState, DiskError> {
    let Some(record) = view.get(Family::Raft, HARD_KEY)? else { return Ok(HardState::default()) };
    let decode = |record| {
        let mut input = Reader::new(open(record)?);
        let mut state = HardState::default();
        state.set_term(input.u64("term")?);
        state.set_vote(input.u64("vote")?);
        state.set_commit(input.u64("commit")?);
        Ok(state)
    };
    decode(record).map_err(DiskError::damaged(Family::Raft))
}

/// All records of the log, under their keys.
fn load_records(view: &impl ReadView) -> Result<Vec<(u64, Vec<Entry>)>, DiskError> {
    let damaged = DiskError::damaged(Family::Log);
    let mut records = Vec::new();
    view.scan(Family::Log, &[], None, &mut |key, record| {
        let key = Reader::new(Bytes::copy_from_slice(key)).u64("index").map_err(&damaged)?;
        records.push((key, decode_entries(Bytes::copy_from_slice(record)).map_err(&damaged)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(records)
}

/// A record of the log.
pub fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let payload: usize = entries.iter().map(|entry| ENTRY_HEAD + entry.data.len()).sum();
    // As `seal` does, but the payload is copied once.
    let mut out = Writer::with_capacity(CHECKSUM_BYTES + payload);
    out.u32(0);
    for entry in entries {
        out.u64(entry.index).u64(entry.term).u32(entry.get_entry_type() as u32).bytes(&entry.data);
    }
    let mut record = out.finish();
    let (checksum, sealed) = record.split_at_mut(CHECKSUM_BYTES);
    checksum.copy_from_slice(&crc32fast::hash(sealed).to_be_bytes());
    record
}

/// Reads a record of the log back.
///
/// # Errors
/// If it is damaged.
pub fn decode_entries(record: Bytes) -> Result<Vec<Entry>, DecodeError> {
    let mut input = Reader::new(open(record)?);
    let mut entries = Vec::new();
    while input.remaining() > 0 {
        let mut entry = Entry::new();
        entry.index = input.u64("index")?;
        entry.term = input.u64("term")?;
        match input.u32("entry type")? {
            0 => {}
            2 => entry.set_entry_type(EntryType::EntryConfChangeV2),
            tag => return Err(DecodeError::Unknown { what: "entry type", tag: tag.into() }),
        }
        entry.data = input.bytes("entry")?;
        entries.push(entry);
    }
    Ok(entries)
}

fn encode_identity(identity: &Identity) -> Vec<u8> {
    let mut out = Writer::with_capacity(48);
    out.u32(SCHEMA_VERSION).u64(identity.cluster).u64(identity.member.0);
    out.finish()
}

fn decode_identity(mut input: Reader) -> Result<Identity, DecodeError> {
    let (cluster, member) = (input.u64("cluster")?, MemberId(input.u64("member")?));
    input.finish()?;
    Ok(Identity { cluster, member })
}

/// Puts a checksum before the bytes.
pub fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(CHECKSUM_BYTES + bytes.len());
    out.u32(crc32fast::hash(bytes)).raw(bytes);
    out.finish()
}

/// Checks and takes off the checksum.
///
/// # Errors
/// If it doesn't fit.
pub fn open(record: Bytes) -> Result<Bytes, DecodeError> {
    let mut input = Reader::new(record);
    let expected = input.u32("checksum")?;
    let bytes = input.rest();
    if crc32fast::hash(&bytes) == expected {
        Ok(bytes)
    } else {
        Err(DecodeError::Unknown { what: "checksum", tag: expected.into() })
    }
}
