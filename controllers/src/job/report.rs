//! The Job's status, and the counting of ended pods in steps of which each may be the last.

use super::{IndexSets, Look, Outcome, Verdict, conditions, pods, workload::Work};
use crate::{
    plan::{Action, Plan, Severity, Target},
    pod::{self, Pod},
};
use k8s_openapi::{
    api::batch::v1::{JobStatus, UncountedTerminatedPods},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt};
use std::{collections::BTreeSet, sync::Arc};

/// So many pods are noted at a time; upstream's `MaxUncountedPods`.
const NOTED_AT_ONCE: usize = 500;

impl Look<'_> {
    /// Notes what ended, lets it go, counts it, and says how the Job is.
    pub(super) fn report(&self, outcome: Option<Outcome>, work: &Work) -> Vec<Action> {
        let mut plan = Plan::nothing();
        let old = self.status();
        let (noted, mut freed) = self.noted(&old, outcome.as_ref(), work, &mut plan);
        let target = Target::of(self.job);
        plan.status(target.clone(), &old, &noted, "status");
        freed.truncate(NOTED_AT_ONCE);
        freed.iter().for_each(|pod| super::release(pod, "it is counted", &mut plan));
        let counted = self.counted(&noted, &freed, outcome.as_ref(), work, &mut plan);
        // Events are told with the write before them, so the last write comes before the events about it.
        let events = std::mem::take(&mut plan.actions);
        let (events, mut actions): (Vec<Action>, Vec<Action>) =
            events.into_iter().partition(|action| matches!(action, Action::Event { .. }));
        let mut last = Plan::nothing();
        last.status(target, &noted, &counted, "counted");
        actions.extend(last.actions);
        actions.extend(events);
        actions
    }

    /// The status with all newly ended pods noted, and the pods whose finalizers may go once it is written.
    fn noted(
        &self,
        old: &JobStatus,
        outcome: Option<&Outcome>,
        work: &Work,
        plan: &mut Plan,
    ) -> (JobStatus, Vec<Arc<Pod>>) {
        let mut status = JobStatus { active: nonzero(self.active_after(work)), ..old.clone() };
        let ready =
            |pod: &&Arc<Pod>| pod::is_ready(pod) && pod.uid().is_some_and(|uid| !work.deleted.contains(&uid));
        status.ready = Some(self.active.iter().filter(ready).count() as i32);
        status.terminating = Some(self.terminating as i32);
        self.note_times(&mut status, outcome, plan);
        if let Some(indexes) = &self.indexes {
            note_indexes(&mut status, indexes, self.spec.backoff_limit_per_index.is_some());
        }
        if let Some(outcome) = outcome {
            let type_ = if outcome.success { "SuccessCriteriaMet" } else { "FailureTarget" };
            let words = (outcome.reason.as_str(), outcome.message.as_str());
            conditions::set(status.conditions.get_or_insert_default(), type_, true, words, self.now);
        }
        let freed = self.note_ended(&mut status, outcome);
        (status, freed)
    }

    fn active_after(&self, work: &Work) -> usize {
        let active = self.active.len() - work.deleted.len();
        // What a refusal keeps from being created isn't active.
        if self.pending.failure.is_some() {
            active
        } else {
            active + work.created + self.pending.unseen(&self.pods)
        }
    }

    fn note_times(&self, status: &mut JobStatus, outcome: Option<&Outcome>, plan: &mut Plan) {
        if status.start_time.is_none() && !self.is_suspended() {
            status.start_time = Some(Time(self.now));
        }
        if outcome.is_some() {
            return;
        }
        let (suspended, known) = (self.is_suspended(), status.conditions.get_or_insert_default());
        let words = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
        if conditions::set(known, "Suspended", suspended, words, self.now) {
            let event = if suspended { "Suspended" } else { "Resumed" };
            plan.event(self.job.object_ref(&()), Severity::Normal, event, words.1);
            if !suspended {
                status.start_time = Some(Time(self.now));
            }
        }
        if known.is_empty() {
            status.conditions = None;
        }
    }

    /// Notes uids of ended pods; returns the pods that may go, those noted earlier first.
    fn note_ended(&self, status: &mut JobStatus, outcome: Option<&Outcome>) -> Vec<Arc<Pod>> {
        let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let noted: BTreeSet<String> =
            uncounted.succeeded.iter().chain(&uncounted.failed).flatten().cloned().collect();
        let was_noted =
            |pod: &&Arc<Pod>| self.is_held(pod) && pod.uid().is_some_and(|uid| noted.contains(&uid));
        let mut freed: Vec<Arc<Pod>> = self.pods.iter().filter(was_noted).cloned().collect();
        let room = NOTED_AT_ONCE.saturating_sub(freed.len());
        let succeeded: Vec<&Arc<Pod>> = self.succeeded.iter().take(room).collect();
        if self.indexes.is_none() {
            extend(&mut uncounted.succeeded, &succeeded);
        }
        freed.extend(succeeded.iter().map(|pod| (*pod).clone()));
        let room = NOTED_AT_ONCE.saturating_sub(freed.len());
        let failed = self.failed.iter().filter(|(pod, _)| outcome.is_some() || !self.is_kept(pod)).take(room);
        let failed: Vec<&(Arc<Pod>, Verdict)> = failed.collect();
        let counting = failed.iter().filter(|(_, verdict)| *verdict != Verdict::Ignore);
        let counting: Vec<&Arc<Pod>> = counting.map(|(pod, _)| pod).collect();
        extend(&mut uncounted.failed, &counting);
        freed.extend(failed.iter().map(|(pod, _)| pod.clone()));
        if outcome.is_some() {
            freed.extend(self.ending_late(outcome, &mut uncounted));
        }
        status.uncounted_terminated_pods = Some(uncounted);
        freed
    }

    /// Pods of a decided Job that are being deleted but need not have ended to be let go.
    fn ending_late(
        &self,
        outcome: Option<&Outcome>,
        uncounted: &mut UncountedTerminatedPods,
    ) -> Vec<Arc<Pod>> {
        let late = |pod: &&Arc<Pod>| {
            self.is_held(pod) && pod::is_terminating(pod) && !pod::is_terminal(pod) && !self.has_failed(pod)
        };
        let late: Vec<&Arc<Pod>> = self.pods.iter().filter(late).collect();
        if outcome.is_some_and(|outcome| !outcome.success) {
            let known = uncounted.failed.clone().unwrap_or_default();
            let fresh: Vec<&Arc<Pod>> = late
                .iter()
                .filter(|pod| pod.uid().is_some_and(|uid| !known.contains(&uid)))
                .copied()
                .collect();
            extend(&mut uncounted.failed, &fresh);
        }
        late.into_iter().cloned().collect()
    }

    /// The last failed pod of an index stays until its successor exists, which has the count of failures from it.
    fn is_kept(&self, pod: &Pod) -> bool {
        let (Some(indexes), Some(index)) = (&self.indexes, pods::index_of(pod)) else { return false };
        if self.spec.backoff_limit_per_index.is_none()
            || index >= indexes.completions
            || indexes.succeeded.contains(index)
            || indexes.failed.contains(index)
        {
            return false;
        }
        let failures = |pod: &Pod| pods::count_of(pod, pods::FAILURES) + pods::count_of(pod, pods::IGNORED);
        let is_later =
            |other: &&Arc<Pod>| pods::index_of(other) == Some(index) && failures(other) > failures(pod);
        !self.pods.iter().any(|other| is_later(&other))
    }

    /// The status after the pods of `freed` have lost their finalizers: their uids become counts.
    fn counted(
        &self,
        noted: &JobStatus,
        freed: &[Arc<Pod>],
        outcome: Option<&Outcome>,
        work: &Work,
        plan: &mut Plan,
    ) -> JobStatus {
        let mut status = noted.clone();
        let freed: BTreeSet<String> = freed.iter().filter_map(|pod| pod.uid()).collect();
        let held: BTreeSet<String> = self
            .pods
            .iter()
            .filter(|pod| self.is_held(pod))
            .filter_map(|pod| pod.uid())
            .filter(|uid| !freed.contains(uid))
            .collect();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let succeeded = settle(&mut uncounted.succeeded, &held);
        let failed = settle(&mut uncounted.failed, &held);
        if self.indexes.is_none() {
            status.succeeded = nonzero_sum(status.succeeded, succeeded);
        }
        status.failed = nonzero_sum(status.failed, failed);
        let ended = held.is_empty() && self.terminating == 0 && self.active_after(work) == 0;
        if let Some(outcome) = outcome.filter(|_| ended && work.deleted.is_empty()) {
            self.finish(&mut status, outcome, plan);
        }
        status
    }

    fn finish(&self, status: &mut JobStatus, outcome: &Outcome, plan: &mut Plan) {
        let known = status.conditions.get_or_insert_default();
        let words = (outcome.reason.as_str(), outcome.message.as_str());
        let job = self.job.object_ref(&());
        if outcome.success {
            conditions::set(known, "Complete", true, words, self.now);
            status.completion_time = Some(Time(self.now));
            plan.event(job, Severity::Normal, "Completed", "Job completed");
        } else {
            conditions::set(known, "Failed", true, words, self.now);
            plan.event(job, Severity::Warning, failure_event(&outcome.reason), outcome.message.clone());
        }
    }
}

/// Event reasons are words that we know; another one can come from a condition that somebody else wrote.
fn failure_event(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "PodFailurePolicy",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

fn note_indexes(status: &mut JobStatus, indexes: &IndexSets, limited: bool) {
    let text = indexes.succeeded.to_string();
    status.completed_indexes = Some(text).filter(|text| !text.is_empty());
    status.succeeded = nonzero(indexes.succeeded.0.len());
    status.failed_indexes = limited.then(|| indexes.failed.to_string());
}

fn extend(uids: &mut Option<Vec<String>>, pods: &[&Arc<Pod>]) {
    if !pods.is_empty() {
        uids.get_or_insert_default().extend(pods.iter().filter_map(|pod| pod.uid()));
    }
}

/// Takes out the uids that nobody holds any more; returns how many.
fn settle(uids: &mut Option<Vec<String>>, held: &BTreeSet<String>) -> i32 {
    let Some(list) = uids else { return 0 };
    let before = list.len();
    list.retain(|uid| held.contains(uid));
    let settled = before - list.len();
    if list.is_empty() {
        *uids = None;
    }
    settled as i32
}

fn nonzero(count: usize) -> Option<i32> {
    (count > 0).then_some(count as i32)
}

fn nonzero_sum(count: Option<i32>, more: i32) -> Option<i32> {
    Some(count.unwrap_or(0) + more).filter(|sum| *sum > 0)
}
