//! TaintNodesByCondition: a new node gets nothing to run before it has proved to be ready.

use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Adds the taint that the node lifecycle controller takes off.
pub fn add(node: &mut Value) {
    let given = node["spec"]["taints"].take();
    let mut taints = given.as_array().cloned().unwrap_or_default();
    if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
    node["spec"]["taints"] = Value::Array(taints);
}
