//! Finished Jobs beyond the history limits are deleted, oldest first.

use crate::{
    job,
    plan::{Plan, Severity},
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{Resource, ResourceExt};
use std::sync::Arc;

/// Deletes what is too old of `jobs`. Upstream's defaults: 3 that succeeded, 1 that failed.
pub fn clean_up(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let finished = |complete: bool| -> Vec<Arc<Job>> {
        let fits = |job: &&Arc<Job>| job::is_finished(job) && job::is_complete(job) == complete;
        jobs.iter().filter(fits).cloned().collect()
    };
    keep_latest(cron, finished(true), cron.spec.successful_jobs_history_limit.unwrap_or(3), plan);
    keep_latest(cron, finished(false), cron.spec.failed_jobs_history_limit.unwrap_or(1), plan);
}

fn keep_latest(cron: &CronJob, mut jobs: Vec<Arc<Job>>, limit: i32, plan: &mut Plan) {
    let start = |job: &Arc<Job>| {
        let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        (start, job.creation_timestamp().map(|time| time.0), job.name_any())
    };
    jobs.sort_by_key(start);
    let surplus = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for job in jobs.iter().take(surplus).filter(|job| job.metadata.deletion_timestamp.is_none()) {
        plan.push(super::delete(job, "older than the history goes back"));
        let message = format!("Deleted job {}", job.name_any());
        plan.event(cron.object_ref(&()), Severity::Normal, "SuccessfulDelete", message);
    }
}
