//! Defaults of jobs and cron jobs.

use serde_json::{Value, json};

use super::fields::Defaults;
use super::pods::pod_template;

pub(super) fn job(job: &mut Value) {
    job.map("status");
    let labels = job.pointer("/spec/template/metadata/labels").cloned();
    if let Some(labels) = labels
        && job.pointer("/metadata/labels").is_none()
    {
        job.within("metadata", |metadata| metadata.set("labels", labels));
    }
    job.under("spec", |spec| {
        // Without either number it is one pod; a number of completions alone runs one at a time.
        if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
            spec.set("completions", json!(1));
        }
        spec.or_insert("parallelism", 1);
        let per_index = spec.get("backoffLimitPerIndex").is_some();
        spec.or_insert("backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
        spec.text("completionMode", "NonIndexed");
        spec.or_insert("suspend", false);
        spec.or_insert("manualSelector", false);
        let replacement =
            if spec.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
        spec.text("podReplacementPolicy", replacement);
        spec.within("podFailurePolicy", |policy| {
            policy.each("rules", |rule| {
                rule.each("onPodConditions", |condition| condition.text("status", "True"));
            });
        });
        spec.under("template", pod_template);
    });
}

pub(super) fn cron_job(cron_job: &mut Value) {
    cron_job.map("status");
    cron_job.under("spec", |spec| {
        spec.text("concurrencyPolicy", "Allow");
        spec.or_insert("suspend", false);
        spec.or_insert("successfulJobsHistoryLimit", 3);
        spec.or_insert("failedJobsHistoryLimit", 1);
        // The job's own defaults come when it is made.
        spec.under("jobTemplate", |job| job.under("spec", |spec| spec.under("template", pod_template)));
    });
}
