//! DefaultTolerationSeconds: a pod leaves a node that is gone, but not at its first hiccup.

use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Adds the two tolerations, unless the pod says something about the taint itself.
pub fn add(pod: &mut Value, seconds: i64) {
    let given = pod["spec"]["tolerations"].take();
    let mut tolerations = given.as_array().cloned().unwrap_or_default();
    for taint in TAINTS {
        if !tolerations.iter().any(|toleration| covers(toleration, taint)) {
            tolerations.push(json!({
                "key": taint,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": seconds,
            }));
        }
    }
    pod["spec"]["tolerations"] = Value::Array(tolerations);
}

fn covers(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    matches!(text("key"), "") && text("operator") == "Exists" && matches!(text("effect"), "" | "NoExecute")
        || text("key") == taint && matches!(text("effect"), "" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_says_something_keeps_it() {
        let keys = |tolerations: Value| {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            add(&mut pod, 300);
            let added = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            added.iter().filter(|t| t["tolerationSeconds"] == 300).count()
        };
        assert_eq!(keys(Value::Null), 2);
        assert_eq!(keys(json!([{"key": TAINTS[0], "effect": "NoExecute", "operator": "Exists"}])), 1);
        assert_eq!(keys(json!([{"operator": "Exists"}])), 0);
        assert_eq!(keys(json!([{"operator": "Exists", "effect": "NoSchedule"}])), 2);
    }
}
