//! Which pods a Job creates and deletes.

use super::{IndexSets, Look, Outcome, pods, straggler};
use crate::{
    plan::{Action, Part, Plan, Target},
    pod::{self, Pod},
    replicaset::rank,
    template,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// At most this many creates in one look; upstream's `MaxPodCreateDeletePerSync`.
const BURST: usize = 500;
/// The pause after the first failure, doubled at each further one.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(600);

/// What this look does to pods.
#[derive(Debug, Default)]
pub struct Work {
    /// In order.
    pub actions: Vec<Action>,
    /// Active pods that it deletes.
    pub deleted: BTreeSet<String>,
    /// Pods that it creates.
    pub created: usize,
    /// When a pause ends.
    pub again: Option<Timestamp>,
}

impl Look<'_> {
    /// The pods to create and delete, given whether the Job is decided.
    pub(super) fn work(&self, outcome: Option<&Outcome>) -> Work {
        let mut work = Work::default();
        if let Some(outcome) = outcome {
            self.end_all(outcome, &mut work);
            return work;
        }
        // With a write outstanding it isn't known what is missing; its arrival makes us look again.
        if self.pending.unseen(&self.pods) > 0 {
            return work;
        }
        if self.is_suspended() {
            self.remove(self.active.clone(), "the Job is suspended", &mut work);
            return work;
        }
        let wanted = self.wanted();
        self.remove(self.surplus(wanted), "more than the Job wants to run", &mut work);
        self.add(wanted, &mut work);
        work
    }

    /// The pods of a decided Job end, and are counted when they have.
    fn end_all(&self, outcome: &Outcome, work: &mut Work) {
        for pod in &self.active {
            work.actions.push(template::delete(
                self.job,
                pod,
                format!("the Job is decided: {}", outcome.reason),
            ));
            work.deleted.extend(pod.uid());
        }
    }

    /// Active pods that are wanted.
    fn wanted(&self) -> usize {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let left = match (&self.indexes, self.spec.completions) {
            (Some(indexes), _) => indexes.completions - indexes.succeeded.count() - indexes.failed.count(),
            (None, Some(completions)) => completions - self.succeeded_total(),
            // A work queue: the first success ends the hiring.
            (None, None) if self.succeeded_total() > 0 => self.active.len() as i32,
            (None, None) => parallelism,
        };
        usize::try_from(left.min(parallelism)).unwrap_or(0)
    }

    /// Pods that go first: second copies, finished or senseless indexes, then those of which least is lost.
    fn surplus(&self, wanted: usize) -> Vec<Arc<Pod>> {
        let (mut victims, rest) = match &self.indexes {
            Some(indexes) => self.superfluous(indexes),
            None => (Vec::new(), self.active.clone()),
        };
        let excess = self.tasks(&rest).saturating_sub(wanted);
        victims.extend(rank::to_delete(&rest, &[], excess, self.now));
        victims
    }

    /// How many tasks `pods` work at: a straggler and its copy work at one.
    fn tasks(&self, pods: &[Arc<Pod>]) -> usize {
        if self.indexes.is_none() {
            return pods.len();
        }
        pods.iter().map(|pod| pods::index_of(pod)).collect::<BTreeSet<_>>().len()
    }

    fn superfluous(&self, indexes: &IndexSets) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let copies = if straggler::factor(self.job).is_some() { 2 } else { 1 };
        let mut seen: BTreeMap<i32, usize> = BTreeMap::new();
        let mut sorted = self.active.clone();
        sorted.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
        sorted.into_iter().partition(|pod| {
            let Some(index) = pods::index_of(pod).filter(|index| *index < indexes.completions) else {
                return true;
            };
            let count = seen.entry(index).or_default();
            *count += 1;
            *count > copies || indexes.succeeded.contains(index) || indexes.failed.contains(index)
        })
    }

    /// Removed pods lose their finalizer first, so that they don't count as failures.
    fn remove(&self, victims: Vec<Arc<Pod>>, reason: &str, work: &mut Work) {
        let mut plan = Plan::nothing();
        for pod in victims.iter().filter(|pod| super::is_tracked(pod)) {
            plan.patch(
                Target::of(&**pod),
                Part::Whole,
                pods::without_tracking(pod),
                "it must not count as failed",
            );
        }
        work.actions.extend(plan.actions);
        for pod in victims {
            work.actions.push(template::delete(self.job, &pod, reason));
            work.deleted.extend(pod.uid());
        }
    }

    fn add(&self, wanted: usize, work: &mut Work) {
        let ending = if self.replaces_only_ended() { self.terminating } else { 0 };
        let stays = |pod: &&Arc<Pod>| pod.uid().is_some_and(|uid| !work.deleted.contains(&uid));
        let running: Vec<Arc<Pod>> = self.active.iter().filter(stays).cloned().collect();
        let slots = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let free = slots.saturating_sub(running.len() + ending);
        let running = self.tasks(&running);
        let missing = wanted.saturating_sub(running + ending).min(BURST);
        let creates = match &self.indexes {
            Some(indexes) => self.new_indexes(indexes, (missing, free), work),
            None => self.new_pods(missing, work),
        };
        work.created = creates.len();
        work.actions.extend(creates);
    }

    fn new_pods(&self, missing: usize, work: &mut Work) -> Vec<Action> {
        if missing > 0 && self.pauses(self.pause(), work) {
            return Vec::new();
        }
        (0..missing).map(|_| self.create(None, format!("{missing} pods are missing"))).collect()
    }

    /// Pods for up to `missing` indexes; slots that stay free may go to copies of stragglers.
    fn new_indexes(
        &self,
        indexes: &IndexSets,
        (missing, free): (usize, usize),
        work: &mut Work,
    ) -> Vec<Action> {
        let per_index = self.spec.backoff_limit_per_index.is_some();
        if missing > 0 && !per_index && self.pauses(self.pause(), work) {
            return Vec::new();
        }
        let taken = self.taken(work);
        let open = (0..indexes.completions).filter(|index| {
            !indexes.succeeded.contains(*index) && !indexes.failed.contains(*index) && !taken.contains(index)
        });
        let mut creates: Vec<Action> = Vec::new();
        for index in open {
            if creates.len() == missing {
                break;
            }
            if per_index && self.pauses(self.pause_of(index), work) {
                continue;
            }
            creates.push(self.create(Some(index), format!("index {index} is missing")));
        }
        creates.extend(self.copies(free.saturating_sub(creates.len()), work));
        creates
    }

    /// Indexes that need no new pod.
    fn taken(&self, work: &Work) -> BTreeSet<i32> {
        let runs = |pod: &&Arc<Pod>| {
            let ending = pod::is_terminating(pod) || pod.uid().is_some_and(|uid| work.deleted.contains(&uid));
            !pod::is_terminal(pod) && (!ending || self.replaces_only_ended())
        };
        self.pods.iter().filter(runs).filter_map(|pod| pods::index_of(pod)).collect()
    }

    /// Notes when a pause ends; true while it lasts.
    pub(super) fn pauses(&self, until: Option<Timestamp>, work: &mut Work) -> bool {
        let Some(until) = until.filter(|until| *until > self.now) else { return false };
        work.again = Some(work.again.map_or(until, |again| again.min(until)));
        true
    }

    /// Until when nothing is tried again: longer after each failure since the last success.
    fn pause(&self) -> Option<Timestamp> {
        let ended = |phase: &'static str| {
            self.pods.iter().filter(move |pod| pod::phase(pod) == phase).filter_map(|pod| pods::ended_at(pod))
        };
        let success = ended("Succeeded").max();
        let failures: Vec<Timestamp> =
            ended("Failed").filter(|end| success.is_none_or(|at| *end > at)).collect();
        Some(*failures.iter().max()? + pause_after(failures.len()))
    }

    fn pause_of(&self, index: i32) -> Option<Timestamp> {
        let failed = self.failed.iter().filter(|(pod, _)| pods::index_of(pod) == Some(index));
        let last = failed.filter_map(|(pod, _)| pods::ended_at(pod)).max()?;
        let (counted, ignored) = self.failures_of(index);
        Some(last + pause_after(usize::try_from(counted + ignored).unwrap_or(0)))
    }

    /// When to look again although nothing changes.
    pub(super) fn deadlines(&self, again: Option<Timestamp>) -> Option<Timestamp> {
        let deadline = self.deadline().filter(|deadline| *deadline > self.now);
        again.into_iter().chain(deadline).min()
    }
}

fn pause_after(failures: usize) -> SignedDuration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    (FIRST_PAUSE * 2_i32.pow(doublings)).min(LONGEST_PAUSE)
}
