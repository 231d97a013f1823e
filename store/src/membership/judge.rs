//! What the leader lets happen to the membership: nothing that could cost the group its quorum.

use std::collections::{BTreeMap, BTreeSet};

use super::{MemberChange, Membership, READY_PERCENT, Refusal};
use crate::kv::MemberId;

/// Learners at once. Each costs the leader a snapshot and the bandwidth of a follower; etcd's default.
pub const MAX_LEARNERS: usize = 1;

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
    judge_identified(members, change)?;
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
        MemberChange::Update { .. }
        | MemberChange::Publish { .. }
        | MemberChange::Identify { .. }
        | MemberChange::Refused(_) => Ok(()),
    }
}

/// What members know of each other's directories goes when they go; so before that it must be recorded.
fn judge_identified(members: &Membership, change: &MemberChange) -> Result<(), Refusal> {
    match members.unidentified(change).first() {
        None => Ok(()),
        Some(id) => Err(Refusal::Unhealthy(format!(
            "member {id} has not told the others which directory it has; start it, and try again when it is \
             heard of, or remove it first"
        ))),
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
