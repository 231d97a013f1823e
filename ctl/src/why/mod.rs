//! `why`: the reason for an object's present state, as a function from what a cluster holds to an [`Answer`].
//!
//! Nothing here asks a server; [`View`] is what the verb fetched, now or as it was at a revision. Where a pod
//! goes is asked of the scheduler's own rules, so the answer is the scheduler's, against any API server. A
//! change that is said to help was tried on a copy of the cluster before it is said.

mod answer;
mod budget;
mod change;
mod claim;
mod job;
mod placement;
mod pod;
mod preemption;
mod rollout;
mod service;
mod terminating;
mod view;

use jiff::Timestamp;
use serde_json::Value;

pub use self::answer::Answer;
pub use self::pod::Decision;
pub use self::view::{NEEDED, View};

/// What is asked about: an object, what surrounds it, and what was decided about it once.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The object.
    pub object: &'a Value,
    /// The cluster now.
    pub view: &'a View,
    /// The scheduler's decision about a pod, if the API server keeps the past.
    pub decision: Option<&'a Decision>,
    /// Now.
    pub now: Timestamp,
}

/// Why the object is as it is.
pub fn why(question: Question<'_>) -> Answer {
    let Question { object, view, now, .. } = question;
    if api::object::is_deleting(object) {
        return terminating::why(object, view, now);
    }
    match api::object::kind(object) {
        "Pod" => pod::why(question),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController" => {
            rollout::why(question)
        }
        "Job" => job::why(question),
        "PersistentVolumeClaim" => claim::why(object, view),
        "Service" => service::why(object, view),
        _ => conditions(object, view, now),
    }
}

/// Whether every object in the object's way must be known: only then all kinds are listed.
pub fn needs_all_kinds(object: &Value) -> bool {
    api::object::is_deleting(object) && terminating::waits_for_dependents(object)
}

/// Of any other kind: what its conditions and the newest warnings say.
fn conditions(object: &Value, view: &View, now: Timestamp) -> Answer {
    let bad = view::conditions(object).filter(|condition| condition["status"] != "True");
    let mut told: Vec<String> = bad.map(told_condition).collect();
    let mut answer = Answer::about(object, "has no condition that says something is wrong");
    if let Some(first) = told.first() {
        answer.verdict = format!("says {first}");
    }
    answer.lines("Conditions that aren't True", std::mem::take(&mut told));
    answer.events(object, view, now);
    answer
}

fn told_condition(condition: &Value) -> String {
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    let message = if text("message").is_empty() { text("reason") } else { text("message") };
    format!("{} is {}: {message}", text("type"), text("status")).trim_end_matches(": ").to_owned()
}

#[cfg(test)]
mod tests;
