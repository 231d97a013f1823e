//! What a replica does about who belongs to the group: it judges changes as their leader, follows those that
//! are applied, and leaves when it is removed.
//!
//! Who is removed must vote until somebody else can't forget its removal: with two voters, the one that stays
//! needs the other's vote until then. So a change of who votes is applied durably, and only then does a leader
//! let its commit index out ([`Replica::send`]) and refuse the removed member's messages; and the removed one
//! doesn't end before more than half of those who vote without it have refused it. Then whoever of them may be
//! lost for good, among any majority that is left somebody has applied the removal, and its requests for votes
//! tell the others that it is committed.

use std::collections::BTreeSet;

use raft::eraftpb::{ConfState, Message};

use super::{Disk, Durability, Fatal, Replica, Verdict};
use crate::bug::bug;
use crate::kv::MemberId;
use crate::membership::{self, LeaderView, MemberChange};
use crate::mvcc::apply::Effects;
use crate::mvcc::view::Batch;
use crate::raft::persist;

/// What others have said of this member's removal.
#[derive(Debug, Default)]
pub(super) struct Dismissal {
    /// Who has refused it.
    by: BTreeSet<MemberId>,
    /// Who votes now, as the last of them said.
    voters: Vec<MemberId>,
}

impl<D: Disk> Replica<D> {
    /// Tells Raft what the applied entries have made of the membership.
    pub(super) fn change_members(&mut self, effects: &Effects) {
        let votes = effects.conf_changes.iter().map(|change| self.member.apply_conf_change(change)).last();
        if let Some(votes) = votes {
            assert_eq!(
                sorted(votes),
                self.state.membership.conf_state(),
                "Raft and the state agree who votes"
            );
        }
        self.output.members_changed |= effects.members_changed;
        if self.is_removed() && self.member.is_leader() {
            self.step_aside();
        }
    }

    /// Whether the group has removed this member, as far as applied here. It stays until enough members that
    /// have applied it too say so ([`Replica::removed`]): before that the others may need its vote to find out.
    fn is_removed(&self) -> bool {
        self.state.membership.was_removed(self.id())
    }

    /// A leader that is removed lets another lead.
    fn step_aside(&mut self) {
        let matched = self.member.matched();
        let voters = self.state.membership.voters().into_iter();
        if let Some(successor) = voters.max_by_key(|id| matched.get(id).copied()) {
            self.member.transfer_leader(successor);
        }
        self.member.step_down();
    }

    /// A removed member that is still there shows itself to the others: whoever knows tells it to end, and
    /// whoever doesn't know yet sends it what it misses. So does one that can't ask for votes and hears nobody:
    /// a learner may have been removed while it was away, and nobody would ever talk to it again.
    pub(super) fn show_itself(&mut self) {
        let forgotten = !self.member.may_campaign() && self.healthy().len() == 1;
        if forgotten || self.is_removed() || !self.dismissal.voters.is_empty() {
            let known = self.state.membership.members().map(|member| member.id);
            let told = self.dismissal.voters.iter().chain(&self.introduced).copied();
            let others: BTreeSet<MemberId> = known.chain(told).collect();
            let others = others.into_iter().filter(|other| *other != self.id());
            let shown: Vec<Message> = others.map(|other| self.member.presence(other)).collect();
            self.held.extend(shown);
        }
    }

    /// A member refuses this one as removed: its own log may never tell it. It ends when more than half of
    /// `voters`, those who vote now as `by` has applied it, have done so.
    pub(super) fn removed(&mut self, by: MemberId, voters: Vec<MemberId>) -> Result<(), Fatal> {
        self.dismissal.by.insert(by);
        let telling = voters.iter().filter(|id| self.dismissal.by.contains(id)).count();
        if 2 * telling <= voters.len() && !bug!(OneDismissesTheRemoved) {
            if let Some(newcomer) = &mut self.newcomer {
                voters.iter().for_each(|voter| newcomer.may_ask(*voter));
            }
            self.dismissal.voters = voters;
            return Ok(());
        }
        let mut batch = Batch::default();
        persist::removed(&mut batch);
        self.disk.write(&batch, Durability::Synced)?;
        self.output.removed = true;
        Ok(())
    }

    pub(super) fn judge(&mut self, change: &MemberChange) -> Verdict {
        // Before its first commit a leader doesn't know what its predecessors have left.
        if !self.member.leads_surely() {
            return Verdict::Later;
        }
        let view = LeaderView {
            leader: self.id(),
            healthy: self.healthy(),
            matched: self.member.matched(),
            last: self.member.log().last(),
        };
        let unidentified = self.state.membership.unidentified(change);
        if !unidentified.is_empty() && unidentified.iter().all(|id| view.healthy.contains(id)) {
            // They are about to be.
            return Verdict::Later;
        }
        match membership::judge(&self.state.membership, change, &view) {
            Err(refusal) => Verdict::Refuse(refusal),
            Ok(()) if change.removes() == Some(self.id()) => self.hand_over_before_leaving(&view),
            Ok(()) => Verdict::Append,
        }
    }

    /// A leader doesn't remove itself: it moves leadership first, and its successor gets the change again.
    fn hand_over_before_leaving(&mut self, view: &LeaderView) -> Verdict {
        let voters = self.state.membership.voters().into_iter();
        let others = voters.filter(|id| *id != view.leader && view.healthy.contains(id));
        if let Some(successor) = others.max_by_key(|id| view.matched.get(id).copied()) {
            self.member.transfer_leader(successor);
        }
        Verdict::Later
    }
}

/// Who votes must not be forgotten once anyone acts on it. Everything else the log brings again.
pub(super) fn durability(effects: &Effects) -> Durability {
    if effects.conf_changes.is_empty() { Durability::Later } else { Durability::Synced }
}

/// In the order of ids, as the membership has them.
fn sorted(mut votes: ConfState) -> ConfState {
    votes.mut_voters().sort_unstable();
    votes.mut_voters_outgoing().sort_unstable();
    votes.mut_learners().sort_unstable();
    votes
}
