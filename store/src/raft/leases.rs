//! The leader's lease timers.
//!
//! Only the leader has them, on the monotonic clock. Renewals aren't written to the log: the leader restarts
//! the timer once a quorum has confirmed its leadership ([`super::lease_desk`]). The end of a lease is a
//! proposal that names the term and the lease's generation, so a deposed leader's timer does nothing; from
//! the moment it is proposed the lease can't be renewed. A new leader gives every lease its full time again,
//! plus an election timeout: a lease never ends early, and late by a bounded time. So that changes of leaders
//! don't prolong long leases for ever, what is left of those is written down now and then (a checkpoint).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bug::bug;
use crate::command::{Checkpoint, Command, LeaseTurn};
use crate::kv::LeaseId;
use crate::mvcc::apply::LeaseChange;
use crate::mvcc::family::LeaseRecord;

/// Most leases ended at one tick, so that mass expiry doesn't crowd out everything else.
const ENDS_PER_TICK: usize = 512;
/// Most checkpoints in one entry and at one tick.
const CHECKPOINTS_PER_TICK: usize = 512;

/// The times that timers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// A new leader gives this much more: an election timeout.
    pub grace: Duration,
    /// An end that was proposed and not applied is proposed again after this.
    pub again_after: Duration,
    /// A lease that lasts longer than this has what is left of it written down this often.
    pub checkpoint_every: Duration,
}

#[derive(Debug)]
struct Timer {
    lease: LeaseRecord,
    deadline: Duration,
    /// When to look at it next: at the deadline, or later if its end was proposed.
    wake: Duration,
    /// When its next checkpoint is due, if it needs any.
    checkpoint: Option<Duration>,
    /// Its end was proposed in this term and may be applied at any time.
    ending: bool,
    /// A checkpoint is on disk or on its way there: a renewal has to be written too.
    checkpointed: bool,
    /// The renewal that was proposed for that, until it is worth proposing again.
    renewing_until: Option<Duration>,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Its time starts again.
    Restarted {
        /// Granted time to live.
        ttl_seconds: u64,
    },
    /// There is no such lease.
    Unknown,
    /// Its end is on its way: wait for it.
    Ending,
    /// It has to be written to the log: propose [`Command::LeaseKeepAlive`] and wait for it.
    Write,
    /// That was proposed already: wait for it.
    BeingWritten,
}

/// The timers of one leadership; empty on a follower.
#[derive(Debug)]
pub struct LeaseTimers {
    times: LeaseTimes,
    /// The term, while leading.
    term: Option<u64>,
    timers: BTreeMap<LeaseId, Timer>,
    /// All timers by `wake`.
    queue: BTreeSet<(Duration, LeaseId)>,
    /// Timers with checkpoints by when the next is due.
    checkpoints: BTreeSet<(Duration, LeaseId)>,
}

impl LeaseTimers {
    /// Of a member that doesn't lead.
    pub fn new(times: LeaseTimes) -> Self {
        let (timers, queue, checkpoints) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { times, term: None, timers, queue, checkpoints }
    }

    /// This member leads now: all leases start again.
    pub fn lead(
        &mut self,
        term: u64,
        leases: impl IntoIterator<Item = (LeaseId, LeaseRecord)>,
        now: Duration,
    ) {
        self.follow();
        self.term = Some(term);
        for (id, lease) in leases {
            self.arm(id, lease, now, self.times.grace);
        }
    }

    /// This member doesn't lead.
    pub fn follow(&mut self) {
        *self = Self::new(self.times);
    }

    /// The term of the leadership these timers belong to.
    pub fn leading(&self) -> Option<u64> {
        self.term
    }

    /// The times.
    pub fn times(&self) -> LeaseTimes {
        self.times
    }

    /// A lease was granted, renewed in the log, or ended.
    pub fn change(&mut self, change: LeaseChange, now: Duration) {
        match change {
            LeaseChange::Armed(id, lease) if self.term.is_some() => {
                self.arm(id, lease, now, Duration::ZERO);
            }
            LeaseChange::Armed(..) => {}
            LeaseChange::Ended(id) => self.remove(id),
        }
    }

    /// Restarts a lease's time. Only for a leadership that was confirmed after the renewal was asked for.
    pub fn renew(&mut self, id: LeaseId, now: Duration) -> Renewal {
        let Some(timer) = self.timers.get_mut(&id) else { return Renewal::Unknown };
        if timer.ending && !bug!(ExpiryIgnoresRenewal) {
            return Renewal::Ending;
        }
        if timer.checkpointed {
            if timer.renewing_until.is_some_and(|until| now < until) {
                return Renewal::BeingWritten;
            }
            timer.renewing_until = Some(now + self.times.again_after);
            return Renewal::Write;
        }
        let lease = timer.lease;
        self.arm(id, lease, now, Duration::ZERO);
        Renewal::Restarted { ttl_seconds: lease.ttl_seconds }
    }

    /// Granted time and what is left of it; `None` if there is no such lease or its end is on its way.
    pub fn left(&self, id: LeaseId, now: Duration) -> Option<(u64, Duration)> {
        let timer = self.timers.get(&id).filter(|timer| !timer.ending)?;
        Some((timer.lease.ttl_seconds, timer.deadline.saturating_sub(now)))
    }

    /// Whether the lease's end was proposed.
    pub fn is_ending(&self, id: LeaseId) -> bool {
        self.timers.get(&id).is_some_and(|timer| timer.ending)
    }

    /// What to propose now: ends, and checkpoints.
    pub fn due(&mut self, now: Duration) -> Vec<Command> {
        let Some(term) = self.term else { return Vec::new() };
        let leases = self.due_ends(now);
        let ends = (!leases.is_empty()).then_some(Command::LeaseExpire { term, leases });
        let leases = self.due_checkpoints(now);
        let checkpoints = (!leases.is_empty()).then_some(Command::LeaseCheckpoint { term, leases });
        ends.into_iter().chain(checkpoints).collect()
    }

    /// A proposal was refused: its leases don't end yet.
    pub fn put_off(&mut self, refused: &Command, now: Duration) {
        let Command::LeaseExpire { leases, .. } = refused else { return };
        for lease in leases {
            let Some(timer) = self.timers.get_mut(&lease.id) else { continue };
            self.queue.remove(&(timer.wake, lease.id));
            timer.ending = false;
            timer.wake = now + self.times.grace;
            self.queue.insert((timer.wake, lease.id));
        }
    }

    fn due_ends(&mut self, now: Duration) -> Vec<LeaseTurn> {
        let due = self.queue.iter().take_while(|(wake, _)| *wake <= now).take(ENDS_PER_TICK);
        let due: Vec<(Duration, LeaseId)> = due.copied().collect();
        let mut ends = Vec::with_capacity(due.len());
        for (wake, id) in due {
            self.queue.remove(&(wake, id));
            let timer = self.timers.get_mut(&id).expect("the queue holds only leases that have timers");
            timer.ending = true;
            timer.wake = now + self.times.again_after;
            self.queue.insert((timer.wake, id));
            ends.push(LeaseTurn { id, generation: timer.lease.generation });
        }
        ends
    }

    fn due_checkpoints(&mut self, now: Duration) -> Vec<Checkpoint> {
        let due = self.checkpoints.iter().take_while(|(at, _)| *at <= now).take(CHECKPOINTS_PER_TICK);
        let due: Vec<(Duration, LeaseId)> = due.copied().collect();
        let mut checkpoints = Vec::with_capacity(due.len());
        for (at, id) in due {
            self.checkpoints.remove(&(at, id));
            let timer = self.timers.get_mut(&id).expect("the queue holds only leases that have timers");
            let left = timer.deadline.saturating_sub(now);
            timer.checkpoint =
                (left > self.times.checkpoint_every).then_some(now + self.times.checkpoint_every);
            self.checkpoints.extend(timer.checkpoint.map(|at| (at, id)));
            if !timer.ending {
                timer.checkpointed = true;
                let lease = LeaseTurn { id, generation: timer.lease.generation };
                // Rounded up: a lease must not end early.
                let remaining_seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                checkpoints.push(Checkpoint { lease, remaining_seconds });
            }
        }
        checkpoints
    }

    fn arm(&mut self, id: LeaseId, lease: LeaseRecord, now: Duration, grace: Duration) {
        self.remove(id);
        let left = Duration::from_secs(lease.remaining_seconds.unwrap_or(lease.ttl_seconds));
        let deadline = now + grace + left;
        let every = self.times.checkpoint_every;
        let checkpoint = (left > every).then_some(now + every);
        self.queue.insert((deadline, id));
        self.checkpoints.extend(checkpoint.map(|at| (at, id)));
        let timer = Timer {
            lease,
            deadline,
            wake: deadline,
            checkpoint,
            ending: false,
            checkpointed: lease.remaining_seconds.is_some(),
            renewing_until: None,
        };
        self.timers.insert(id, timer);
    }

    fn remove(&mut self, id: LeaseId) {
        let Some(timer) = self.timers.remove(&id) else { return };
        self.queue.remove(&(timer.wake, id));
        if let Some(at) = timer.checkpoint {
            self.checkpoints.remove(&(at, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LeaseId = LeaseId(1);
    const TIMES: LeaseTimes = LeaseTimes { grace: at(1), again_after: at(5), checkpoint_every: at(300) };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease(ttl_seconds: u64) -> LeaseRecord {
        LeaseRecord { ttl_seconds, generation: 7, remaining_seconds: None }
    }

    fn ends(commands: &[Command]) -> Vec<LeaseTurn> {
        let ends = commands.iter().filter_map(|command| match command {
            Command::LeaseExpire { leases, .. } => Some(leases.clone()),
            _ => None,
        });
        ends.flatten().collect()
    }

    fn ends_of(id: &LeaseId) -> Command {
        Command::LeaseExpire { term: 3, leases: vec![LeaseTurn { id: *id, generation: 7 }] }
    }

    #[test]
    fn a_lease_ends_only_under_a_leader_and_never_early() {
        let mut timers = LeaseTimers::new(TIMES);
        timers.change(LeaseChange::Armed(ID, lease(10)), at(0));
        assert!(timers.due(at(100)).is_empty(), "a follower has no timers");
        timers.lead(3, [(ID, lease(10))], at(100));
        assert!(timers.due(at(110)).is_empty());
        assert_eq!(timers.renew(ID, at(110)), Renewal::Restarted { ttl_seconds: 10 });
        assert_eq!(timers.left(ID, at(112)), Some((10, at(8))));
        assert!(timers.due(at(119)).is_empty());
        let due = timers.due(at(120));
        assert!(matches!(due[..], [Command::LeaseExpire { term: 3, .. }]));
        assert_eq!(ends(&due), [LeaseTurn { id: ID, generation: 7 }]);
        assert!(timers.due(at(120)).is_empty(), "proposed once");
        assert_eq!(timers.renew(ID, at(120)), Renewal::Ending, "it may be gone at any time");
        assert_eq!(timers.left(ID, at(120)), None);
        assert_eq!(ends(&timers.due(at(125))).len(), 1, "and again if nothing came of it");
        let refused = ends_of(&ID);
        timers.put_off(&refused, at(125));
        assert_eq!(timers.renew(ID, at(125)), Renewal::Restarted { ttl_seconds: 10 }, "no end is on its way");
        timers.change(LeaseChange::Ended(ID), at(125));
        assert!(timers.due(at(200)).is_empty());
        assert_eq!(timers.renew(ID, at(200)), Renewal::Unknown);
    }

    #[test]
    fn a_lease_that_is_granted_again_under_its_id_has_its_own_time() {
        let mut timers = LeaseTimers::new(TIMES);
        timers.lead(1, [(ID, lease(10))], at(0));
        timers.change(LeaseChange::Ended(ID), at(5));
        timers.change(LeaseChange::Armed(ID, LeaseRecord { generation: 8, ..lease(10) }), at(5));
        assert!(timers.due(at(14)).is_empty(), "the first one's timer went with it");
        assert_eq!(ends(&timers.due(at(15))), [LeaseTurn { id: ID, generation: 8 }]);
    }

    #[test]
    fn what_is_left_of_a_long_lease_survives_changes_of_leaders() {
        let mut timers = LeaseTimers::new(TIMES);
        timers.lead(1, [(ID, lease(1000))], at(0));
        assert!(timers.due(at(299)).is_empty());
        let due = timers.due(at(301));
        let [Command::LeaseCheckpoint { term: 1, leases }] = &due[..] else { panic!("{due:?}") };
        assert_eq!((leases[0].lease.id, leases[0].remaining_seconds), (ID, 700));
        let checkpointed = LeaseRecord { remaining_seconds: Some(700), ..lease(1000) };
        assert_eq!(timers.renew(ID, at(302)), Renewal::Write, "the next leader must hear of it");
        assert_eq!(timers.renew(ID, at(302)), Renewal::BeingWritten);
        timers.follow();
        timers.lead(2, [(ID, checkpointed)], at(400));
        assert_eq!(timers.left(ID, at(400)), Some((1000, at(701))));
        assert_eq!(timers.renew(ID, at(401)), Renewal::Write);
        timers.change(LeaseChange::Armed(ID, LeaseRecord { generation: 8, ..lease(1000) }), at(402));
        assert_eq!(timers.left(ID, at(402)), Some((1000, at(1000))));
        assert_eq!(timers.renew(ID, at(403)), Renewal::Restarted { ttl_seconds: 1000 });
    }

    #[test]
    fn mass_expiry_is_spread_and_complete() {
        let mut timers = LeaseTimers::new(TIMES);
        timers.lead(1, (1..=100_000).map(|id| (LeaseId(id), lease(10))), at(0));
        let (mut now, mut ended) = (at(11), 0);
        while ended < 100_000 {
            let ends = ends(&timers.due(now));
            assert!(ends.len() <= ENDS_PER_TICK);
            ended += ends.len();
            for end in ends {
                timers.change(LeaseChange::Ended(end.id), now);
            }
            now += Duration::from_millis(50);
        }
        assert!(now - at(11) <= at(10), "100,000 leases take {:?}", now - at(11));
        assert!(timers.queue.is_empty() && timers.timers.is_empty());
    }
}
