//! What clients asked and were told, and what watchers saw: all that an oracle gets to judge a store by.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A revision of the keyspace, as in etcd's headers.
pub type Revision = i64;

/// A key's content at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// Unique to the call that wrote it.
    pub value: String,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
    /// How often it was written since its creation.
    pub version: i64,
    /// The lease it hangs on, or 0.
    pub lease: i64,
}

/// One operation of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts a value that no other call writes.
    Put {
        /// Where.
        key: String,
        /// What.
        value: String,
        /// The lease it hangs on, or 0.
        lease: i64,
    },
    /// Deletes a key, if it is there.
    Delete {
        /// Which.
        key: String,
    },
}

impl Change {
    /// The key that it changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// The keys from `from` to below `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first.
    pub from: String,
    /// The end, which is not part of it.
    pub to: String,
}

impl Keys {
    /// One key.
    pub fn one(key: &str) -> Self {
        Self { from: key.to_owned(), to: format!("{key}\0") }
    }

    /// All keys that the tests use.
    pub fn all() -> Self {
        Self { from: "\0".to_owned(), to: "~".to_owned() }
    }

    /// Whether the key is one of them.
    pub fn contains(&self, key: &str) -> bool {
        self.from.as_str() <= key && key < self.to.as_str()
    }
}

/// What a client asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// A put, a delete, or a transaction.
    Write {
        /// Only if this key was last modified at this revision (0: doesn't exist).
        guard: Option<(String, Revision)>,
        /// What to do.
        changes: Vec<Change>,
    },
    /// A range read.
    Read {
        /// Of these keys.
        keys: Keys,
        /// As they were then, not as they are now.
        at: Option<Revision>,
        /// Answered by the member alone: may be old, never wrong.
        serializable: bool,
    },
}

/// What a client was told.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The write was done at this revision, and deleted so many keys.
    Wrote {
        /// The header's.
        revision: Revision,
        /// The number of keys deleted.
        deleted: i64,
    },
    /// The guard didn't hold; this is the key instead.
    Refused {
        /// The header's.
        revision: Revision,
        /// The guarded key.
        found: Option<KeyState>,
    },
    /// The answer of a read.
    Found {
        /// The header's.
        revision: Revision,
        /// The keys.
        keys: BTreeMap<String, KeyState>,
    },
}

impl Reply {
    /// The revision in the reply's header.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Wrote { revision, .. } | Self::Refused { revision, .. } | Self::Found { revision, .. } => {
                *revision
            }
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With an answer.
    Done(Reply),
    /// The store says that it was not and will not be done.
    Failed(String),
    /// No answer: it may have been done, may be done later, or never.
    Unknown(String),
}

/// One call of one client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which client.
    pub client: u64,
    /// Which member it asked.
    pub member: usize,
    /// Just before it was sent.
    pub invoked: Instant,
    /// Just after it ended.
    pub returned: Instant,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

impl Call {
    /// Its reply, if there was one.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.outcome {
            Outcome::Done(reply) => Some(reply),
            _ => None,
        }
    }

    /// Whether what it was told must be current.
    pub fn linearizable(&self) -> bool {
        !matches!(self.request, Request::Read { serializable: true, .. })
    }
}

/// One change as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// Its new content, or that it was deleted.
    pub now: Option<KeyState>,
    /// Its content before, if the store still had it.
    pub before: Option<KeyState>,
}

/// One message of a watch.
#[derive(Clone, Debug)]
pub enum Seen {
    /// An event of this revision.
    Event(Revision, Event),
    /// All events up to and including this revision have been sent.
    Progress(Revision),
}

/// What one watch delivered, from its creation to its end.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The member it was created at.
    pub member: usize,
    /// The first revision that was asked for.
    pub start: Revision,
    /// The keys that were asked for.
    pub keys: Keys,
    /// What came, in order, and when.
    pub seen: Vec<(Instant, Seen)>,
    /// Why it ended, if not because the reader had enough.
    pub end: Option<String>,
}

impl Watched {
    /// The revision up to which it is known to have delivered everything.
    pub fn covered(&self) -> Revision {
        let revisions = self.seen.iter().map(|(_, seen)| match seen {
            Seen::Event(revision, _) | Seen::Progress(revision) => *revision,
        });
        revisions.max().unwrap_or(self.start - 1)
    }
}

/// A lease's life as its owner knows it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// As granted, which may be longer than asked for.
    pub ttl: Duration,
    /// The key that hangs on it, if putting it was acknowledged.
    pub key: String,
    /// When a grant or renewal that succeeded was sent: it lasts at least `ttl` from each.
    pub renewed: Vec<Instant>,
    /// Whether it was revoked, or that was tried: then it may end at any time.
    pub revoked: bool,
}

/// All of one run.
#[derive(Debug, Default)]
pub struct History {
    /// Of all clients.
    pub calls: Vec<Call>,
    /// All watches.
    pub watches: Vec<Watched>,
    /// All leases.
    pub leases: Vec<Lease>,
    /// The largest revision at which a compaction was asked for.
    pub compacted: Revision,
    /// The revision at the end.
    pub last: Revision,
}
