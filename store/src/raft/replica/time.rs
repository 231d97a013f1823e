//! What a replica does as time passes.

use super::{Command, Disk, Fatal, Leadership, Replica, Waiter, apply};
use crate::failpoint::failpoint;

impl<D: Disk> Replica<D> {
    /// A new group has no leader to wait for: its first founder asks for votes at each tick until anyone leads
    /// or has tried. That is only earlier than Raft would by itself, and raises no term, as it asks by
    /// pre-votes.
    fn elect_first(&mut self) {
        let Some(term) = self.founding_term else { return };
        let Leadership { term: current, leader } = self.member.leadership();
        if leader.is_none() && current == term {
            self.member.campaign();
        } else {
            self.founding_term = None;
        }
    }

    pub(super) fn tick(&mut self) -> Result<(), Fatal> {
        if self.newcomer.is_some() {
            self.ask_to_be_known();
        } else {
            self.member.tick();
            self.elect_first();
            self.show_itself();
            self.identify_itself()?;
        }
        if self.state.membership.is_joint() && self.member.leads_surely() {
            self.member.leave_joint();
        }
        let late = self.proposals.expire(self.now.mono);
        self.output.results.extend(late.into_iter().map(|(ticket, error)| (ticket, Err(error))));
        for (waiter, error) in self.reads.expire(self.now.mono) {
            // The questions of a batch have deadlines of their own.
            if let Waiter::Caller(ticket) = waiter {
                self.output.reads.push((ticket, Err(error)));
            }
        }
        self.desk.expire(self.now.mono);
        let leads = self.member.leads_surely();
        let voters = self.state.membership.voters();
        for command in self.health.due(&self.state, &voters, leads, self.now.mono) {
            let _refused_now_asked_again = self.propose(None, command);
        }
        for command in self.leases.due(self.now.mono) {
            let offered = command.clone();
            if !self.propose(None, command) {
                self.leases.put_off(&offered, self.now.mono);
            }
        }
        if self.member.leads_surely() && self.now.mono >= self.next_compaction {
            self.next_compaction = self.now.mono + self.config.compact_every;
            let keep_ms = u64::try_from(self.config.history.as_millis()).unwrap_or(u64::MAX);
            let mark = apply::retention_mark(&self.disk, &self.state, self.now.wall_ms, keep_ms)?;
            if let Some(revision) = mark {
                failpoint!("compact_scheduled");
                self.propose(None, Command::Compact(revision));
            }
        }
        Ok(())
    }
}
