//! Job: runs pods until enough of them have succeeded, or too many have failed.
//!
//! What always holds: each pod is counted exactly once. A pod carries a finalizer until it is counted: first its
//! uid is noted in `status.uncountedTerminatedPods`, then the finalizer goes, then uid and counter change in one
//! write; a crash between any two is made good by the next look. Completed indexes are a set and need no note.
//! Failed and Complete come last, when no pod runs any more and all are counted. Upstream's `pkg/controller/job`
//! gives the rules and the words. Beyond upstream: a retry prefers nodes on which no attempt failed, and an
//! Indexed Job may ask for second copies of its stragglers.

mod conditions;
mod indexes;
mod outcome;
mod pods;
mod policy;
mod report;
mod straggler;
mod workload;

use crate::{
    expectations::Pending,
    owner,
    plan::{Action, Part, Plan, Target},
    pod::{self, Pod},
};
use api::selector::LabelSelector;
use indexes::Indexes;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use kube::{ResourceExt, api::PropagationPolicy};
use outcome::Outcome;
pub use pods::ended_at;
use policy::Verdict;
use std::{collections::BTreeSet, sync::Arc};

/// The finalizer of pods that aren't counted yet.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod's completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const OURSELVES: &str = "kubernetes.io/job-controller";

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The Job's pods, and those that nobody controls.
    pub pods: Vec<Arc<Pod>>,
    /// Our own writes that `pods` doesn't show yet.
    pub pending: Pending,
}

/// True if it has failed or is complete.
pub fn is_finished(job: &Job) -> bool {
    finished_at(job).is_some()
}

/// When it failed or was complete; the epoch's start if it doesn't say.
pub fn finished_at(job: &Job) -> Option<Timestamp> {
    let condition = ["Complete", "Failed"].into_iter().find_map(|type_| conditions::is_true(job, type_))?;
    Some(condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// True if the Job completed (rather than failed).
pub fn is_complete(job: &Job) -> bool {
    conditions::is_true(job, "Complete").is_some()
}

/// True if the pod is held until a Job has counted it.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|name| name == TRACKING)
}

fn is_ours(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_none_or(|manager| manager == OURSELVES)
}

/// What to do for `job` now.
pub fn reconcile(job: &Job, view: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(spec) = job.spec.as_ref().filter(|spec| is_ours(spec) && !is_finished(job)) else { return plan };
    // The API server has made the selector, or checked it.
    let selector = spec.selector.as_ref().and_then(|selector| LabelSelector::from_object(selector).ok());
    let Some(selector) = selector else { return plan };
    let claimed = owner::claim_holding(job, &selector, &view.pods, Some(TRACKING), &mut plan);
    let look = Look::new(job, spec, claimed, &view.pending, now);
    if job.metadata.deletion_timestamp.is_some() {
        look.pods
            .iter()
            .filter(|pod| look.is_held(pod))
            .for_each(|pod| release(pod, "its Job is deleted", &mut plan));
        return plan;
    }
    let outcome = look.outcome();
    let work = look.work(outcome.as_ref());
    let report = look.report(outcome, &work);
    // A refused create drops the rest of a plan, so a known refusal is told before the next attempt.
    let refused = view.pending.failure.is_some();
    let (first, second) = if refused { (report, work.actions) } else { (work.actions, report) };
    plan.actions.extend(first.into_iter().chain(second));
    look.deadlines(work.again).into_iter().for_each(|when| plan.look_again(when));
    plan
}

/// A pod whose Job is gone, or has ended, must not be held any longer. `job` is the one of the pod's owner
/// reference, if it exists.
pub fn release_pod(pod: &Pod, job: Option<&Job>) -> Plan {
    let mut plan = Plan::nothing();
    let Some(owner) = owner::controller_of(pod).filter(|owner| owner.kind == "Job") else {
        if owner::controller_of(pod).is_none() && is_tracked(pod) && pod::is_terminating(pod) {
            release(pod, "no Job will count it", &mut plan);
        }
        return plan;
    };
    let job = job.filter(|job| job.uid().as_deref() == Some(&owner.uid));
    if !is_tracked(pod) || job.is_some_and(|job| !is_finished(job)) {
        return plan;
    }
    if job.is_none() {
        let namespace = pod.namespace().unwrap_or_default();
        let kind = kube::core::ApiResource::erase::<Job>(&());
        plan.push(Action::Confirm {
            target: Target::named(kind, &namespace, &owner.name, &owner.uid),
            expected: crate::plan::Presence::Gone,
            reason: "a Job that a late cache doesn't show still counts its pods".to_owned(),
        });
    }
    release(pod, "its Job counts no more", &mut plan);
    plan
}

/// Deletes a finished Job when its time to live is over; its pods go first.
pub fn expire(job: &Job, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let (Some(ttl), Some(finished)) = (ttl, finished_at(job)) else { return plan };
    if job.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let end = finished + jiff::SignedDuration::from_secs(ttl.into());
    if end > now {
        plan.look_again(end);
        return plan;
    }
    plan.push(Action::Delete {
        target: Target::of(job),
        propagation: Some(PropagationPolicy::Foreground),
        grace: None,
        announce: None,
        reason: format!("it finished {ttl} s ago"),
    });
    plan
}

fn release(pod: &Pod, reason: &str, plan: &mut Plan) {
    plan.patch(Target::of(pod), Part::Whole, pods::without_tracking(pod), reason);
}

/// One look at one Job.
struct Look<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pending: &'a Pending,
    now: Timestamp,
    /// All its pods, finished ones, too.
    pods: Vec<Arc<Pod>>,
    /// Those that neither ended nor are being deleted.
    active: Vec<Arc<Pod>>,
    /// How many are being deleted and haven't ended.
    terminating: usize,
    /// Ended pods that were neither counted nor noted.
    succeeded: Vec<Arc<Pod>>,
    /// The same for failed ones, with what the policy says about each.
    failed: Vec<(Arc<Pod>, Verdict)>,
    /// Set for Indexed Jobs.
    indexes: Option<IndexSets>,
}

/// The indexes of an Indexed Job.
struct IndexSets {
    completions: i32,
    succeeded: Indexes,
    failed: Indexes,
}

impl<'a> Look<'a> {
    fn new(
        job: &'a Job,
        spec: &'a JobSpec,
        pods: Vec<Arc<Pod>>,
        pending: &'a Pending,
        now: Timestamp,
    ) -> Look<'a> {
        let ending = |pod: &Pod| {
            pod::is_terminating(pod) || pod.uid().is_some_and(|uid| pending.deleted.contains(&uid))
        };
        let active =
            pods.iter().filter(|pod| !pod::is_terminal(pod) && !ending(pod)).cloned().collect::<Vec<_>>();
        let terminating = pods.iter().filter(|pod| !pod::is_terminal(pod) && ending(pod)).count();
        let (succeeded, failed) = (Vec::new(), Vec::new());
        let mut look =
            Look { job, spec, pending, now, pods, active, terminating, succeeded, failed, indexes: None };
        look.find_ended();
        look.indexes = look.index_sets();
        look
    }

    fn find_ended(&mut self) {
        let status = self.status();
        let noted = status.uncounted_terminated_pods.unwrap_or_default();
        let noted: BTreeSet<String> = noted.succeeded.into_iter().chain(noted.failed).flatten().collect();
        let fresh = |pod: &&Arc<Pod>| self.is_held(pod) && pod.uid().is_some_and(|uid| !noted.contains(&uid));
        let fresh: Vec<Arc<Pod>> = self.pods.iter().filter(fresh).cloned().collect();
        self.succeeded = fresh.iter().filter(|pod| pod::phase(pod) == "Succeeded").cloned().collect();
        let failed = fresh.iter().filter(|pod| self.has_failed(pod));
        self.failed = failed.map(|pod| (pod.clone(), policy::verdict(self.spec, pod))).collect();
    }

    /// True while the finalizer waits for us; our own removal counts although the cache doesn't show it yet.
    fn is_held(&self, pod: &Pod) -> bool {
        is_tracked(pod) && pod.uid().is_some_and(|uid| !self.pending.patched.contains(&uid))
    }

    /// A pod that is being deleted has failed at once, unless only ended ones may be replaced.
    fn has_failed(&self, pod: &Pod) -> bool {
        match pod::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pod::is_terminating(pod) && !self.replaces_only_ended(),
        }
    }

    fn replaces_only_ended(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn index_sets(&self) -> Option<IndexSets> {
        let completions =
            self.spec.completions.filter(|_| self.spec.completion_mode.as_deref() == Some("Indexed"))?;
        let status = self.status();
        let mut succeeded = Indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), completions);
        let valid = |pod: &Pod| pods::index_of(pod).filter(|index| *index < completions);
        succeeded.0.extend(self.succeeded.iter().filter_map(|pod| valid(pod)));
        let mut failed = Indexes::parse(status.failed_indexes.as_deref().unwrap_or(""), completions);
        if let Some(limit) = self.spec.backoff_limit_per_index {
            let beyond = self.failed.iter().filter(|(pod, verdict)| fails_index(pod, verdict, limit));
            failed.0.extend(beyond.filter_map(|(pod, _)| valid(pod)));
        }
        failed.0.retain(|index| !succeeded.contains(*index));
        Some(IndexSets { completions, succeeded, failed })
    }

    /// Successes, counted or not.
    fn succeeded_total(&self) -> i32 {
        match &self.indexes {
            Some(indexes) => indexes.succeeded.count(),
            None => {
                let status = self.status();
                let noted =
                    status.uncounted_terminated_pods.and_then(|pods| pods.succeeded).unwrap_or_default();
                status.succeeded.unwrap_or(0) + (noted.len() + self.succeeded.len()) as i32
            }
        }
    }

    /// Failures, counted or not, without those that the policy ignores.
    fn failed_total(&self) -> i32 {
        let status = self.status();
        let noted = status.uncounted_terminated_pods.and_then(|pods| pods.failed).unwrap_or_default();
        let fresh = self.failed.iter().filter(|(_, verdict)| *verdict != Verdict::Ignore).count();
        status.failed.unwrap_or(0) + (noted.len() + fresh) as i32
    }

    /// Failures of an index before its next pod: counted and ignored ones.
    fn failures_of(&self, index: i32) -> (i32, i32) {
        let failed = self.failed.iter().filter(|(pod, _)| pods::index_of(pod) == Some(index));
        let counts = failed.map(|(pod, verdict)| {
            let ignored = i32::from(*verdict == Verdict::Ignore);
            (pods::count_of(pod, pods::FAILURES) + 1 - ignored, pods::count_of(pod, pods::IGNORED) + ignored)
        });
        counts.max_by_key(|(counted, ignored)| counted + ignored).unwrap_or((0, 0))
    }
}

fn fails_index(pod: &Pod, verdict: &Verdict, limit: i32) -> bool {
    match verdict {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        Verdict::Count | Verdict::FailJob(_) => pods::count_of(pod, pods::FAILURES) >= limit,
    }
}
