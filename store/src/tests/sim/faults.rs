//! Making the faults of a plan happen.

use super::disk::SimDisk;
use super::node::{Node, Running};
use super::plan::{Change, Fault, Planned, Target};
use super::world::World;
use crate::command::Command;
use crate::kv::MemberId;
use crate::membership::MemberChange;
use crate::raft::replica::Input;

/// Members that a run may ever have.
const MAX_NODES: usize = 8;

impl World {
    pub fn cause(&mut self, Planned { target, fault, .. }: Planned) {
        let at = self.find(target);
        let after = |places: usize| (at + places) % self.nodes.len();
        self.trace(|| format!("member {}: {fault:?}", at + 1));
        match fault {
            Fault::Crash { writes, down } => {
                self.nodes[at].down = down;
                self.nodes[at].disk.break_in(writes);
            }
            Fault::CrashAfterVote { down } => {
                self.nodes[at].down = down;
                self.nodes[at].fails_after_vote = true;
            }
            Fault::PowerCut { others, down } => {
                for at in (0..=others).map(after).collect::<Vec<_>>() {
                    self.nodes[at].down = down;
                    if self.nodes[at].running.is_some() {
                        self.crash(at);
                    }
                }
            }
            Fault::Pause { steps } => self.nodes[at].paused_until = self.now + steps,
            Fault::CutOneWay { to, steps } => self.network.cut(at, after(to), self.now + steps),
            Fault::Isolate { steps } => self.isolate(at, true, steps),
            Fault::Deaf { steps } => self.isolate(at, false, steps),
            Fault::Disconnect { from } => {
                let from = MemberId(after(from) as u64 + 1);
                self.nodes[at].inbox.push(Input::Disconnected(from));
            }
            Fault::Weather { loss, duplicates, delay, steps } => {
                self.network.worsen(loss, duplicates, delay, self.now + steps);
            }
            Fault::ClockRate { percent, steps } => self.nodes[at].rate = (percent, self.now + steps),
            Fault::WallJump { ms } => {
                let offset = &mut self.nodes[at].wall_offset_ms;
                *offset = (*offset + ms).clamp(-9_000_000, 9_000_000);
            }
            Fault::Transfer { to, twice } => {
                let to = (to..=to + usize::from(twice)).map(|places| MemberId(after(places) as u64 + 1));
                let asked: Vec<Input> = to.map(Input::TransferLeader).collect();
                self.nodes[at].inbox.extend(asked);
            }
            Fault::SlowWatchers { steps } => self.nodes[at].watchers_stall_until = self.now + steps,
            Fault::NoSpace { writes, steps } => {
                self.nodes[at].full_until = Some(self.now + steps);
                self.nodes[at].disk.fill_in(writes);
            }
            Fault::Members(change) => self.change_members(at, change),
            Fault::LoseDisk { down } => self.lose_disk(at, down),
        }
    }

    /// The whole disk is gone, synced or not.
    fn lose_disk(&mut self, at: usize, down: u64) {
        let planned = |fault: &Planned| matches!(fault.fault, Fault::Members(_));
        let others_suffice = self.plan.members >= 3 && self.nodes.iter().all(|node| !node.lost_disk);
        if !others_suffice || !self.is_founded() || self.plan.faults.iter().any(planned) {
            return;
        }
        self.summary.lost_disks += 1;
        self.nodes[at].down = down;
        self.crash(at);
        (self.nodes[at].disk, self.nodes[at].lost_disk) = (SimDisk::default(), true);
    }

    /// An operator does what a member says that was fenced because it lost its disk: removes it, and lets a new
    /// one in, which learns first.
    pub fn replace_who_is_lost(&mut self) {
        let is_lost = |node: &Node| node.lost_disk && node.gone;
        let Some(lost) = self.nodes.iter().position(is_lost).filter(|_| self.now.is_multiple_of(40)) else {
            return;
        };
        let members = self.oracle.replay.membership();
        let lost = MemberId(lost as u64 + 1);
        let change = if members.get(lost).is_some() {
            MemberChange::Remove(lost)
        } else if self.nodes.len() == self.plan.members {
            let new = self.nodes.len() as u64 + 1;
            MemberChange::Add { id: MemberId(new), peer_address: format!("member:{new}"), learner: true }
        } else if let Some(learner) = members.learners().first() {
            MemberChange::Promote(*learner)
        } else {
            return;
        };
        let ticket = self.clients.nobody();
        let asked = self.find(Target::Leader);
        self.nodes[asked].inbox.push(Input::Propose(ticket, Command::Member(change)));
    }

    /// Nobody waits for the answer: the log tells what came of it.
    fn change_members(&mut self, at: usize, change: Change) {
        let members = self.oracle.replay.membership();
        let all: Vec<MemberId> = members.members().map(|member| member.id).collect();
        let learner = members.learners().first().copied();
        let some = |place: usize| all[place % all.len()];
        let new = self.nodes.len() as u64 + 1;
        let change = match change {
            Change::Add { .. } if self.nodes.len() >= MAX_NODES => return,
            Change::Add { learner } => {
                MemberChange::Add { id: MemberId(new), peer_address: format!("member:{new}"), learner }
            }
            Change::Promote => MemberChange::Promote(learner.unwrap_or(some(0))),
            Change::Remove(place) => MemberChange::Remove(some(place)),
            Change::RemoveLeader => MemberChange::Remove(MemberId(self.find(Target::Leader) as u64 + 1)),
            Change::Replace(place) => {
                MemberChange::Replace { old: some(place), new: learner.unwrap_or(some(place)) }
            }
        };
        let ticket = self.clients.nobody();
        self.nodes[at].inbox.push(Input::Propose(ticket, Command::Member(change)));
    }

    /// Starts members that the group has let in, and notes who it has removed.
    pub fn follow_membership(&mut self) {
        let members = self.oracle.replay.membership();
        let new = MemberId(self.nodes.len() as u64 + 1);
        if members.get(new).is_some() {
            self.trace(|| format!("member {new} is let in"));
            self.add_node();
        }
        for at in 0..self.nodes.len() {
            if self.waits_for_nobody(at) {
                self.end(at);
            }
        }
    }

    /// A member that was removed before anybody spoke to it hears of it from those whom it was told of. If all
    /// of them are gone, too, it waits for ever, and is stopped by who started it.
    fn waits_for_nobody(&self, at: usize) -> bool {
        let is_gone = |member: &MemberId| {
            usize::try_from(member.0 - 1).is_ok_and(|place| place == at || self.nodes[place].gone)
        };
        let told_of_none = |running: &Running| running.replica.config().introduced.iter().all(is_gone);
        self.nodes[at].running.as_ref().is_some_and(told_of_none)
            && self.was_removed_before_it_heard_of_anything(at)
    }

    /// Whom the fault meets: a leader if there is one, the newest if there are two.
    fn find(&self, target: Target) -> usize {
        let leads = |at: &usize| {
            let running = self.nodes[*at].running.as_ref()?;
            let member = running.replica.member();
            member.is_leader().then(|| member.leadership().term)
        };
        match target {
            Target::Member(at) => at,
            Target::Leader => {
                (0..self.nodes.len()).filter(|at| leads(at).is_some()).max_by_key(leads).unwrap_or(0)
            }
        }
    }

    fn isolate(&mut self, at: usize, both_ways: bool, steps: u64) {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.network.cut(other, at, self.now + steps);
            if both_ways {
                self.network.cut(at, other, self.now + steps);
            }
        }
    }
}
