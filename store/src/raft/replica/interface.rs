//! What goes into a replica and what comes out of it.

use std::time::Duration;

use raft::eraftpb::{Message, Snapshot};

use crate::command::{Applied, Command};
use crate::kv::{KvError, MemberId, Revision};
use crate::mvcc::apply::ApplyError;
use crate::mvcc::read::RevisionEvents;
use crate::mvcc::view::DiskError;
use crate::raft::lease_desk::{LeaseAnswer, LeaseAsk};
use crate::raft::persist::RecoverError;
use crate::raft::proposals::Ticket;

/// The time of a batch of inputs.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, from any origin.
    pub mono: Duration,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
}

/// What a replica reacts to.
#[derive(Debug)]
pub enum Input {
    /// One tick of time has passed.
    Tick,
    /// A message of another member.
    Message(Message),
    /// A caller wants this done.
    Propose(Ticket, Command),
    /// A caller wants to read what is newest now.
    Read(Ticket),
    /// A caller asks the leader about a lease.
    Lease(Ticket, LeaseAsk),
    /// A message to the member couldn't be sent.
    Unreachable(MemberId),
    /// The connection from the member ended.
    Disconnected(MemberId),
    /// A snapshot was delivered to the member, or failed to be.
    SnapshotSent(MemberId, bool),
    /// The snapshot that was asked for has been made, or couldn't be.
    SnapshotMade(Option<Snapshot>),
    /// Hand leadership to the member.
    TransferLeader(MemberId),
    /// The disk was looked at: why its space is short, if it is.
    Space(Option<String>),
    /// The disk failed somebody who works beside the replica.
    DiskFailed(DiskError),
    /// This member's data is not what was applied.
    Damaged(String),
    /// History is too large: compact to this revision.
    Compact(Revision),
    /// Another member says that the group has removed this one.
    Removed {
        /// Which.
        by: MemberId,
        /// Who votes, as it has applied.
        voters: Vec<MemberId>,
    },
}

/// What follows from a batch of inputs, besides the messages sent.
#[derive(Debug, Default)]
pub struct Output {
    /// Results of proposals.
    pub results: Vec<(Ticket, Applied)>,
    /// Readers that may read now, or must give up.
    pub reads: Vec<(Ticket, Result<(), KvError>)>,
    /// Answers about leases.
    pub leases: Vec<(Ticket, LeaseAnswer)>,
    /// Events, in revision order.
    pub events: Vec<RevisionEvents>,
    /// A snapshot replaced the state: events were skipped.
    pub installed: bool,
    /// Make a snapshot of the state as it is now, before the next batch.
    pub snapshot_wanted: bool,
    /// There is compacted history to clean up.
    pub compacted: bool,
    /// The membership is another than before.
    pub members_changed: bool,
    /// The group has removed this member: it must end and never start again.
    pub removed: bool,
}

/// The member can't go on; its process must exit.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The disk failed.
    #[error("the disk failed")]
    Disk(#[from] DiskError),
    /// The log can't be applied.
    #[error("the log can't be applied")]
    Apply(#[from] ApplyError),
    /// This member's data is wrong.
    #[error("this member is fenced: {0}")]
    Fenced(String),
    /// The member can't start again after its disk was full.
    #[error("the member can't start again")]
    Restart(#[source] Box<StartError>),
}

impl Fatal {
    /// Whether the disk is full, rather than broken.
    pub fn is_no_space(&self) -> bool {
        match self {
            Fatal::Disk(error) | Fatal::Apply(ApplyError::Disk(error)) => error.is_no_space(),
            _ => false,
        }
    }
}

/// Why a replica can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk's contents forbid it.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The configuration contradicts itself.
    #[error("the Raft configuration is refused")]
    Config(#[source] raft::Error),
}
