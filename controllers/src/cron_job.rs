//! CronJob: starts a Job at each time of a schedule.
//!
//! What always holds: a run's Job is named after its minute, so no second look, crash or second controller starts
//! it twice; the list of active Jobs is worked out from the Jobs themselves. Of several missed runs only the latest
//! is made up for. Upstream's `pkg/controller/cronjob` gives the rules and the words.

mod history;
mod schedule;

use crate::{
    expectations::Pending,
    job, owner,
    plan::{Action, Plan, Severity, Target, to_value},
};
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt, api::PropagationPolicy, core::ApiResource};
use schedule::{Due, Timetable};
use serde_json::{Value, json};
use std::sync::Arc;

/// When the run was due, in the CronJob's time zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The Jobs that it controls.
    pub jobs: Vec<Arc<Job>>,
    /// Our own writes that `jobs` doesn't show yet.
    pub pending: Pending,
}

/// What to do for `cron` now.
pub fn reconcile(cron: &CronJob, view: &Snapshot, now: Timestamp) -> Plan {
    let mut look =
        Look { cron, view, now, plan: Plan::nothing(), status: cron.status.clone().unwrap_or_default() };
    history::clean_up(cron, &view.jobs, &mut look.plan);
    look.note_jobs();
    let ends = cron.metadata.deletion_timestamp.is_some();
    // A run that the cache doesn't show yet may forbid the next one.
    if !ends && cron.spec.suspend != Some(true) && view.pending.unseen(&view.jobs) == 0 {
        look.start_what_is_due();
    }
    look.finish()
}

struct Look<'a> {
    cron: &'a CronJob,
    view: &'a Snapshot,
    now: Timestamp,
    plan: Plan,
    status: CronJobStatus,
}

impl Look<'_> {
    fn event(&mut self, severity: Severity, event: &'static str, message: String) {
        self.plan.event(self.cron.object_ref(&()), severity, event, message);
    }

    /// Which runs are active, and when one last succeeded.
    fn note_jobs(&mut self) {
        let known = self.status.active.take().unwrap_or_default();
        let mut active = Vec::new();
        for job in self.view.jobs.clone() {
            let was_active = known.iter().any(|reference| reference.uid == job.uid());
            match job::is_finished(&job) {
                true if was_active => self.ended(&job),
                true => {}
                false if was_active || is_scheduled(&job) => active.push(reference(&job)),
                false => {
                    let message =
                        format!("Saw a job that the controller did not create or forgot: {}", job.name_any());
                    self.event(Severity::Warning, "UnexpectedJob", message);
                }
            }
            self.succeeded(&job);
        }
        let exists = |uid: &Option<String>| self.view.jobs.iter().any(|job| job.uid() == *uid);
        let missing: Vec<String> = known
            .iter()
            .filter(|reference| !exists(&reference.uid))
            .filter_map(|reference| reference.name.clone())
            .collect();
        for name in missing {
            self.event(Severity::Normal, "MissingJob", format!("Active job went missing: {name}"));
        }
        self.status.active = (!active.is_empty()).then_some(active);
    }

    fn ended(&mut self, job: &Job) {
        let condition = if job::is_complete(job) { "Complete" } else { "Failed" };
        let message = format!("Saw completed job: {}, condition: {condition}", job.name_any());
        self.event(Severity::Normal, "SawCompletedJob", message);
    }

    fn succeeded(&mut self, job: &Job) {
        let end = job.status.as_ref().and_then(|status| status.completion_time.as_ref()).map(|time| time.0);
        let last = self.status.last_successful_time.as_ref().map(|time| time.0);
        if job::is_complete(job) && end > last {
            self.status.last_successful_time = end.map(Time);
        }
    }

    fn start_what_is_due(&mut self) {
        let timetable = match Timetable::of(self.cron) {
            Ok(timetable) => timetable,
            Err((event, message)) => return self.event(Severity::Warning, event, message),
        };
        if let Some(next) = timetable.next_after(self.now) {
            self.plan.look_again(next);
        }
        let Due { latest: Some(due), many } = timetable.due(self.cron, self.now) else { return };
        if many {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.event(Severity::Warning, "TooManyMissedTimes", message.to_owned());
        }
        if self.is_too_late(due) {
            let message =
                format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %T +0000"));
            return self.event(Severity::Warning, "MissSchedule", message);
        }
        self.start(due, &timetable.zone);
    }

    fn is_too_late(&self, due: Timestamp) -> bool {
        let deadline = self.cron.spec.starting_deadline_seconds;
        deadline.is_some_and(|seconds| due + jiff::SignedDuration::from_secs(seconds) < self.now)
    }

    fn start(&mut self, due: Timestamp, zone: &TimeZone) {
        let name = format!("{}-{}", self.cron.name_any(), due.as_second() / 60);
        if self.view.jobs.iter().any(|job| job.name_any() == name) {
            // It was started, and we died before we could say so.
            self.status.last_schedule_time = Some(Time(due));
            return;
        }
        let active: Vec<Arc<Job>> = self
            .view
            .jobs
            .iter()
            .filter(|job| is_scheduled(job) && !job::is_finished(job))
            .cloned()
            .collect();
        match self.cron.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.event(Severity::Normal, "JobAlreadyActive", message.to_owned());
            }
            Some("Replace") => active.iter().for_each(|job| self.replace(job)),
            _ => {}
        }
        self.create(due, zone, &name);
    }

    fn replace(&mut self, job: &Job) {
        self.plan.push(delete(job, "a new run replaces it"));
        self.event(Severity::Normal, "SuccessfulDelete", format!("Deleted job {}", job.name_any()));
        let uid = job.uid();
        self.status.active.iter_mut().for_each(|active| active.retain(|reference| reference.uid != uid));
    }

    fn create(&mut self, due: Timestamp, zone: &TimeZone, name: &str) {
        if let Some(failure) = self.view.pending.failure.clone() {
            self.event(Severity::Warning, "FailedCreate", format!("Error creating job: {failure}"));
        }
        self.plan.push(Action::Create {
            kind: ApiResource::erase::<Job>(&()),
            object: job_of(self.cron, due, zone, name),
            announce: None,
            reason: format!("it is due at {due}"),
        });
        self.event(Severity::Normal, "SuccessfulCreate", format!("Created job {name}"));
        self.status.last_schedule_time = Some(Time(due));
    }

    fn finish(mut self) -> Plan {
        let old = self.cron.status.clone().unwrap_or_default();
        if self.status.active.as_ref().is_some_and(Vec::is_empty) {
            self.status.active = None;
        }
        self.plan.status(Target::of(self.cron), &old, &self.status, "status");
        self.plan
    }
}

/// True for Jobs that the schedule started, not people.
fn is_scheduled(job: &Job) -> bool {
    job.annotations().contains_key(SCHEDULED)
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference { resource_version: job.resource_version(), ..job.object_ref(&()) }
}

fn delete(job: &Job, reason: &str) -> Action {
    Action::Delete {
        target: Target::of(job).in_any_state(),
        propagation: Some(PropagationPolicy::Background),
        grace: None,
        announce: None,
        reason: reason.to_owned(),
    }
}

fn job_of(cron: &CronJob, due: Timestamp, zone: &TimeZone, name: &str) -> Value {
    let template = &cron.spec.job_template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let local = due.to_zoned(zone.clone());
    let written = match local.offset().is_zero() {
        true => local.strftime("%Y-%m-%dT%H:%M:%SZ"),
        false => local.strftime("%Y-%m-%dT%H:%M:%S%:z"),
    };
    annotations.insert(SCHEDULED.to_owned(), written.to_string());
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "namespace": cron.namespace(),
            "name": name,
            "labels": metadata.labels,
            "annotations": annotations,
            "ownerReferences": [owner::controller_reference(cron)],
        },
        "spec": to_value(&template.spec),
    })
}
