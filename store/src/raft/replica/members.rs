//! What a replica does about who belongs to the group: it judges changes as their leader, follows those that
//! are applied, and leaves when it is removed.
//!
//! Who is removed must vote until somebody else can't forget its removal: with two voters, the one that stays
//! needs the other's vote until then. So a change of who votes is applied durably, and only then does a leader
//! let its commit index out ([`Replica::send`]) and refuse the removed member's messages; and the removed one
//! doesn't end before it was refused.

use raft::eraftpb::{ConfState, Message};

use super::{Disk, Durability, Fatal, Replica, Verdict};
use crate::membership::{self, LeaderView, MemberChange};
use crate::mvcc::apply::Effects;
use crate::mvcc::view::Batch;
use crate::raft::persist;

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

    /// Whether the group has removed this member, as far as applied here. It stays until a member that has
    /// applied it too says so ([`Replica::removed`]): until one has, the others may need its vote to find out.
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
        if forgotten || self.is_removed() {
            let others = self.state.membership.members().filter(|other| other.id != self.id());
            let shown: Vec<Message> = others.map(|other| self.member.presence(other.id)).collect();
            self.held.extend(shown);
        }
    }

    /// Others refuse this member as removed. Its own log may never tell it.
    pub(super) fn removed(&mut self) -> Result<(), Fatal> {
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
