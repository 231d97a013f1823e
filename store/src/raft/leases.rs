//! The leader's lease timers.
//!
//! Only the leader has them, on the monotonic clock. Their end is a proposal that names the term and
//! the number of renewals seen, so a deposed leader's timer, or one that ran out while a renewal was on
//! its way, does nothing. A new leader gives every lease its full time again, plus an election timeout:
//! a lease never ends early, and late by a bounded time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::Command;
use crate::kv::LeaseId;
use crate::mvcc::apply::LeaseChange;
use crate::mvcc::family::LeaseRecord;

/// Most ends proposed at one tick, so that mass expiry doesn't crowd out everything else.
const ENDS_PER_TICK: usize = 128;

#[derive(Debug)]
struct Timer {
    deadline: Duration,
    lease: LeaseRecord,
}

/// The timers of one leadership; empty on a follower.
#[derive(Debug, Default)]
pub struct LeaseTimers {
    /// The term, while leading.
    term: Option<u64>,
    timers: BTreeMap<LeaseId, Timer>,
    /// An end that was proposed and not applied is proposed again after this.
    again_after: Duration,
}

impl LeaseTimers {
    /// This member leads now: all leases start again. `grace` is an election timeout.
    pub fn lead(
        &mut self,
        term: u64,
        leases: impl IntoIterator<Item = (LeaseId, LeaseRecord)>,
        now: Duration,
        grace: Duration,
    ) {
        (self.term, self.again_after) = (Some(term), grace);
        let timer = |lease: LeaseRecord| Timer { deadline: now + grace + ttl(lease), lease };
        self.timers = leases.into_iter().map(|(id, lease)| (id, timer(lease))).collect();
    }

    /// This member doesn't lead.
    pub fn follow(&mut self) {
        *self = Self::default();
    }

    /// The term of the leadership these timers belong to.
    pub fn leading(&self) -> Option<u64> {
        self.term
    }

    /// A lease was granted, renewed or ended.
    pub fn change(&mut self, change: LeaseChange, now: Duration) {
        match change {
            LeaseChange::Armed(id, lease) if self.term.is_some() => {
                self.timers.insert(id, Timer { deadline: now + ttl(lease), lease });
            }
            LeaseChange::Armed(..) => {}
            LeaseChange::Ended(id) => drop(self.timers.remove(&id)),
        }
    }

    /// The ends to propose now.
    pub fn due(&mut self, now: Duration) -> Vec<Command> {
        let Some(term) = self.term else { return Vec::new() };
        let again_at = now + self.again_after;
        let due = self.timers.iter_mut().filter(|(_, timer)| now >= timer.deadline);
        due.take(ENDS_PER_TICK)
            .map(|(id, timer)| {
                timer.deadline = again_at;
                Command::LeaseExpire { id: *id, term, generation: timer.lease.generation }
            })
            .collect()
    }
}

fn ttl(lease: LeaseRecord) -> Duration {
    Duration::from_secs(lease.ttl_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_only_under_a_leader_and_never_early() {
        let at = Duration::from_secs;
        let lease = LeaseRecord { ttl_seconds: 10, generation: 0 };
        let mut timers = LeaseTimers::default();
        timers.change(LeaseChange::Armed(LeaseId(1), lease), at(0));
        assert!(timers.due(at(100)).is_empty(), "a follower has no timers");
        timers.lead(3, [(LeaseId(1), lease)], at(100), at(1));
        assert!(timers.due(at(110)).is_empty());
        let renewed = LeaseRecord { generation: 1, ..lease };
        timers.change(LeaseChange::Armed(LeaseId(1), renewed), at(110));
        assert!(timers.due(at(119)).is_empty());
        let due = timers.due(at(120));
        assert!(matches!(due[..], [Command::LeaseExpire { id: LeaseId(1), term: 3, generation: 1 }]));
        assert!(timers.due(at(120)).is_empty(), "proposed once");
        assert_eq!(timers.due(at(121)).len(), 1, "and again if nothing came of it");
        timers.change(LeaseChange::Ended(LeaseId(1)), at(121));
        assert!(timers.due(at(200)).is_empty());
    }
}
