//! Changes of the membership, as the log says them, and why they are refused.

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

use super::{Membership, READY_PERCENT};
use crate::kv::{KvError, MemberId};

/// Why a membership change was refused; nothing was changed. Part of the log's deterministic outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such member.
    #[error("member {0} is not in the cluster")]
    NotFound(MemberId),
    /// The peer address is a member's already.
    #[error("peer address {address} belongs to member {member} already")]
    Exists {
        /// The address.
        address: String,
        /// Whose it is.
        member: MemberId,
    },
    /// The id is or was in use. Whoever proposed it takes another.
    #[error("member id {0} is in use or was removed; ids are never used again")]
    IdUsed(MemberId),
    /// The member votes already.
    #[error("member {0} is not a learner")]
    NotLearner(MemberId),
    /// The learner lacks too much of the log.
    #[error(
        "learner {member} has the log up to entry {matched} of {last}; promote it when it has caught up \
         ({READY_PERCENT} %)"
    )]
    LearnerNotReady {
        /// Which.
        member: MemberId,
        /// What it is known to have.
        matched: u64,
        /// The leader's last entry.
        last: u64,
    },
    /// There are as many learners as allowed.
    #[error("there are {0} learners already; promote or remove one first")]
    TooManyLearners(u64),
    /// The group would have no quorum, or could lose it with the next fault.
    #[error("unhealthy cluster: {0}")]
    Unhealthy(String),
    /// Without it nobody votes.
    #[error("member {0} is the last voter; a cluster can't be without one")]
    LastVoter(MemberId),
    /// Another change isn't finished.
    #[error("another membership change is under way; try again when it is finished")]
    Pending,
    /// The address isn't one.
    #[error("peer address {0:?} is not of the form host:port")]
    Address(String),
    /// This member was started without a peer address.
    #[error(
        "member {0} has no peer address, so no other member could reach it; give it one (host:port) and \
         start it again"
    )]
    Unreachable(MemberId),
}

/// Why a membership request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// The cluster refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store couldn't decide.
    #[error(transparent)]
    Store(#[from] KvError),
}

/// A change, as the log says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Let a new member in.
    Add {
        /// An id that was never used.
        id: MemberId,
        /// Where it will be.
        peer_address: String,
        /// Whether it only learns at first.
        learner: bool,
    },
    /// Let a learner vote.
    Promote(MemberId),
    /// Remove a member for ever.
    Remove(MemberId),
    /// Let a learner vote and remove a voter, in one step.
    Replace {
        /// The voter to remove.
        old: MemberId,
        /// The learner to promote.
        new: MemberId,
    },
    /// A member has moved.
    Update {
        /// Which.
        id: MemberId,
        /// Where to.
        peer_address: String,
    },
    /// A member says who it is.
    Publish {
        /// Which.
        id: MemberId,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
    /// A member says which directory it has, once for ever ([`crate::raft::newcomer`]).
    Identify {
        /// Which.
        id: MemberId,
        /// The directory's number, not 0.
        incarnation: u64,
    },
    /// The leader's verdict in the place of a change: the proposer learns it from the log like any result.
    Refused(Refusal),
}

impl MemberChange {
    /// What Raft calls it; `None` if no voter or learner comes or goes.
    pub fn conf_change(&self) -> Option<ConfChangeV2> {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        let steps = match self {
            MemberChange::Add { id, learner: true, .. } => vec![single(*id, AddLearnerNode)],
            MemberChange::Add { id, learner: false, .. } => vec![single(*id, AddNode)],
            MemberChange::Promote(id) => vec![single(*id, AddNode)],
            MemberChange::Remove(id) => vec![single(*id, RemoveNode)],
            MemberChange::Replace { old, new } => vec![single(*new, AddNode), single(*old, RemoveNode)],
            MemberChange::Update { .. }
            | MemberChange::Publish { .. }
            | MemberChange::Identify { .. }
            | MemberChange::Refused(_) => return None,
        };
        let mut change = ConfChangeV2::new();
        // The default transition is simple for one step, joint and left by itself for more.
        change.set_changes(steps.into());
        Some(change)
    }

    /// Whether other members vote afterwards.
    pub fn changes_voters(&self, members: &Membership) -> bool {
        match self {
            MemberChange::Add { learner, .. } => !learner,
            MemberChange::Remove(id) => members.get(*id).is_some_and(|member| !member.learner),
            MemberChange::Promote(_) | MemberChange::Replace { .. } => true,
            _ => false,
        }
    }

    /// The learner that votes afterwards.
    pub fn promotes(&self) -> Option<MemberId> {
        match self {
            MemberChange::Promote(id) | MemberChange::Replace { new: id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The member that the change removes.
    pub fn removes(&self) -> Option<MemberId> {
        match self {
            MemberChange::Remove(id) | MemberChange::Replace { old: id, .. } => Some(*id),
            _ => None,
        }
    }
}

fn single(id: MemberId, kind: ConfChangeType) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::new();
    single.node_id = id.0;
    single.set_change_type(kind);
    single
}
