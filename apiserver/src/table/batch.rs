//! Jobs and cron jobs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{
    AGE, DEFAULT, NAME, NONE, Spec, container_images, container_names, field, int, items, join_of, number,
    or, selector, str_at, text,
};

pub(super) fn columns(kind: &str) -> &'static [Spec] {
    match kind {
        "Job" => JOB,
        "CronJob" => CRON_JOB,
        _ => DEFAULT,
    }
}

const JOB: &[Spec] = &[
    NAME,
    text("Status", "How it stands.", status),
    text("Completions", "Finished pods of those asked for.", completions),
    text("Duration", "From its start to its end, or to now.", duration),
    AGE,
    text("Containers", "Names of the containers in the template.", container_names).wide(),
    text("Images", "Images of the containers in the template.", container_images).wide(),
    text("Selector", "Which pods belong to it.", selector).wide(),
];
const CRON_JOB: &[Spec] = &[
    NAME,
    field("Schedule", "When jobs are made.", "/spec/schedule"),
    text("Timezone", "Of the schedule.", |object, _| or(str_at(object, "/spec/timeZone"), NONE)),
    text("Suspend", "Whether no jobs are made.", |object, _| {
        json!(if object.pointer("/spec/suspend") == Some(&Value::Bool(true)) { "True" } else { "False" })
    }),
    number("Active", "Jobs that are running.", |object, _| json!(items(object, "/status/active").len())),
    text("Last Schedule", "When the last job was made.", last_schedule),
    AGE,
    text("Containers", "Names of the containers in the template.", |object, _| {
        json!(join_of(items(object, "/spec/jobTemplate/spec/template/spec/containers"), "/name"))
    })
    .wide(),
    text("Images", "Images of the containers in the template.", |object, _| {
        json!(join_of(items(object, "/spec/jobTemplate/spec/template/spec/containers"), "/image"))
    })
    .wide(),
    text("Selector", "Which pods belong to it.", selector).wide(),
];

fn has_condition(job: &Value, kind: &str) -> bool {
    items(job, "/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
}

fn status(job: &Value, _now: Timestamp) -> Value {
    let by_condition = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    if let Some((_, shown)) = by_condition.iter().find(|(kind, _)| has_condition(job, kind)) {
        return json!(shown);
    }
    json!(if job.pointer("/metadata/deletionTimestamp").is_some() { "Terminating" } else { "Running" })
}

fn completions(job: &Value, _now: Timestamp) -> Value {
    let done = int(job, "/status/succeeded");
    json!(match (job.pointer("/spec/completions"), int(job, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    })
}

fn duration(job: &Value, now: Timestamp) -> Value {
    let time = |pointer: &str| api::time::from_value(job.pointer(pointer));
    match (time("/status/startTime"), time("/status/completionTime")) {
        (None, _) => json!(""),
        (Some(start), end) => json!(api::time::age(start, end.unwrap_or(now))),
    }
}

fn last_schedule(job: &Value, now: Timestamp) -> Value {
    match api::time::from_value(job.pointer("/status/lastScheduleTime")) {
        Some(time) => json!(api::time::age(time, now)),
        None => json!(NONE),
    }
}
