//! Pods: what `kubectl get pods` says about a pod's life in one word.

use api::pod::summary;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, NONE, Spec, items, or, str_at, text};

pub(super) const COLUMNS: &[Spec] = &[
    NAME,
    text("Ready", "Ready containers of all containers.", ready),
    text("Status", "The state of the pod and its containers in one word.", |pod, _| {
        json!(summary(pod).status)
    }),
    text("Restarts", "How often containers were restarted, and when last.", |pod, now| {
        json!(summary(pod).restarts_text(now))
    }),
    AGE,
    text("IP", "The pod's address.", pod_ip).wide(),
    text("Node", "The node that the pod is bound to.", |pod, _| or(str_at(pod, "/spec/nodeName"), NONE))
        .wide(),
    text("Nominated Node", "The node that is being cleared for the pod.", |pod, _| {
        or(str_at(pod, "/status/nominatedNodeName"), NONE)
    })
    .wide(),
    text("Readiness Gates", "Conditions that hold of those asked for.", readiness_gates).wide(),
];

fn ready(pod: &Value, _now: Timestamp) -> Value {
    let summary = summary(pod);
    json!(format!("{}/{}", summary.ready, summary.total))
}

fn pod_ip(pod: &Value, _now: Timestamp) -> Value {
    let first = str_at(pod, "/status/podIPs/0/ip");
    or(if first.is_empty() { str_at(pod, "/status/podIP") } else { first }, NONE)
}

fn readiness_gates(pod: &Value, _now: Timestamp) -> Value {
    let gates = items(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return json!(NONE);
    }
    let hold = gates.iter().filter(|gate| has_condition(pod, str_at(gate, "/conditionType"))).count();
    json!(format!("{hold}/{}", gates.len()))
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    let conditions = items(pod, "/status/conditions");
    conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Marks the rows of pods that have ended, for clients that hide those.
pub(super) fn row_conditions(object: &Value) -> Vec<Value> {
    let ended = match (object["kind"].as_str(), str_at(object, "/status/phase")) {
        (Some("Pod"), "Succeeded") => ("Succeeded", "The pod has completed successfully."),
        (Some("Pod"), "Failed") => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({ "type": "Completed", "status": "True", "reason": ended.0, "message": ended.1 })]
}
