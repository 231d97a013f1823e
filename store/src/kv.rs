//! The contract of the store: what every implementation promises and every user may rely on.
//!
//! The model is etcd v3's: one total order of revisions, a revision per committed transaction that
//! changes something; a key has a create revision, a mod revision and a version; transactions compare
//! and then act; a watch replays history from a revision and then follows. Keys and values are bytes:
//! **nothing in this crate parses them.**

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::journal::Journal;

mod error;
mod watch;

pub use error::KvError;
pub use watch::{Event, EventKind, MapMessage, Watch, WatchControl, WatchMessage, WatchRequest};

/// A point in the store's total order. `Revision(0)` is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What an empty store is at, as in etcd: the first write makes the next. So nobody who asks for what comes after
/// the newest revision asks for revision 1, and 0 means "none" everywhere.
pub const FIRST_REVISION: Revision = Revision(1);

/// Identifies a lease; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// Identifies a member of the Raft group; never zero and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hexadecimal, as everyone prints it who speaks etcd's API.
impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A half-open interval of keys in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key of the range.
    pub start: Bytes,
    /// The first key after the range; `None` means "to the end of the key space".
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Just this key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = start.to_vec();
        end.push(0);
        Self { start, end: Some(end.into()) }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = start.iter().rposition(|b| *b != 0xff).map(|last| {
            let mut end = start[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        });
        Self { start, end }
    }

    /// The keys `start <= key < end`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_ref() <= key && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }
}

/// A key with its value and its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty in a deletion event.
    pub value: Bytes,
    /// Revision of the put that created this generation of the key.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub mod_revision: Revision,
    /// Number of puts in this generation, from 1; 0 in a deletion event.
    pub version: u64,
    /// The lease that the key is attached to.
    pub lease: Option<LeaseId>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began (a quorum confirms, by ReadIndex).
    #[default]
    Linearizable,
    /// Sees some past state of this member, without asking anyone.
    Serializable,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; `None` is the newest.
    pub revision: Option<Revision>,
    /// At most this many pairs; 0 is no limit.
    pub limit: usize,
    /// Return no values.
    pub keys_only: bool,
    /// Return no pairs at all, only the count.
    pub count_only: bool,
    /// Count the whole range even if the limit cuts it: costs a look at every key of the range.
    pub count: bool,
    /// How fresh; ignored inside a transaction.
    pub consistency: Consistency,
}

impl RangeRequest {
    /// A linearizable read of `range` at the newest revision.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            revision: None,
            limit: 0,
            keys_only: false,
            count_only: false,
            count: false,
            consistency: Consistency::Linearizable,
        }
    }
}

/// The answer to a [`RangeRequest`], one snapshot in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The pairs, in key order.
    pub kvs: Vec<KeyValue>,
    /// More keys lie in the range beyond the limit.
    pub more: bool,
    /// Number of keys in the whole range, whatever the limit; `None` if the limit cut the range and
    /// nobody asked for the count.
    pub count: Option<u64>,
    /// The store's newest revision when the read was made (not the revision asked for).
    pub revision: Revision,
}

/// What a comparison looks at. A missing key has revision 0, version 0, an empty value and no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The key's mod revision.
    ModRevision(Revision),
    /// The key's create revision.
    CreateRevision(Revision),
    /// The key's version.
    Version(u64),
    /// The key's value; a missing key never matches.
    Value(Bytes),
    /// The key's lease.
    Lease(Option<LeaseId>),
}

/// How a comparison compares: `actual OP expected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
}

/// One precondition of a transaction; over a range it must hold for every key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// `==`, `!=`, `>`, `<`.
    pub op: CompareOp,
    /// What is compared and with what.
    pub target: Target,
}

impl Compare {
    /// The key was last written at `revision`; `Revision(0)` means that it doesn't exist.
    pub fn mod_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self { range: KeyRange::key(key), op: CompareOp::Equal, target: Target::ModRevision(revision) }
    }

    /// The key doesn't exist.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::mod_revision(key, Revision(0))
    }
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Read; sees the effects of earlier steps of the same transaction.
    Range(RangeRequest),
    /// Write. A key may be written once in a transaction.
    Put {
        /// The key.
        key: Bytes,
        /// The new value.
        value: Bytes,
        /// Attach the key to this lease, which must exist.
        lease: Option<LeaseId>,
    },
    /// Write a key that exists, keeping its value or its lease (or both). Without the key the whole
    /// transaction fails with [`KvError::KeyNotFound`]. Counts as a write of the key.
    Amend {
        /// The key.
        key: Bytes,
        /// The new value; `None` keeps the current one.
        value: Option<Bytes>,
        /// The new lease, or `Some(None)` for none; `None` keeps the current one.
        lease: Option<Option<LeaseId>>,
    },
    /// Delete all keys in the range.
    Delete(KeyRange),
    /// A nested transaction.
    Txn(Box<Txn>),
}

/// Who asks for a write and what made them: recorded with the revision (the journal).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The authenticated user.
    pub user: String,
    /// The program, as it calls itself (the first word of its User-Agent).
    pub agent: String,
    /// What it did: `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// The revision whose observation led to this write.
    pub cause: Option<Revision>,
}

/// Compare, then do `success` or `failure`, all at one revision.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// All must hold for `success`.
    pub compare: Vec<Compare>,
    /// Done if every comparison holds.
    pub success: Vec<Op>,
    /// Done otherwise.
    pub failure: Vec<Op>,
    /// Who and why.
    pub origin: Origin,
}

/// The result of one step, in the order of the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResponse {
    /// Of [`Op::Range`].
    Range(RangeResponse),
    /// Of [`Op::Put`] and [`Op::Amend`]: the pair that was replaced.
    Put(Option<KeyValue>),
    /// Of [`Op::Delete`]: the pairs that were deleted.
    Delete(Vec<KeyValue>),
    /// Of [`Op::Txn`].
    Txn(TxnResponse),
}

/// The outcome of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// The transaction's revision if it changed something, else the newest revision.
    pub revision: Revision,
    /// One for each step of the branch that was taken.
    pub responses: Vec<OpResponse>,
}

/// A lease as granted or refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Granted time to live in seconds.
    pub ttl_seconds: u64,
}

/// A lease and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id.
    pub id: LeaseId,
    /// Granted time to live in seconds.
    pub granted_ttl_seconds: u64,
    /// What is left of it, unless it is kept alive.
    pub remaining: Duration,
    /// The keys that are attached to it, in order.
    pub keys: Vec<Bytes>,
}

/// How this member sees the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub member: MemberId,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// The Raft term.
    pub term: u64,
    /// The last applied Raft log index.
    pub applied_index: u64,
    /// The newest applied revision.
    pub revision: Revision,
    /// History at or below this revision is gone.
    pub compacted: Revision,
    /// Voting members of the group.
    pub voters: Vec<MemberId>,
    /// Members that get the log but don't vote.
    pub learners: Vec<MemberId>,
}

/// The store as its users see it. Implementations: [`crate::Store`] (Raft over RocksDB) and
/// [`crate::model::Model`] (a slow, obvious one, for tests).
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// Reads a range at one revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError>;
    /// Compares and writes atomically. Returns after the write is durable on a quorum and applied here.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError>;
    /// Follows a range. Fails with [`KvError::Compacted`] if `start` is at or below the compaction.
    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError>;
    /// Forgets history at or below `revision` (superseded pairs and tombstones only).
    async fn compact(&self, revision: Revision) -> Result<(), KvError>;
    /// Makes a lease; its keys are deleted when it isn't kept alive for `ttl_seconds`. Without an `id`
    /// the store chooses one.
    async fn lease_grant(&self, id: Option<LeaseId>, ttl_seconds: u64) -> Result<Lease, KvError>;
    /// Restarts the lease's time to live. Never succeeds once its keys are deleted.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, KvError>;
    /// Ends the lease and deletes its keys, at one revision.
    async fn lease_revoke(&self, id: LeaseId) -> Result<(), KvError>;
    /// What is left of the lease, as its leader knows it, and its keys.
    async fn lease_info(&self, id: LeaseId) -> Result<LeaseInfo, KvError>;
    /// All leases, in order of their ids.
    async fn leases(&self) -> Result<Vec<LeaseId>, KvError>;
    /// This member's view; never blocks on the group.
    fn status(&self) -> Status;
    /// Who wrote what, if that is recorded: a stock etcd doesn't.
    fn journal(&self) -> Option<&dyn Journal> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_after_the_last_key_with_it() {
        let range = KeyRange::prefix(&b"/a/"[..]);
        assert!(range.contains(b"/a/"));
        assert!(range.contains(b"/a/\xff\xff"));
        assert!(!range.contains(b"/a0"));
        assert_eq!(KeyRange::prefix(&b"\xff\xff"[..]).end, None);
        assert_eq!(KeyRange::prefix(&b"a\xff"[..]).end.as_deref(), Some(&b"b"[..]));
    }

    #[test]
    fn key_range_holds_only_its_key() {
        let range = KeyRange::key(&b"k"[..]);
        assert!(range.contains(b"k"));
        assert!(!range.contains(b"k\0"));
        assert!(!range.contains(b"j"));
    }
}
