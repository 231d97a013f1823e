//! Why a request failed.

use bytes::Bytes;

use super::{LeaseId, MemberId, Revision};

/// Why the store didn't do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The revision asked for is compacted.
    #[error("read at revision {requested}, but history starts after {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// History at or below this is gone.
        compacted: Revision,
    },
    /// The revision asked for doesn't exist yet.
    #[error("read at revision {requested}, but the newest is {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest.
        current: Revision,
    },
    /// No such lease.
    #[error("lease {0} doesn't exist")]
    LeaseNotFound(LeaseId),
    /// A lease with the id that was asked for exists already.
    #[error("lease {0} exists already; choose another id or revoke it first")]
    LeaseExists(LeaseId),
    /// An [`Op::Amend`] of a key that doesn't exist.
    #[error("key {:?} doesn't exist, so its value or lease can't be kept", String::from_utf8_lossy(.0))]
    KeyNotFound(Bytes),
    /// One branch of a transaction writes a key more than once.
    #[error("key {:?} is written more than once in one transaction", String::from_utf8_lossy(.0))]
    DuplicateKey(Bytes),
    /// The request can never succeed as it is.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The request is larger than the store takes.
    #[error("request of {size} bytes, but the limit is {limit} bytes")]
    TooLarge {
        /// Encoded size in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// No leader or no quorum: **nothing was written**; try again.
    #[error("no quorum: {0}")]
    Unavailable(String),
    /// The deadline passed after the proposal was sent: it **may or may not** have been written.
    #[error("timed out: the write may or may not have happened")]
    Unknown,
    /// Too many proposals are waiting: nothing was written; try later.
    #[error("too many requests are waiting")]
    Overloaded,
    /// A member's disk is nearly full: **nothing was written**. Reads, deletes and compaction go on, and
    /// writes go on by themselves once there is space.
    #[error("no space: member {member}: {detail}")]
    NoSpace {
        /// Whose disk.
        member: MemberId,
        /// The path, the free bytes and what to do.
        detail: String,
    },
    /// This member's data is not what the cluster agreed on: it answers nothing any more.
    #[error("member {member} is fenced: {detail}")]
    Corrupt {
        /// The member.
        member: MemberId,
        /// What was found and what to do.
        detail: String,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}
