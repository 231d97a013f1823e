//! Pod: born Pending, deleted with grace once it has a node.

use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use serde_json::{Value, json};

use super::set;
use crate::registry::strategy::{Strategy, Traits};

/// The strategy of pods.
pub struct Pod;

impl Strategy for Pod {
    fn traits(&self) -> Traits {
        Traits::COUNTED_OBJECT
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"phase": "Pending"}));
    }

    fn finish_create(&self, object: &mut Value) {
        // A spec that is none is refused by validation right after this.
        if let Ok(spec) = core::PodSpec::deserialize(&object["spec"]) {
            object["status"]["qosClass"] = json!(api::pod::qos_class(&spec).as_str());
        }
    }

    /// A pod without a node or with nothing left running goes at once; otherwise its own grace counts
    /// unless the caller names one.
    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> i64 {
        let own = || object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(0);
        let running = !matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let scheduled = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
        match asked.unwrap_or_else(own) {
            _ if !scheduled || !running => 0,
            seconds if seconds < 0 => 1,
            seconds => seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_for_running_pods() {
        let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
        let cases = [
            (pod("", "Pending"), Some(10), 0),
            (pod("n1", "Succeeded"), None, 0),
            (pod("n1", "Running"), None, 30),
            (pod("n1", "Running"), Some(5), 5),
            (pod("n1", "Running"), Some(-1), 1),
            (pod("n1", "Running"), Some(0), 0),
        ];
        for (pod, asked, expected) in cases {
            assert_eq!(Pod.grace_seconds(&pod, asked), expected, "{pod} asked {asked:?}");
        }
    }
}
