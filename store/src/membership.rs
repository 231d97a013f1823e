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

use raft::eraftpb::ConfState;

use crate::kv::MemberId;
use crate::mvcc::family::Family;
use crate::mvcc::state::MEMBERSHIP_KEY;
use crate::mvcc::view::Batch;

mod change;
mod judge;
mod record;

pub use change::{MemberChange, MemberError, Refusal};
pub use judge::{LeaderView, MAX_LEARNERS, judge};

/// A learner may vote when it has at least this share of the leader's log, in percent; etcd's rule.
pub const READY_PERCENT: u64 = 90;

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
    /// The number of its directory; 0 until it has said it.
    pub incarnation: u64,
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
        Self {
            id,
            name: String::new(),
            peer_address,
            client_urls: Vec::new(),
            learner: false,
            incarnation: 0,
        }
    }
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

    /// Those of the members who would vote after `change`, and are there now, whose incarnation isn't recorded.
    pub fn unidentified(&self, change: &MemberChange) -> Vec<MemberId> {
        if !change.changes_voters(self) {
            return Vec::new();
        }
        let voters = self.voters_with(change.promotes(), change.removes()).into_iter();
        voters.filter(|id| self.get(*id).is_some_and(|member| member.incarnation == 0)).collect()
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
            MemberChange::Identify { id, incarnation } => {
                let member = self.members.get_mut(id).ok_or(Refusal::NotFound(*id))?;
                if member.incarnation != 0 && member.incarnation != *incarnation {
                    return Err(Refusal::IdUsed(*id));
                }
                member.incarnation = *incarnation;
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
}

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

#[cfg(test)]
mod tests;
