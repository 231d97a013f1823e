//! Everything that is known about a run from outside, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::disk::SimDisk;
use super::replay::{LeaseEnd, Replay, same, same_command};
use super::verdict::{Judge, ensure};
use super::world::STEP_MS;
use crate::command::{Applied, Command, Outcome};
use crate::kv::{KeyRange, KvError, LeaseId, MemberId, RangeRequest, RangeResponse, Revision, Txn};
use crate::membership::MemberInfo;
use crate::mvcc::read::RevisionEvents;
use crate::mvcc::state::Head;
use crate::proof::linearizable::{self, Operation, Verdict};

use super::registers;

/// The fastest clock that a member may have, percent: a lease may seem so much shorter.
const FASTEST_CLOCK: u64 = 125;
/// States that the search for an order of one key's operations may visit.
const MAX_SEARCH: usize = 100_000;

/// A call as its client knows it.
#[derive(Clone, Debug)]
pub struct Call {
    pub began: u64,
    /// The member that was asked.
    pub member: MemberId,
    /// How far the member was that was asked.
    pub applied_before: u64,
    pub command: Command,
}

/// What a client may rely on about a lease.
#[derive(Clone, Copy, Debug, Default)]
struct LeaseKnown {
    ttl_seconds: u64,
    /// When the last successful grant or renewal was asked for.
    assured: u64,
    /// When its end was first applied anywhere, and whether by the leader's timer.
    ended: Option<(u64, bool)>,
}

pub struct Oracle {
    pub replay: Replay,
    leaders: BTreeMap<u64, MemberId>,
    digests: BTreeMap<u64, u64>,
    /// When operations ended, and the highest index that any of them up to there had seen or made.
    finished: Vec<(u64, u64)>,
    registers: BTreeMap<Bytes, Vec<Operation<u64>>>,
    /// By id, and where it was granted.
    leases: BTreeMap<(LeaseId, u64), LeaseKnown>,
    /// Names of transactions that were refused: nothing may have come of them.
    refused: BTreeSet<String>,
    pub expired: u64,
    /// Keys whose history was too hard to judge.
    pub undecided: u64,
}

impl Oracle {
    /// Of a group with these founders.
    pub fn new(founders: &[MemberInfo]) -> Self {
        Self {
            replay: Replay::new(founders),
            leaders: BTreeMap::new(),
            digests: BTreeMap::new(),
            finished: Vec::new(),
            registers: BTreeMap::new(),
            leases: BTreeMap::new(),
            refused: BTreeSet::new(),
            expired: 0,
            undecided: 0,
        }
    }

    pub fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub fn newest(&self) -> Revision {
        self.replay.model().revision
    }

    pub fn compacted(&self) -> Revision {
        self.replay.model().compacted
    }

    pub fn invariant_one_leader_per_term(&mut self, term: u64, leader: MemberId) {
        let first = *self.leaders.entry(term).or_insert(leader);
        ensure!(first == leader, Judge::OneLeader, "members {first} and {leader} both lead in term {term}");
    }

    /// A member that was at `before` is at `head` now, by the log on `disk` or by a snapshot.
    pub fn learn(&mut self, now: u64, disk: &SimDisk, before: u64, head: &Head, installed: bool) {
        // After a snapshot the disk holds entries that it replaced; all it covers was learned from others.
        let first = if installed { self.replay.last() + 1 } else { before + 1 };
        for index in first..=head.index {
            let record = disk.logged(index).unwrap_or_default();
            for end in self.replay.applied(index, record) {
                self.lease_ended(now, end);
            }
        }
        let digest = *self.digests.entry(head.index).or_insert(head.digest);
        ensure!(digest == head.digest, Judge::SameState, "digests differ after entry {}", head.index);
        let expected = self.replay.head(head.index);
        let real = (head.revision, head.compacted);
        ensure!(
            real == expected,
            Judge::Replay,
            "after entry {} revision and compaction are {real:?}, but the log leads to {expected:?}",
            head.index
        );
    }

    pub fn invariant_events_follow_from_log(&self, events: &[RevisionEvents]) {
        for (revision, events) in events {
            let expected = self.replay.history().get(revision);
            ensure!(
                expected == Some(events),
                Judge::Replay,
                "events of revision {revision} are {events:?}, but the log leads to {expected:?}"
            );
        }
    }

    /// The highest index that an operation that begins at `began` must have behind it.
    fn known_before(&self, began: u64) -> u64 {
        let earlier = self.finished.partition_point(|(ended, _)| *ended < began);
        earlier.checked_sub(1).map_or(0, |at| self.finished[at].1)
    }

    fn finish(&mut self, now: u64, index: u64) {
        let highest = self.finished.last().map_or(0, |(_, highest)| *highest);
        self.finished.push((now, highest.max(index)));
    }

    /// A member that is at `applied` answers a call.
    pub fn replied(&mut self, now: u64, call: &Call, applied: u64, result: &Applied) {
        match result {
            Err(KvError::Unknown | KvError::Closed) => return self.unanswered(call),
            Err(
                KvError::Unavailable(_)
                | KvError::Overloaded
                | KvError::TooLarge { .. }
                | KvError::NoSpace { .. },
            ) => {
                if let Command::Txn(txn) = &call.command {
                    self.refused.insert(txn.origin.agent.clone());
                }
                return;
            }
            _ => {}
        }
        let index = self.explain(call, applied, result);
        let known = self.known_before(call.began);
        ensure!(
            index > known,
            Judge::RealTime,
            "{call:?} took effect at {index}, but {known} was known before"
        );
        self.finish(now, index);
        match (&call.command, result) {
            (Command::Txn(txn), Ok(Outcome::Txn(response))) => {
                let seen = registers::of_txn(txn, Some(response));
                self.note(call.began, Some(now), seen);
            }
            (_, Ok(Outcome::Lease(lease))) => {
                let granted = self.replay.grant_of(lease.id, index);
                self.assured(call.began, (lease.id, granted), lease.ttl_seconds);
            }
            _ => {}
        }
    }

    /// Nobody knows what came of the call.
    pub fn unanswered(&mut self, call: &Call) {
        if let Command::Txn(txn) = &call.command {
            self.note(call.began, None, registers::of_txn(txn, None));
        }
    }

    fn note(&mut self, began: u64, ended: Option<u64>, seen: Vec<registers::Seen>) {
        for registers::Seen { key, found, left } in seen {
            self.registers.entry(key).or_default().push(Operation { began, ended, found, left });
        }
    }

    /// Where in the log the answer comes from.
    fn explain(&self, call: &Call, applied: u64, result: &Applied) -> u64 {
        let fits = |index: &u64| self.replay.step(*index).is_some_and(|step| same(&step.result, result));
        let found = match &call.command {
            Command::Txn(Txn { origin, .. }) => self.replay.index_of(&origin.agent).filter(fits),
            // Others may have asked the same: any entry of this member in the time of the call explains it.
            command => (call.applied_before + 1..=applied).rev().find(|index| {
                let step = self.replay.step(*index);
                step.is_some_and(|step| step.member == call.member && same_command(&step.command, command))
                    && fits(index)
            }),
        };
        let Some(index) = found.filter(|index| *index <= applied) else {
            let name = if let Command::Txn(txn) = &call.command { &txn.origin.agent } else { "" };
            let real = self.replay.index_of(name).and_then(|at| Some((at, &self.replay.step(at)?.result)));
            super::verdict::violated(
                Judge::Replay,
                format!(
                    "{:?} was answered {result:?} at {applied}, but the log leads to {real:?}",
                    call.command
                ),
            );
        };
        index
    }

    /// A member in the state of `head` answers a read; `known` if it promised to be up to date.
    pub fn was_read(
        &mut self,
        now: u64,
        began: u64,
        linearizable: bool,
        request: &RangeRequest,
        head: &Head,
        response: &RangeResponse,
    ) {
        let mut at = request.clone();
        at.revision = Some(request.revision.unwrap_or(head.revision));
        let expected = self.replay.model().range(&at);
        ensure!(
            (&expected.kvs, expected.more, expected.count) == (&response.kvs, response.more, response.count),
            Judge::Replay,
            "{request:?} at {} was answered {:?}, but the log leads to {:?}",
            head.revision,
            response.kvs,
            expected.kvs
        );
        if !linearizable {
            return;
        }
        let known = self.known_before(began);
        ensure!(
            head.index >= known,
            Judge::RealTime,
            "a read that began at {began} saw entry {}, but {known} was known before",
            head.index
        );
        self.finish(now, head.index);
        if request.revision.is_none() {
            self.note(began, Some(now), registers::of_read(request, &response.kvs));
        }
    }

    /// The leader says that a lease is alive, and it was renewed if that was asked.
    pub fn lease_lives(&mut self, now: u64, began: u64, id: LeaseId, ttl_seconds: u64, renewed: bool) {
        let granted = self.replay.grant_of(id, self.replay.last());
        let ended = self.leases.get(&(id, granted)).and_then(|lease| lease.ended);
        if let Some((ended, _)) = ended {
            ensure!(
                began <= ended,
                Judge::Lease,
                "at {now} lease {id} lives, asked at {began}, ended at {ended}"
            );
        }
        if renewed {
            self.assured(began, (id, granted), ttl_seconds);
        }
    }

    /// The leader says that there is no such lease.
    pub fn lease_is_gone(&self, began: u64, id: LeaseId) {
        let known = self.known_before(began);
        let lives = self.replay.living(id).is_some_and(|granted| granted <= known);
        ensure!(!lives, Judge::Lease, "lease {id} lives since before {began}, but isn't found");
    }

    fn assured(&mut self, began: u64, (id, granted): (LeaseId, u64), ttl_seconds: u64) {
        let lease = self.leases.entry((id, granted)).or_default();
        lease.ttl_seconds = ttl_seconds;
        lease.assured = lease.assured.max(began);
        let lease = *lease;
        if let Some((ended, expired)) = lease.ended {
            ensure!(
                began <= ended,
                Judge::Lease,
                "lease {id} was kept alive at {began}, after its end at {ended}"
            );
            if expired {
                self.invariant_not_early(id, lease, ended);
            }
        }
    }

    fn lease_ended(&mut self, now: u64, LeaseEnd { id, granted, expired }: LeaseEnd) {
        let lease = self.leases.entry((id, granted)).or_default();
        lease.ended = Some((now, expired));
        if expired {
            let lease = *lease;
            self.expired += 1;
            self.invariant_not_early(id, lease, now);
        }
    }

    fn invariant_not_early(&self, id: LeaseId, lease: LeaseKnown, ended: u64) {
        let lived_ms = ended.saturating_sub(lease.assured) * STEP_MS;
        let due_ms = lease.ttl_seconds * 1000 * 100 / FASTEST_CLOCK;
        ensure!(
            lived_ms + STEP_MS >= due_ms || lease.ttl_seconds == 0,
            Judge::Lease,
            "lease {id} of {} s ended {lived_ms} ms after it was assured",
            lease.ttl_seconds
        );
    }

    /// At the end: refused writes left no trace, and the operations on each key can be put in order.
    pub fn invariant_history_is_explained(&mut self) {
        for name in &self.refused {
            ensure!(
                self.replay.index_of(name).is_none(),
                Judge::Replay,
                "{name} was refused and took effect"
            );
        }
        for (key, operations) in &self.registers {
            let operations = registers::relevant(operations);
            match linearizable::check(0, &operations, MAX_SEARCH) {
                Verdict::Linearizable => {}
                Verdict::Unknown => self.undecided += 1,
                Verdict::Violated(order) => {
                    let order: Vec<_> = order.iter().map(|at| &operations[*at]).collect();
                    ensure!(false, Judge::Linearizable, "key {key:?}: nothing can follow {order:?}");
                }
            }
        }
    }

    /// What a member holds in the end is what the log leads to.
    pub fn invariant_contents_follow_from_log(&self, kvs: &RangeResponse, events: &[RevisionEvents]) {
        let expected = self.replay.model().range(&RangeRequest::new(KeyRange::prefix("")));
        ensure!(
            expected.kvs == kvs.kvs,
            Judge::Replay,
            "a member holds {kvs:?}, the log leads to {expected:?}"
        );
        self.invariant_events_follow_from_log(events);
        let kept = self.replay.history().range(Revision(self.compacted().0 + 1)..).count();
        ensure!(kept == events.len(), Judge::Replay, "{} revisions of {kept} are readable", events.len());
    }
}
