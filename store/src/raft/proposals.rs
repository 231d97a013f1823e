//! What this member has proposed and waits for.
//!
//! A proposal is sent again, with the same identity, when the leader changes or when nothing is heard
//! of it for long; apply admits it once. Its answer comes from this member's own apply. It fails as
//! [`KvError::Unavailable`] only if it was never handed to Raft; otherwise the deadline says
//! [`KvError::Unknown`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::changes::Payload;
use crate::command::{Command, Proposal, ProposalId};
use crate::kv::{KvError, MemberId};

/// Names a waiting caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Limits and times of proposals.
#[derive(Clone, Copy, Debug)]
pub struct ProposalLimits {
    /// Most proposals waiting; more are refused as [`KvError::Overloaded`].
    pub max_waiting: usize,
    /// Largest encoded proposal in bytes.
    pub max_bytes: usize,
    /// A caller waits this long.
    pub timeout: Duration,
    /// A proposal is sent again if nothing is heard of it for this long.
    pub resend_after: Duration,
}

#[derive(Debug)]
struct Pending {
    ticket: Option<Ticket>,
    payload: Payload,
    deadline: Duration,
    /// When it was last handed to Raft; `None` if it must be (again).
    sent_at: Option<Duration>,
    ever_sent: bool,
}

/// The waiting proposals of one start of a member.
#[derive(Debug)]
pub struct Proposals {
    member: MemberId,
    boot: u64,
    limits: ProposalLimits,
    last_seq: u64,
    pending: BTreeMap<u64, Pending>,
}

impl Proposals {
    /// None yet. `boot` must never have been used by this member before.
    pub fn new(member: MemberId, boot: u64, limits: ProposalLimits) -> Self {
        Self { member, boot, limits, last_seq: 0, pending: BTreeMap::new() }
    }

    /// Queues a command. Without a ticket nobody waits for it: it is the member's own.
    ///
    /// # Errors
    /// [`KvError::Overloaded`] or [`KvError::TooLarge`].
    pub fn add(
        &mut self,
        ticket: Option<Ticket>,
        command: Command,
        now: Duration,
        wall_ms: u64,
    ) -> Result<(), KvError> {
        if self.pending.len() >= self.limits.max_waiting {
            return Err(KvError::Overloaded);
        }
        let seq = self.last_seq + 1;
        let id = ProposalId { member: self.member, boot: self.boot, seq };
        let floor = self.pending.keys().next().copied().unwrap_or(seq);
        let proposal = Proposal { id, floor, wall_ms, command };
        let payload = Payload::new(&proposal.command, proposal.encode());
        let size = payload.data.len();
        if size > self.limits.max_bytes {
            return Err(KvError::TooLarge { size, limit: self.limits.max_bytes });
        }
        self.last_seq = seq;
        let deadline = now + self.limits.timeout;
        self.pending.insert(seq, Pending { ticket, payload, deadline, sent_at: None, ever_sent: false });
        Ok(())
    }

    /// What should be handed to Raft now, in order, up to `max_bytes` (at least one).
    pub fn due(&self, now: Duration, max_bytes: usize) -> Vec<(u64, Payload)> {
        let mut size = 0;
        let is_due = |p: &Pending| p.sent_at.is_none_or(|at| now >= at + self.limits.resend_after);
        let due = self.pending.iter().filter(|(_, pending)| is_due(pending));
        due.take_while(|(_, pending)| {
            let first = size == 0;
            size += pending.payload.data.len();
            first || size <= max_bytes
        })
        .map(|(seq, pending)| (*seq, pending.payload.clone()))
        .collect()
    }

    /// These were handed to Raft.
    pub fn sent(&mut self, seqs: impl IntoIterator<Item = u64>, now: Duration) {
        for seq in seqs {
            if let Some(pending) = self.pending.get_mut(&seq) {
                pending.sent_at = Some(now);
                pending.ever_sent = true;
            }
        }
    }

    /// The leader changed: whatever was sent may be lost.
    pub fn send_all_again(&mut self) {
        self.pending.values_mut().for_each(|pending| pending.sent_at = None);
    }

    /// Settles an applied proposal; the caller's ticket if it is ours and awaited.
    pub fn applied(&mut self, id: ProposalId) -> Option<Ticket> {
        if id.member != self.member || id.boot != self.boot {
            return None;
        }
        self.pending.remove(&id.seq)?.ticket
    }

    /// Settles those whose deadline has passed.
    pub fn expire(&mut self, now: Duration) -> Vec<(Ticket, KvError)> {
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, p)| now >= p.deadline).map(|(seq, _)| *seq).collect();
        late.into_iter().filter_map(|seq| self.give_up(seq)).collect()
    }

    /// Settles those that `applied` says were applied where we didn't see the result (by a snapshot).
    pub fn lost_results(&mut self, applied: impl Fn(u64) -> bool) -> Vec<(Ticket, KvError)> {
        let lost: Vec<u64> = self.pending.keys().copied().filter(|seq| applied(*seq)).collect();
        lost.into_iter().filter_map(|seq| self.give_up(seq)).collect()
    }

    fn give_up(&mut self, seq: u64) -> Option<(Ticket, KvError)> {
        let pending = self.pending.remove(&seq)?;
        let error = if pending.ever_sent {
            KvError::Unknown
        } else {
            KvError::Unavailable("no leader was found in time".into())
        };
        Some((pending.ticket?, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ProposalLimits = ProposalLimits {
        max_waiting: 2,
        max_bytes: 1000,
        timeout: Duration::from_secs(5),
        resend_after: Duration::from_secs(1),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seqs(due: &[(u64, Payload)]) -> Vec<u64> {
        due.iter().map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn a_proposal_is_sent_again_with_its_identity_until_it_is_applied() {
        let mut proposals = Proposals::new(MemberId(1), 1, LIMITS);
        proposals.add(Some(Ticket(7)), Command::Compact(crate::kv::Revision(1)), at(0), 0).unwrap();
        let first = proposals.due(at(0), 1000);
        assert_eq!(seqs(&first), [1]);
        proposals.sent([1], at(0));
        assert!(proposals.due(at(0), 1000).is_empty());
        assert_eq!(proposals.due(at(1), 1000), first, "nothing was heard for a second");
        proposals.send_all_again();
        assert_eq!(proposals.due(at(0), 1000), first, "another leader");
        let id = ProposalId { member: MemberId(1), boot: 1, seq: 1 };
        assert_eq!(proposals.applied(ProposalId { boot: 0, ..id }), None);
        assert_eq!(proposals.applied(id), Some(Ticket(7)));
        assert_eq!(proposals.applied(id), None);
    }

    #[test]
    fn the_deadline_says_whether_it_may_have_happened() {
        let mut proposals = Proposals::new(MemberId(1), 1, LIMITS);
        for ticket in [1, 2] {
            let command = Command::LeaseGrant { id: None, ttl_seconds: 1 };
            proposals.add(Some(Ticket(ticket)), command, at(0), 0).unwrap();
        }
        let refused = proposals.add(None, Command::LeaseGrant { id: None, ttl_seconds: 1 }, at(0), 0);
        assert!(matches!(refused, Err(KvError::Overloaded)));
        proposals.sent([1], at(0));
        let expired = proposals.expire(at(5));
        assert!(matches!(
            &expired[..],
            [(Ticket(1), KvError::Unknown), (Ticket(2), KvError::Unavailable(_))]
        ));
    }
}
