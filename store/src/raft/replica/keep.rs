//! What a replica sends, and how much log it keeps for those who need it.

use raft::eraftpb::{Message, MessageType};

use super::{Disk, Durability, Fatal, LogKeep, MemberId, Replica};
use crate::failpoint::failpoint;

/// What an entry takes in memory beside its payload, about; bytes.
const ENTRY_OVERHEAD: usize = 128;

impl<D: Disk> Replica<D> {
    /// Keeps the log within its limits, but for what the receivers of snapshots will need.
    pub(super) fn truncate_log(&mut self) -> Result<(), Fatal> {
        let log = self.member.log();
        let LogKeep { entries, bytes, for_snapshot_bytes } = self.config.log_keep;
        if log.len() <= entries + entries / 4 && log.bytes() <= bytes + bytes / 4 {
            return Ok(());
        }
        let mut target = log.last().saturating_sub(entries as u64);
        if log.bytes() > bytes {
            target = target.max(log.truncated().0 + log.len() as u64 / 2);
        }
        if log.bytes() + log.len() * ENTRY_OVERHEAD > for_snapshot_bytes {
            // Too much has happened since: whoever is still on its way needs a newer one.
            log.set_snapshot(None);
            self.receivers.clear();
        }
        let needed = self.needed_by_receivers();
        let log = self.member.log();
        target = target.min(self.state.head.index).min(log.snapshot_index().unwrap_or(u64::MAX)).min(needed);
        if target > log.truncated().0 {
            let batch = self.member.truncate(target);
            failpoint!("raft_before_wal_release");
            self.disk.write(&batch, Durability::Later)?;
            failpoint!("raft_after_wal_release");
        }
        Ok(())
    }

    /// The first index after which the log is needed by members that were sent a snapshot: receiving and
    /// installing it takes its time, and so does catching up with what was written meanwhile. Without that
    /// they would need another snapshot as soon as they have one, for as long as the group is busy.
    fn needed_by_receivers(&mut self) -> u64 {
        if !self.receivers.is_empty() {
            let (matched, leads) = (self.member.matched(), self.member.is_leader());
            let kept_anyway = self.member.log().last().saturating_sub(self.config.log_keep.entries as u64);
            self.receivers.retain(|id, needed| {
                let Some(at) = matched.get(id).filter(|_| leads) else { return false };
                let has_it = *at >= *needed;
                *needed = (*needed).max(*at);
                !has_it || *at < kept_anyway
            });
        }
        self.receivers.values().copied().min().unwrap_or(u64::MAX)
    }

    /// Sends, unless it must wait, and remembers who is sent a snapshot.
    pub(super) fn send(&mut self, messages: Vec<Message>, send: &mut dyn FnMut(Message)) {
        self.held.extend(messages);
        // Nobody may hear that a change of who votes is committed before this leader can't forget it (see
        // [`super::members`]). Applying is next, so nothing waits for long.
        if self.member.conf_change_unapplied() {
            return;
        }
        for message in std::mem::take(&mut self.held) {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                let index = message.get_snapshot().get_metadata().index;
                self.receivers.insert(MemberId(message.to), index);
            }
            send(message);
        }
    }
}
