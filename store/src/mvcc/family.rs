//! The whole key space of a member's disk, and how each record is laid out.
//!
//! | family | key | value | written by |
//! |---|---|---|---|
//! | `latest` | user key | newest [`Pair`] | apply |
//! | `history` | revision, sub | [`Change`]: one event | apply, scrub |
//! | `index` | escaped user key, inverted revision and sub | put or delete | apply, scrub |
//! | `leases` | 0, lease | [`LeaseRecord`] | apply |
//! | `leases` | 1, lease, user key | empty: the key is attached | apply |
//! | `journal` | revision | [`JournalRecord`] | apply, scrub |
//! | `meta` | `state`, `membership`, `session` + member, `scrubbed` | see [`super::state`] | apply, scrub |
//! | `log` | Raft index | Raft entry with checksum | Raft |
//! | `raft` | `hard`, `truncated`, `identity`, `boot`, `removed` | see [`crate::raft::persist`] | Raft |
//!
//! `latest` holds no deleted key, so a newest-value read costs one seek and a newest list one scan.
//! The index inverts revisions, so the newest version at or below a revision is the first one a
//! forward scan meets.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::{EventKind, KeyValue, LeaseId, Origin, Revision};

/// The layout of all records below. A directory or backup of another one is refused.
pub const SCHEMA_VERSION: u32 = 4;

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Newest pairs by key.
    Latest,
    /// Events by revision.
    History,
    /// Revisions by key.
    Index,
    /// Leases and what is attached to them.
    Leases,
    /// Who wrote a revision, when and why.
    Journal,
    /// The replicated state beside the data.
    Meta,
    /// Raft's log.
    Log,
    /// Raft's hard state and this member's identity.
    Raft,
}

impl Family {
    /// All families.
    pub const ALL: [Family; 8] = [
        Family::Latest,
        Family::History,
        Family::Index,
        Family::Leases,
        Family::Journal,
        Family::Meta,
        Family::Log,
        Family::Raft,
    ];

    /// The families that a snapshot carries: the replicated state, not this member's own.
    pub const REPLICATED: [Family; 6] =
        [Family::Latest, Family::History, Family::Index, Family::Leases, Family::Journal, Family::Meta];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Family::Latest => "latest",
            Family::History => "history",
            Family::Index => "index",
            Family::Leases => "leases",
            Family::Journal => "journal",
            Family::Meta => "meta",
            Family::Log => "log",
            Family::Raft => "raft",
        }
    }
}

/// Where an event stands: its transaction's revision, and its place in the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The transaction.
    pub main: Revision,
    /// From 0.
    pub sub: u32,
}

impl Place {
    /// The key in `history`.
    pub fn key(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.main.0.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    fn read(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { main: Revision(input.u64("revision")?), sub: input.u32("sub revision")? })
    }

    /// Reads a `history` key.
    pub fn decode(key: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(Bytes::copy_from_slice(key)))
    }
}

/// The key in `journal`.
pub fn journal_key(revision: Revision) -> [u8; 8] {
    revision.0.to_be_bytes()
}

/// The start of all `index` keys of a user key. Zero bytes are escaped and the end is marked lower than
/// any escaped byte, so that index keys sort like user keys even when one is a prefix of the other.
pub fn index_prefix(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 14);
    for byte in key {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
    out
}

/// The `index` key of one version.
pub fn index_key(key: &[u8], place: Place) -> Vec<u8> {
    let mut out = index_prefix(key);
    out.extend_from_slice(&(!place.main.0).to_be_bytes());
    out.extend_from_slice(&(!place.sub).to_be_bytes());
    out
}

/// Splits an `index` key into its prefix and its place.
///
/// # Errors
/// If it is too short to be one.
pub fn split_index_key(key: &[u8]) -> Result<(&[u8], Place), DecodeError> {
    let at = key.len().checked_sub(12).ok_or(DecodeError::Truncated("index key"))?;
    let mut input = Reader::new(Bytes::copy_from_slice(&key[at..]));
    let main = Revision(!input.u64("revision")?);
    Ok((&key[..at], Place { main, sub: !input.u32("sub revision")? }))
}

/// The newest value of a key: the record in `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Of the put that created this generation.
    pub create: Revision,
    /// Of the last put.
    pub place: Place,
    /// Puts in this generation.
    pub version: u64,
    /// What it is attached to.
    pub lease: Option<LeaseId>,
    /// The value.
    pub value: Bytes,
}

impl Pair {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(36 + self.value.len());
        out.u64(self.create.0).u64(self.place.main.0).u32(self.place.sub).u64(self.version);
        out.u64(self.lease.map_or(0, |id| id.0)).raw(&self.value);
        out.finish()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        Ok(Self {
            create: Revision(input.u64("create revision")?),
            place: Place::read(&mut input)?,
            version: input.u64("version")?,
            lease: lease_id(input.u64("lease")?),
            value: input.rest(),
        })
    }

    /// As users see it.
    pub fn to_kv(&self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            value: self.value.clone(),
            create_revision: self.create,
            mod_revision: self.place.main,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// One event: the record in `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Put or delete.
    pub kind: EventKind,
    /// The pair before, unless this created the key.
    pub prev: Option<Place>,
    /// Which key.
    pub key: Bytes,
    /// Of the put that created this generation; 0 for a delete.
    pub create: Revision,
    /// Puts in this generation; 0 for a delete.
    pub version: u64,
    /// What it is attached to.
    pub lease: Option<LeaseId>,
    /// The value; empty for a delete.
    pub value: Bytes,
}

impl Change {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(41 + self.key.len() + self.value.len());
        let prev = self.prev.unwrap_or_default();
        out.u8(u8::from(self.kind == EventKind::Put)).u64(prev.main.0).u32(prev.sub);
        out.u64(self.create.0).u64(self.version).u64(self.lease.map_or(0, |id| id.0));
        out.bytes(&self.key).raw(&self.value);
        out.finish()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        let kind = if input.u8("kind")? == 1 { EventKind::Put } else { EventKind::Delete };
        let prev = Place::read(&mut input)?;
        Ok(Self {
            kind,
            prev: (prev.main > Revision(0)).then_some(prev),
            create: Revision(input.u64("create revision")?),
            version: input.u64("version")?,
            lease: lease_id(input.u64("lease")?),
            key: input.bytes("key")?,
            value: input.rest(),
        })
    }

    /// As users see it.
    pub fn to_kv(&self, main: Revision) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            value: self.value.clone(),
            create_revision: self.create,
            mod_revision: main,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// The key of a lease in `leases`.
pub fn lease_key(id: LeaseId) -> Vec<u8> {
    let mut out = Writer::with_capacity(9);
    out.u8(0).u64(id.0);
    out.finish()
}

/// The start of the keys in `leases` that name what is attached to a lease.
pub fn attachment_prefix(id: LeaseId) -> Vec<u8> {
    let mut out = Writer::with_capacity(9);
    out.u8(1).u64(id.0);
    out.finish()
}

/// The key in `leases` that says `key` is attached to `id`.
pub fn attachment_key(id: LeaseId, key: &[u8]) -> Vec<u8> {
    let mut out = attachment_prefix(id);
    out.extend_from_slice(key);
    out
}

/// A lease: the record in `leases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Granted time to live.
    pub ttl_seconds: u64,
    /// The log index of its grant, and one more for each renewal in the log: tells leases of the same id
    /// apart, and a timer of before a renewal from one of after it.
    pub generation: u64,
    /// What was left of it when a leader last wrote that down.
    pub remaining_seconds: Option<u64>,
}

impl LeaseRecord {
    /// The record.
    pub fn encode(self) -> Vec<u8> {
        let mut out = Writer::with_capacity(24);
        out.u64(self.ttl_seconds).u64(self.generation);
        if let Some(remaining) = self.remaining_seconds {
            out.u64(remaining);
        }
        out.finish()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        let (ttl_seconds, generation) = (input.u64("ttl")?, input.u64("generation")?);
        let remaining_seconds = (input.remaining() > 0).then(|| input.u64("remaining")).transpose()?;
        Ok(Self { ttl_seconds, generation, remaining_seconds })
    }
}

/// Who wrote a revision, when and why: the record in `journal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// Hybrid logical time: milliseconds since 1970 times 65,536, plus a counter. Grows with each revision.
    pub time: u64,
    /// Who and why.
    pub origin: Origin,
}

impl JournalRecord {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        let Origin { user, agent, verb, cause } = &self.origin;
        let mut out = Writer::with_capacity(28 + user.len() + agent.len() + verb.len());
        out.u64(self.time).u64(cause.map_or(0, |revision| revision.0));
        out.bytes(user.as_bytes()).bytes(agent.as_bytes()).bytes(verb.as_bytes());
        out.finish()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        let time = input.u64("time")?;
        let cause = input.u64("cause")?;
        Ok(Self {
            time,
            origin: Origin {
                user: input.text("user")?,
                agent: input.text("agent")?,
                verb: input.text("verb")?,
                cause: (cause > 0).then_some(Revision(cause)),
            },
        })
    }

    /// Its wall-clock part, milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        self.time >> 16
    }
}

fn lease_id(raw: u64) -> Option<LeaseId> {
    (raw > 0).then_some(LeaseId(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_keys_sort_like_keys_then_newest_first() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"\0a", b"a", b"a\0"];
        for pair in keys.windows(2) {
            assert!(index_prefix(pair[0]) < index_prefix(pair[1]), "{pair:?}");
            let oldest = index_key(pair[0], Place::default());
            let newest = index_key(pair[1], Place { main: Revision(u64::MAX), sub: u32::MAX });
            assert!(oldest < newest, "{pair:?}");
        }
        let older = Place { main: Revision(4), sub: 9 };
        let newer = Place { main: Revision(5), sub: 0 };
        assert!(index_key(b"k", newer) < index_key(b"k", older));
        assert_eq!(split_index_key(&index_key(b"k", newer)).unwrap(), (&index_prefix(b"k")[..], newer));
    }
}
