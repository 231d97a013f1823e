//! Which taints a node's state asks for.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Condition, the status that taints, the taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// `current` with exactly the NoSchedule taints of this controller that the conditions ask for.
pub fn no_schedule(
    node: &Node,
    conditions: &[NodeCondition],
    current: &[Taint],
    now: Timestamp,
) -> Vec<Taint> {
    let holds = |type_: &str, status: &str| {
        conditions.iter().any(|condition| condition.type_ == type_ && condition.status == status)
    };
    let mut keys: Vec<&str> = BY_CONDITION
        .iter()
        .filter(|(type_, status, _)| holds(type_, status))
        .map(|(_, _, key)| *key)
        .collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        keys.push(UNSCHEDULABLE);
    }
    let ours = |taint: &Taint| {
        taint.effect == NO_SCHEDULE
            && (taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key))
    };
    let mut taints: Vec<Taint> =
        current.iter().filter(|taint| !ours(taint) || keys.contains(&taint.key.as_str())).cloned().collect();
    let missing: Vec<Taint> = keys
        .into_iter()
        .filter(|key| !has(&taints, key, NO_SCHEDULE))
        .map(|key| new(key, NO_SCHEDULE, now))
        .collect();
    taints.extend(missing);
    taints
}

/// The taint that evicts pods from a node whose Ready condition has this status.
pub fn evicting(ready: Option<&str>) -> Option<&'static str> {
    match ready {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    }
}

/// True if pods are being evicted by this controller.
pub fn has_evicting(taints: &[Taint]) -> bool {
    has(taints, NOT_READY, NO_EXECUTE) || has(taints, UNREACHABLE, NO_EXECUTE)
}

/// Leaves exactly this evicting taint of the two.
pub fn keep_evicting(key: Option<&str>, taints: &mut Vec<Taint>, now: Timestamp) {
    let ours =
        |taint: &Taint| taint.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    taints.retain(|taint| !ours(taint) || Some(taint.key.as_str()) == key);
    if let Some(key) = key
        && !has(taints, key, NO_EXECUTE)
    {
        taints.push(new(key, NO_EXECUTE, now));
    }
}

fn has(taints: &[Taint], key: &str, effect: &str) -> bool {
    taints.iter().any(|taint| taint.key == key && taint.effect == effect)
}

fn new(key: &str, effect: &str, now: Timestamp) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added: Some(Time(now)) }
}
