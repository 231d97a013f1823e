//! Making the faults of a plan happen.

use super::plan::{Fault, Planned, Target};
use super::world::World;
use crate::kv::MemberId;
use crate::raft::replica::Input;

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
            Fault::Transfer { to } => {
                let to = MemberId(after(to) as u64 + 1);
                self.nodes[at].inbox.push(Input::TransferLeader(to));
            }
            Fault::SlowWatchers { steps } => self.nodes[at].watchers_stall_until = self.now + steps,
        }
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
