//! Why a Job doesn't start, or doesn't end.

use jiff::Timestamp;
use serde_json::Value;

use super::Question;
use super::answer::Answer;
use super::pod;
use super::view::{View, condition, number, text};

/// Why the Job is as it is.
pub fn why(question: Question<'_>) -> Answer {
    let Question { object: job, view, now, .. } = question;
    let mut answer = Answer::about(job, "");
    let pods: Vec<&Value> = view.controlled("Pod", job).collect();
    answer.verdict =
        ended(job).or_else(|| held(&mut answer, job)).unwrap_or_else(|| going(job, &pods, view, now));
    let row = |pod: &&Value| vec![api::object::name(pod).to_owned(), pod::in_short(pod, view, now)];
    let unfinished = pods.iter().filter(|pod| text(pod, "/status/phase") != "Succeeded");
    answer.table("Pods", &["POD", "WHY"], unfinished.map(row).collect());
    answer.events(job, view, now);
    answer
}

fn ended(job: &Value) -> Option<String> {
    let condition = |name: &str| condition(job, name).filter(|said| said["status"] == "True");
    if let Some(failed) = condition("Failed").or_else(|| condition("FailureTarget")) {
        return Some(format!("failed ({}): {}", text(failed, "/reason"), text(failed, "/message")));
    }
    condition("Complete").map(|_| format!("is complete: {} pods succeeded", number(job, "/status/succeeded")))
}

fn held(answer: &mut Answer, job: &Value) -> Option<String> {
    let manager = text(job, "/spec/managedBy");
    if !matches!(manager, "" | "kubernetes.io/job-controller") {
        return Some(format!("is managed by {manager}: the job controller leaves it alone"));
    }
    (job["spec"]["suspend"] == true).then(|| {
        let (namespace, name) = (api::object::namespace(job), api::object::name(job));
        let patch = "'{\"spec\":{\"suspend\":false}}'";
        let command = format!("kubectl -n {namespace} patch job {name} --type=merge -p {patch}");
        answer.fix("resume it", Some(command), "then its pods are made");
        "is suspended (spec.suspend is true): no pod is made".to_owned()
    })
}

fn going(job: &Value, pods: &[&Value], view: &View, now: Timestamp) -> String {
    let (active, succeeded, failed) =
        (number(job, "/status/active"), number(job, "/status/succeeded"), number(job, "/status/failed"));
    let wanted =
        job["spec"]["completions"].as_i64().map_or_else(|| "all".to_owned(), |count| count.to_string());
    let counts = format!("{succeeded} of {wanted} succeeded, {failed} failed, {active} active");
    if let Some(refusal) = view.newest_event(job, "FailedCreate").filter(|_| pods.is_empty()) {
        return format!("can't make its pods: {refusal}");
    }
    let troubled = pods.iter().find(|pod| {
        !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") && !super::view::is_true(pod, "Ready")
    });
    match troubled {
        Some(pod) => {
            let why = pod::in_short(pod, view, now);
            format!("goes on ({counts}), but pod {} {why}", api::object::name(pod))
        }
        None if active == 0 && failed > 0 => {
            let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(6);
            format!("waits before it tries again ({counts}; it gives up after {limit} failures)")
        }
        None if pods.is_empty() => format!("has no pods yet ({counts})"),
        None => format!("goes on: {counts}"),
    }
}
