//! From a kubelet's summary to NodeMetrics and PodMetrics. No I/O.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resource_metrics::GROUP;

/// The time that rates are taken over, as the node agent samples.
const WINDOW: &str = "10s";

/// What one node says.
#[derive(Debug, PartialEq)]
pub struct Summary {
    node: Usage,
    pods: HashMap<String, Vec<(String, Usage)>>,
}

/// Billionths of a core, bytes, and when.
#[derive(Clone, Debug, PartialEq)]
struct Usage {
    cpu: u64,
    memory: u64,
    time: String,
}

impl Usage {
    /// `None` while one of the numbers isn't known, which is so at the start.
    fn of(stats: &Value, now: Timestamp) -> Option<Self> {
        let cpu = stats["cpu"]["usageNanoCores"].as_u64()?;
        let memory = stats["memory"]["workingSetBytes"].as_u64()?;
        let told = stats["cpu"]["time"].as_str().filter(|time| api::time::parse(time).is_some());
        Some(Self { cpu, memory, time: told.map_or_else(|| api::time::rfc3339(now), str::to_owned) })
    }

    /// As the API writes it.
    fn to_json(&self) -> Value {
        json!({ "cpu": format!("{}n", self.cpu), "memory": format!("{}Ki", self.memory >> 10) })
    }
}

impl Summary {
    /// Reads the body of `/stats/summary`; `None` if the node itself isn't measured yet.
    pub fn parse(summary: &Value, now: Timestamp) -> Option<Self> {
        let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let container = |stats: &Value| Some((stats["name"].as_str()?.to_owned(), Usage::of(stats, now)?));
        let pod = |stats: &Value| {
            let containers: Option<Vec<_>> = items(&stats["containers"]).iter().map(container).collect();
            // A pod that is measured in part would look as if it used less.
            let containers = containers.filter(|containers| !containers.is_empty())?;
            Some((stats["podRef"]["uid"].as_str()?.to_owned(), containers))
        };
        let pods = items(&summary["pods"]).iter().filter_map(pod).collect();
        Some(Self { node: Usage::of(&summary["node"], now)?, pods })
    }
}

/// The metrics of a node.
pub fn node_metrics(node: &Value, summary: &Summary) -> Option<Value> {
    let mut metrics = head("NodeMetrics", node, &summary.node);
    metrics["usage"] = summary.node.to_json();
    Some(metrics)
}

/// The metrics of a pod; `None` if its node hasn't measured it.
pub fn pod_metrics(pod: &Value, summary: &Summary) -> Option<Value> {
    let containers = summary.pods.get(pod["metadata"]["uid"].as_str()?)?;
    let (_, first) = containers.first()?;
    let mut metrics = head("PodMetrics", pod, first);
    let container = |(name, usage): &(String, Usage)| json!({ "name": name, "usage": usage.to_json() });
    metrics["containers"] = containers.iter().map(container).collect();
    Some(metrics)
}

/// What both have: the names and labels of what was measured, and when it was.
fn head(kind: &str, measured: &Value, usage: &Usage) -> Value {
    let mut metadata = json!({ "name": api::object::name(measured), "creationTimestamp": usage.time });
    for field in ["namespace", "labels"] {
        let value = &measured["metadata"][field];
        if !value.is_null() {
            metadata[field] = value.clone();
        }
    }
    json!({
        "kind": kind,
        "apiVersion": format!("{GROUP}/v1beta1"),
        "metadata": metadata,
        "timestamp": usage.time,
        "window": WINDOW,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(name: &str, cpu: Value) -> Value {
        json!({
            "name": name,
            "cpu": { "time": "2026-01-02T03:04:05Z", "usageNanoCores": cpu },
            "memory": { "workingSetBytes": 5 << 20 },
        })
    }

    #[test]
    fn summaries_become_metrics() {
        let summary = json!({
            "node": stats("", json!(250_000_000)),
            "pods": [
                { "podRef": { "uid": "u1" }, "containers": [stats("app", json!(7)), stats("side", json!(0))] },
                { "podRef": { "uid": "u2" }, "containers": [stats("app", json!(7)), stats("new", Value::Null)] },
                { "podRef": { "uid": "u3" }, "containers": "what" },
            ],
        });
        let summary = Summary::parse(&summary, Timestamp::UNIX_EPOCH).expect("measured");
        let node = json!({ "metadata": { "name": "n1", "labels": { "a": "b" } } });
        let metrics = node_metrics(&node, &summary).expect("measured");
        assert_eq!(metrics["usage"], json!({ "cpu": "250000000n", "memory": "5120Ki" }));
        assert_eq!(metrics["metadata"]["labels"], json!({ "a": "b" }));
        let pod = |uid: &str| json!({ "metadata": { "name": "web", "namespace": "shop", "uid": uid } });
        let metrics = pod_metrics(&pod("u1"), &summary).expect("measured");
        assert_eq!(
            metrics["containers"][0],
            json!({ "name": "app", "usage": { "cpu": "7n", "memory": "5120Ki" } })
        );
        assert_eq!(
            (&metrics["timestamp"], &metrics["window"]),
            (&json!("2026-01-02T03:04:05Z"), &json!("10s"))
        );
        for unknown in ["u2", "u3", "u4"] {
            assert_eq!(pod_metrics(&pod(unknown), &summary), None, "{unknown}");
        }
        let early = json!({ "node": stats("", Value::Null) });
        assert_eq!(Summary::parse(&early, Timestamp::UNIX_EPOCH), None);
    }
}
