//! What a replica does with what Raft has decided: it applies entries, takes in snapshots, and cleans up.

use raft::eraftpb::Message;

use super::members::durability;
use super::{Advanced, Disk, Durability, Fatal, Replica, State, apply};
use crate::bug::bug;
use crate::failpoint::failpoint;
use crate::mvcc::family::Family;
use crate::mvcc::scrub;

impl<D: Disk> Replica<D> {
    /// After persisting: send, install, apply, confirm reads.
    pub(super) fn follow_up(
        &mut self,
        advanced: Advanced,
        send: &mut dyn FnMut(Message),
    ) -> Result<(), Fatal> {
        failpoint!("raft_before_follower_send");
        self.send(advanced.messages, send);
        failpoint!("raft_after_follower_send");
        if advanced.installed {
            self.reload()?;
        }
        if !advanced.committed.is_empty() {
            self.apply(&advanced.committed)?;
            self.send(Vec::new(), send);
        }
        advanced.reads.iter().for_each(|read| self.reads.confirm(read));
        Ok(())
    }

    fn apply(&mut self, entries: &[apply::LogEntry]) -> Result<(), Fatal> {
        failpoint!("apply_before_batch");
        let compacted = self.state.head.compacted;
        let effects = apply::apply(&mut self.state, &self.disk, entries)?;
        if bug!(AppliedIndexInOwnBatch) {
            let (index, data) = effects.batch.split(Family::Meta);
            self.disk.write(&data, Durability::Later)?;
            self.disk.write(&index, Durability::Later)?;
        } else {
            failpoint!("apply_before_write");
            self.disk.write(&effects.batch, durability(&effects))?;
            failpoint!("apply_after_write");
        }
        self.change_members(&effects);
        self.member.applied(self.state.head.index);
        for (id, result) in effects.results {
            if let Some(ticket) = self.proposals.applied(id) {
                self.output.results.push((ticket, result));
            }
        }
        for change in effects.leases {
            self.leases.change(change, self.now.mono);
            self.settle_held(change);
        }
        self.output.events.extend(effects.events);
        self.output.compacted |= self.state.head.compacted > compacted;
        Ok(())
    }

    /// A snapshot replaced the state on disk.
    fn reload(&mut self) -> Result<(), Fatal> {
        failpoint!("raft_before_apply_snapshot");
        self.state = State::load(&self.disk)?;
        if bug!(SessionLostInSnapshot) {
            self.state.sessions.clear();
        }
        self.output.members_changed = true;
        self.member.applied(self.state.head.index);
        failpoint!("raft_after_apply_snapshot");
        self.output.installed = true;
        self.output.events.clear();
        // Our proposals inside the snapshot were applied, but their results are nowhere.
        let session = self.state.sessions.get(&self.config.member.id).filter(|s| s.boot == self.boot);
        let settled = |seq: u64| session.is_some_and(|s| seq < s.floor || s.applied.contains(&seq));
        let lost = self.proposals.lost_results(settled);
        self.output.results.extend(lost.into_iter().map(|(ticket, error)| (ticket, Err(error))));
        Ok(())
    }

    /// Cleans up a piece of compacted history; true if more is left.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn scrub(&mut self, max_events: usize) -> Result<bool, Fatal> {
        match scrub::next_piece(&self.disk, max_events)? {
            Some(piece) => {
                failpoint!("compact_before_batch");
                self.disk.write(&piece.batch, Durability::Later)?;
                failpoint!("compact_after_batch");
                Ok(piece.more)
            }
            None => {
                failpoint!("compact_finished");
                Ok(false)
            }
        }
    }
}
