//! Who belongs to the group: replicated state, changed by log entries one at a time.
//!
//! Always holds: everything here is a function of the log, so all members agree at equal index; an id that
//! was removed is never used again; at most one change of voters is under way (Raft's leader refuses a
//! second). A single change is a simple one, which is safe because any two majorities before and after it
//! share a member. Only replacing a member changes two at once; that goes through joint consensus, in which
//! both the old and the new majority must agree until it is left again.
//!
//! [`judge`] is what the leader asks before it appends a change: it knows who is alive and caught up.
//! [`Membership::apply`] knows only the log, and refuses what makes no sense any more.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::{KvError, MemberId};
use crate::mvcc::family::Family;
use crate::mvcc::state::MEMBERSHIP_KEY;
use crate::mvcc::view::Batch;

/// Learners at once. Each costs the leader a snapshot and the bandwidth of a follower; etcd's default.
pub const MAX_LEARNERS: usize = 1;
/// A learner may vote when it has at least this share of the leader's log, in percent; etcd's rule.
const READY_PERCENT: u64 = 90;

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its id, which no other member ever has.
    pub id: MemberId,
    /// Its name; empty until it has started and published it.
    pub name: String,
    /// Where the others reach it, as `host:port`; empty if it can't be reached (a member alone).
    pub peer_address: String,
    /// Where clients reach it; empty until it has started and published them.
    pub client_urls: Vec<String>,
    /// It gets the log but doesn't vote.
    pub learner: bool,
}

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
    /// The leader's verdict in the place of a change: the proposer learns it from the log like any result.
    Refused(Refusal),
}

/// What the leader knows when it judges a change.
#[derive(Clone, Debug)]
pub struct LeaderView {
    /// The leader.
    pub leader: MemberId,
    /// Members heard of within the election timeout, the leader included.
    pub healthy: BTreeSet<MemberId>,
    /// The last log index that each member is known to have.
    pub matched: BTreeMap<MemberId, u64>,
    /// The leader's last index.
    pub last: u64,
}

/// A replacement under way: both majorities count until it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Joint {
    old: MemberId,
    new: MemberId,
}

/// The members of the group, now and ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<MemberId, MemberInfo>,
    removed: BTreeSet<MemberId>,
    joint: Option<Joint>,
}

impl MemberInfo {
    /// A voter that hasn't started yet.
    pub fn new(id: MemberId, peer_address: impl Into<String>) -> Self {
        let peer_address = peer_address.into();
        Self { id, name: String::new(), peer_address, client_urls: Vec::new(), learner: false }
    }
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
            MemberChange::Update { .. } | MemberChange::Publish { .. } | MemberChange::Refused(_) => {
                return None;
            }
        };
        let mut change = ConfChangeV2::new();
        // The default transition is simple for one step, joint and left by itself for more.
        change.set_changes(steps.into());
        Some(change)
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

/// Whether the leader may append `change`: nothing that could cost the group its quorum.
///
/// # Errors
/// The reason to refuse it.
pub fn judge(members: &Membership, change: &MemberChange, view: &LeaderView) -> Result<(), Refusal> {
    if members.joint.is_some() {
        return Err(Refusal::Pending);
    }
    let mut after = members.clone();
    after.apply(change)?;
    match change {
        MemberChange::Add { learner, .. } => judge_add(members, *learner, view),
        MemberChange::Promote(id) => {
            judge_caught_up(*id, view)?;
            judge_quorum(&members.voters_with(Some(*id), None), view)
        }
        MemberChange::Remove(id) if members.get(*id).is_some_and(|member| member.learner) => Ok(()),
        MemberChange::Remove(id) => judge_quorum(&members.voters_with(None, Some(*id)), view),
        MemberChange::Replace { old, new } => {
            judge_caught_up(*new, view)?;
            judge_quorum(&members.voters_with(Some(*new), Some(*old)), view)
        }
        MemberChange::Update { .. } | MemberChange::Publish { .. } | MemberChange::Refused(_) => Ok(()),
    }
}

/// A new voter raises the quorum before it has anything: all voters must be there to carry it (etcd's
/// rule). A learner changes no quorum; it needs the one that commits it.
fn judge_add(members: &Membership, learner: bool, view: &LeaderView) -> Result<(), Refusal> {
    let own = members.get(view.leader).map_or("", |member| &member.peer_address);
    if own.is_empty() {
        return Err(Refusal::Unreachable(view.leader));
    }
    let learners = members.learners().len();
    if learner && learners >= MAX_LEARNERS {
        return Err(Refusal::TooManyLearners(learners as u64));
    }
    let missing: Vec<String> =
        members.voters().iter().filter(|id| !view.healthy.contains(id)).map(ToString::to_string).collect();
    if learner || missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::Unhealthy(format!(
        "a voter can be added only while all others are heard of, but not from member {}; add a learner, or \
         repair or remove that member first",
        missing.join(", ")
    )))
}

fn judge_caught_up(member: MemberId, view: &LeaderView) -> Result<(), Refusal> {
    let matched = view.matched.get(&member).copied().unwrap_or(0);
    if !view.healthy.contains(&member) {
        return Err(Refusal::Unhealthy(format!("learner {member} isn't heard of")));
    }
    if matched.saturating_mul(100) < view.last.saturating_mul(READY_PERCENT) {
        return Err(Refusal::LearnerNotReady { member, matched, last: view.last });
    }
    Ok(())
}

/// The voters after a change must have an active majority.
fn judge_quorum(voters: &BTreeSet<MemberId>, view: &LeaderView) -> Result<(), Refusal> {
    let active = voters.intersection(&view.healthy).count();
    let quorum = voters.len() / 2 + 1;
    if active >= quorum {
        return Ok(());
    }
    Err(Refusal::Unhealthy(format!(
        "afterwards {quorum} of {} voters would have to be there, but only {active} are heard of",
        voters.len()
    )))
}

impl Membership {
    /// The founders of a new group.
    pub fn found(founders: impl IntoIterator<Item = MemberInfo>) -> Self {
        Self { members: founders.into_iter().map(|m| (m.id, m)).collect(), ..Self::default() }
    }

    /// The survivor of a lost group, alone and voting; the ids of all others stay used.
    pub fn only(&self, survivor: MemberId) -> Self {
        let own = self.get(survivor).cloned().unwrap_or_else(|| MemberInfo::new(survivor, ""));
        let others = self.members.keys().copied().filter(|id| *id != survivor);
        let removed = self.removed.iter().copied().chain(others).collect();
        let members = BTreeMap::from([(survivor, MemberInfo { learner: false, ..own })]);
        Self { members, removed, joint: None }
    }

    /// Records the membership in the replicated state.
    pub fn store(&self, batch: &mut Batch) {
        batch.put(Family::Meta, MEMBERSHIP_KEY, self.encode());
    }

    /// Whether nobody is known: this member has yet to hear from the group that it joins.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All members, by id.
    pub fn members(&self) -> impl Iterator<Item = &MemberInfo> {
        self.members.values()
    }

    /// A member.
    pub fn get(&self, id: MemberId) -> Option<&MemberInfo> {
        self.members.get(&id)
    }

    /// Whether `id` was a member and never will be again.
    pub fn was_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// Who votes.
    pub fn voters(&self) -> Vec<MemberId> {
        self.members.values().filter(|member| !member.learner).map(|member| member.id).collect()
    }

    /// Who only learns.
    pub fn learners(&self) -> Vec<MemberId> {
        self.members.values().filter(|member| member.learner).map(|member| member.id).collect()
    }

    /// An id for the next member: above all that ever were.
    pub fn next_id(&self) -> MemberId {
        let largest = self.members.keys().chain(&self.removed).max().map_or(0, |id| id.0);
        let free = |id: &u64| {
            *id != 0 && !self.members.contains_key(&MemberId(*id)) && !self.was_removed(MemberId(*id))
        };
        let id = (largest.wrapping_add(1)..=u64::MAX).chain(1..largest).find(free);
        MemberId(id.expect("there are fewer members than ids"))
    }

    /// What Raft calls the voters and learners.
    pub fn conf_state(&self) -> ConfState {
        let mut state = ConfState::new();
        let numbers = |ids: BTreeSet<MemberId>| ids.into_iter().map(|id| id.0).collect::<Vec<u64>>();
        state.set_learners(self.learners().into_iter().map(|id| id.0).collect());
        match self.joint {
            None => state.set_voters(numbers(self.voters_with(None, None))),
            Some(Joint { old, new }) => {
                state.set_voters(numbers(self.voters_with(None, Some(old))));
                state.set_voters_outgoing(numbers(self.voters_with(None, Some(new))));
                state.set_auto_leave(true);
            }
        }
        state
    }

    /// Whether a joint change is under way, which the leader has to leave.
    pub fn is_joint(&self) -> bool {
        self.joint.is_some()
    }

    fn voters_with(&self, added: Option<MemberId>, removed: Option<MemberId>) -> BTreeSet<MemberId> {
        self.voters().into_iter().chain(added).filter(|id| Some(*id) != removed).collect()
    }

    /// Does what a log entry says. Returns the member concerned as it is then (or last was).
    ///
    /// # Errors
    /// If it makes no sense (any more); nothing is changed then.
    pub fn apply(&mut self, change: &MemberChange) -> Result<MemberInfo, Refusal> {
        if self.joint.is_some() && change.conf_change().is_some() {
            return Err(Refusal::Pending);
        }
        match change {
            MemberChange::Add { id, peer_address, learner } => self.add(*id, peer_address, *learner),
            MemberChange::Promote(id) => {
                let member = self.learner(*id)?;
                member.learner = false;
                Ok(member.clone())
            }
            MemberChange::Remove(id) => self.remove(*id),
            MemberChange::Replace { old, new } => self.replace(*old, *new),
            MemberChange::Update { id, peer_address } => self.update(*id, peer_address),
            MemberChange::Publish { id, name, client_urls } => {
                let member = self.members.get_mut(id).ok_or(Refusal::NotFound(*id))?;
                (member.name, member.client_urls) = (name.clone(), client_urls.clone());
                Ok(member.clone())
            }
            MemberChange::Refused(refusal) => Err(refusal.clone()),
        }
    }

    /// Ends a joint change: the replaced member is gone. False if there was none.
    pub fn leave_joint(&mut self) -> bool {
        let Some(Joint { old, .. }) = self.joint.take() else { return false };
        self.members.remove(&old);
        self.removed.insert(old);
        true
    }

    fn add(&mut self, id: MemberId, address: &str, learner: bool) -> Result<MemberInfo, Refusal> {
        check_address(address)?;
        if id.0 == 0 || self.members.contains_key(&id) || self.was_removed(id) {
            return Err(Refusal::IdUsed(id));
        }
        self.check_free(address, id)?;
        let member = MemberInfo { learner, ..MemberInfo::new(id, address) };
        self.members.insert(id, member.clone());
        Ok(member)
    }

    fn remove(&mut self, id: MemberId) -> Result<MemberInfo, Refusal> {
        let member = self.get(id).ok_or(Refusal::NotFound(id))?;
        if !member.learner && self.voters().len() == 1 {
            return Err(Refusal::LastVoter(id));
        }
        self.removed.insert(id);
        self.members.remove(&id).ok_or(Refusal::NotFound(id))
    }

    fn replace(&mut self, old: MemberId, new: MemberId) -> Result<MemberInfo, Refusal> {
        let leaving = self.get(old).ok_or(Refusal::NotFound(old))?;
        if leaving.learner {
            return Err(Refusal::NotFound(old));
        }
        let member = self.learner(new)?;
        member.learner = false;
        let member = member.clone();
        self.joint = Some(Joint { old, new });
        Ok(member)
    }

    fn update(&mut self, id: MemberId, address: &str) -> Result<MemberInfo, Refusal> {
        check_address(address)?;
        self.check_free(address, id)?;
        let member = self.members.get_mut(&id).ok_or(Refusal::NotFound(id))?;
        member.peer_address = address.to_owned();
        Ok(member.clone())
    }

    fn learner(&mut self, id: MemberId) -> Result<&mut MemberInfo, Refusal> {
        let member = self.members.get_mut(&id).ok_or(Refusal::NotFound(id))?;
        if member.learner { Ok(member) } else { Err(Refusal::NotLearner(id)) }
    }

    fn check_free(&self, address: &str, id: MemberId) -> Result<(), Refusal> {
        match self.members.values().find(|member| member.peer_address == address && member.id != id) {
            Some(other) => Err(Refusal::Exists { address: address.to_owned(), member: other.id }),
            None => Ok(()),
        }
    }

    /// The record on disk and on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64 + 64 * self.members.len());
        out.u8(VERSION).u32(count(self.members.len()));
        self.members.values().for_each(|member| encode_member(&mut out, member));
        out.u32(count(self.removed.len()));
        for id in &self.removed {
            out.u64(id.0);
        }
        if let Some(Joint { old, new }) = self.joint {
            out.u64(old.0).u64(new.0);
        }
        out.finish()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// If the bytes are not what [`Membership::encode`] writes.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        match input.u8("membership version")? {
            VERSION => {}
            tag => return Err(DecodeError::Unknown { what: "membership version", tag: tag.into() }),
        }
        let mut membership = Self::default();
        for _ in 0..input.u32("members")? {
            let member = decode_member(&mut input)?;
            membership.members.insert(member.id, member);
        }
        for _ in 0..input.u32("removed members")? {
            membership.removed.insert(MemberId(input.u64("removed member")?));
        }
        if input.remaining() > 0 {
            let (old, new) = (MemberId(input.u64("old member")?), MemberId(input.u64("new member")?));
            membership.joint = Some(Joint { old, new });
        }
        input.finish()?;
        Ok(membership)
    }
}

/// The format of records.
const VERSION: u8 = 1;

/// Whether `address` is `host:port`.
///
/// # Errors
/// If it isn't.
pub fn check_address(address: &str) -> Result<(), Refusal> {
    let good = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if good { Ok(()) } else { Err(Refusal::Address(address.to_owned())) }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a group has few members")
}

fn encode_member(out: &mut Writer, member: &MemberInfo) {
    let MemberInfo { id, name, peer_address, client_urls, learner } = member;
    out.u64(id.0).bytes(name.as_bytes()).bytes(peer_address.as_bytes());
    encode_texts(out, client_urls);
    out.u8(u8::from(*learner));
}

fn decode_member(input: &mut Reader) -> Result<MemberInfo, DecodeError> {
    Ok(MemberInfo {
        id: MemberId(input.u64("member")?),
        name: input.text("name")?,
        peer_address: input.text("peer address")?,
        client_urls: decode_texts(input)?,
        learner: input.u8("learner")? != 0,
    })
}

fn encode_texts(out: &mut Writer, texts: &[String]) {
    out.u32(count(texts.len()));
    for text in texts {
        out.bytes(text.as_bytes());
    }
}

fn decode_texts(input: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let len = input.u32("list length")?;
    (0..len).map(|_| input.text("text")).collect()
}

impl MemberChange {
    /// Appends the change to a log entry.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            MemberChange::Add { id, peer_address, learner } => {
                out.u8(1).u64(id.0).bytes(peer_address.as_bytes()).u8(u8::from(*learner));
            }
            MemberChange::Promote(id) => drop(out.u8(2).u64(id.0)),
            MemberChange::Remove(id) => drop(out.u8(3).u64(id.0)),
            MemberChange::Replace { old, new } => drop(out.u8(4).u64(old.0).u64(new.0)),
            MemberChange::Update { id, peer_address } => {
                out.u8(5).u64(id.0).bytes(peer_address.as_bytes());
            }
            MemberChange::Publish { id, name, client_urls } => {
                encode_texts(out.u8(6).u64(id.0).bytes(name.as_bytes()), client_urls);
            }
            MemberChange::Refused(refusal) => refusal.encode(out.u8(7)),
        }
    }

    /// Reads a change from a log entry.
    ///
    /// # Errors
    /// If the bytes are not what [`MemberChange::encode`] writes.
    pub fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let id = |input: &mut Reader| input.u64("member").map(MemberId);
        Ok(match input.u8("membership change")? {
            1 => MemberChange::Add {
                id: id(input)?,
                peer_address: input.text("peer address")?,
                learner: input.u8("learner")? != 0,
            },
            2 => MemberChange::Promote(id(input)?),
            3 => MemberChange::Remove(id(input)?),
            4 => MemberChange::Replace { old: id(input)?, new: id(input)? },
            5 => MemberChange::Update { id: id(input)?, peer_address: input.text("peer address")? },
            6 => MemberChange::Publish {
                id: id(input)?,
                name: input.text("name")?,
                client_urls: decode_texts(input)?,
            },
            7 => MemberChange::Refused(Refusal::decode(input)?),
            tag => return Err(DecodeError::Unknown { what: "membership change", tag: tag.into() }),
        })
    }
}

impl Refusal {
    fn encode(&self, out: &mut Writer) {
        match self {
            Refusal::NotFound(id) => drop(out.u8(1).u64(id.0)),
            Refusal::Exists { address, member } => drop(out.u8(2).bytes(address.as_bytes()).u64(member.0)),
            Refusal::IdUsed(id) => drop(out.u8(3).u64(id.0)),
            Refusal::NotLearner(id) => drop(out.u8(4).u64(id.0)),
            Refusal::LearnerNotReady { member, matched, last } => {
                out.u8(5).u64(member.0).u64(*matched).u64(*last);
            }
            Refusal::TooManyLearners(count) => drop(out.u8(6).u64(*count)),
            Refusal::Unhealthy(why) => drop(out.u8(7).bytes(why.as_bytes())),
            Refusal::LastVoter(id) => drop(out.u8(8).u64(id.0)),
            Refusal::Pending => drop(out.u8(9)),
            Refusal::Address(address) => drop(out.u8(10).bytes(address.as_bytes())),
            Refusal::Unreachable(id) => drop(out.u8(11).u64(id.0)),
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let id = |input: &mut Reader| input.u64("member").map(MemberId);
        Ok(match input.u8("refusal")? {
            1 => Refusal::NotFound(id(input)?),
            2 => Refusal::Exists { address: input.text("peer address")?, member: id(input)? },
            3 => Refusal::IdUsed(id(input)?),
            4 => Refusal::NotLearner(id(input)?),
            5 => Refusal::LearnerNotReady {
                member: id(input)?,
                matched: input.u64("matched")?,
                last: input.u64("last")?,
            },
            6 => Refusal::TooManyLearners(input.u64("learners")?),
            7 => Refusal::Unhealthy(input.text("reason")?),
            8 => Refusal::LastVoter(id(input)?),
            9 => Refusal::Pending,
            10 => Refusal::Address(input.text("peer address")?),
            11 => Refusal::Unreachable(id(input)?),
            tag => return Err(DecodeError::Unknown { what: "refusal", tag: tag.into() }),
        })
    }
}
