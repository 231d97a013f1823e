//! HorizontalPodAutoscalers of `autoscaling/v1` and `v2`. Version 1 knows one metric, the use of CPU; all others,
//! conditions and behavior are JSON in annotations there, which version 2 never shows.

use serde_json::{Map, Value, json};

use crate::object;

/// A kind of metric with the pointers of its parts in version 1 and in version 2.
type Parts = (&'static str, &'static [(&'static str, &'static str)]);

const SPEC: [Parts; 5] = [
    (
        "resource",
        &[
            ("/name", "/name"),
            ("/targetAverageUtilization", "/target/averageUtilization"),
            ("/targetAverageValue", "/target/averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("/name", "/name"),
            ("/container", "/container"),
            ("/targetAverageUtilization", "/target/averageUtilization"),
            ("/targetAverageValue", "/target/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("/metricName", "/metric/name"),
            ("/selector", "/metric/selector"),
            ("/targetAverageValue", "/target/averageValue"),
        ],
    ),
    (
        "object",
        &[
            ("/target", "/describedObject"),
            ("/metricName", "/metric/name"),
            ("/selector", "/metric/selector"),
            ("/targetValue", "/target/value"),
            ("/averageValue", "/target/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("/metricName", "/metric/name"),
            ("/metricSelector", "/metric/selector"),
            ("/targetValue", "/target/value"),
            ("/targetAverageValue", "/target/averageValue"),
        ],
    ),
];

const STATUS: [Parts; 5] = [
    (
        "resource",
        &[
            ("/name", "/name"),
            ("/currentAverageUtilization", "/current/averageUtilization"),
            ("/currentAverageValue", "/current/averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("/name", "/name"),
            ("/container", "/container"),
            ("/currentAverageUtilization", "/current/averageUtilization"),
            ("/currentAverageValue", "/current/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("/metricName", "/metric/name"),
            ("/selector", "/metric/selector"),
            ("/currentAverageValue", "/current/averageValue"),
        ],
    ),
    (
        "object",
        &[
            ("/target", "/describedObject"),
            ("/metricName", "/metric/name"),
            ("/selector", "/metric/selector"),
            ("/currentValue", "/current/value"),
            ("/averageValue", "/current/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("/metricName", "/metric/name"),
            ("/metricSelector", "/metric/selector"),
            ("/currentValue", "/current/value"),
            ("/currentAverageValue", "/current/averageValue"),
        ],
    ),
];

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Where the use of CPU stands in version 1, and in a metric of version 2.
const SPEC_CPU: (&str, &str) = ("targetCPUUtilizationPercentage", "/resource/target/averageUtilization");
const STATUS_CPU: (&str, &str) = ("currentCPUUtilizationPercentage", "/resource/current/averageUtilization");

pub(super) fn to_v1(autoscaler: &mut Value) {
    for (part, list, annotation, cpu, parts) in [
        ("spec", "metrics", METRICS, SPEC_CPU, &SPEC),
        ("status", "currentMetrics", CURRENT, STATUS_CPU, &STATUS),
    ] {
        let Some(fields) = autoscaler.get_mut(part).and_then(Value::as_object_mut) else { continue };
        let metrics = fields.remove(list).and_then(|list| list.as_array().cloned()).unwrap_or_default();
        let is_cpu = |metric: &&Value| {
            metric.pointer("/resource/name") == Some(&json!("cpu")) && metric.pointer(cpu.1).is_some()
        };
        let own = metrics.iter().position(|metric| is_cpu(&metric));
        if let Some(use_of_cpu) = own.and_then(|own| metrics[own].pointer(cpu.1)) {
            fields.insert(cpu.0.to_owned(), use_of_cpu.clone());
        }
        let others = metrics.iter().enumerate().filter(|(at, _)| Some(*at) != own);
        let others: Vec<Value> = others.map(|(_, metric)| metric_to_v1(metric, parts)).collect();
        if !others.is_empty() {
            object::set_annotation(autoscaler, annotation, &json!(others).to_string());
        }
    }
    for (part, field, annotation) in [("spec", "behavior", BEHAVIOR), ("status", "conditions", CONDITIONS)] {
        let value = autoscaler.get_mut(part).and_then(Value::as_object_mut).and_then(|map| map.remove(field));
        if let Some(value) = value.filter(|value| !value.as_array().is_some_and(Vec::is_empty)) {
            object::set_annotation(autoscaler, annotation, &value.to_string());
        }
    }
}

pub(super) fn to_v2(autoscaler: &mut Value) {
    for (part, list, annotation, cpu, parts) in [
        ("spec", "metrics", METRICS, SPEC_CPU, &SPEC),
        ("status", "currentMetrics", CURRENT, STATUS_CPU, &STATUS),
    ] {
        let mut metrics =
            taken(autoscaler, annotation).and_then(|list| list.as_array().cloned()).unwrap_or_default();
        metrics.iter_mut().for_each(|metric| *metric = metric_to_v2(metric, parts));
        let Some(fields) = autoscaler.get_mut(part).and_then(Value::as_object_mut) else { continue };
        if let Some(use_of_cpu) = fields.remove(cpu.0) {
            let mut metric = json!({"type": "Resource", "resource": {"name": "cpu"}});
            set(&mut metric, cpu.1, use_of_cpu);
            if part == "spec" {
                metric["resource"]["target"]["type"] = json!("Utilization");
            }
            metrics.push(metric);
        }
        if !metrics.is_empty() {
            fields.insert(list.to_owned(), json!(metrics));
        }
    }
    for (part, field, annotation) in [("spec", "behavior", BEHAVIOR), ("status", "conditions", CONDITIONS)] {
        if let Some(value) = taken(autoscaler, annotation) {
            autoscaler[part][field] = value;
        }
    }
}

/// The JSON in an annotation, which goes; nothing if it is none.
fn taken(autoscaler: &mut Value, annotation: &str) -> Option<Value> {
    let annotations = autoscaler["metadata"]["annotations"].as_object_mut()?;
    let text = annotations.remove(annotation)?;
    if annotations.is_empty() {
        object::metadata_mut(autoscaler).remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn metric_to_v1(metric: &Value, parts: &[Parts]) -> Value {
    moved(metric, parts, |(old, new)| (new, old))
}

fn metric_to_v2(metric: &Value, parts: &[Parts]) -> Value {
    let mut made = moved(metric, parts, |(old, new)| (old, new));
    for (kind, _) in parts {
        // Only wishes have a type; version 1 doesn't say it.
        let target = made.get_mut(*kind).and_then(|part| part.get_mut("target"));
        let Some(target) = target.filter(|target| target.is_object()) else { continue };
        let named =
            ["averageUtilization", "value", "averageValue"].into_iter().find(|name| !target[*name].is_null());
        target["type"] = json!(match named {
            Some("averageUtilization") => "Utilization",
            Some("value") => "Value",
            _ => "AverageValue",
        });
    }
    made
}

/// The metric with its parts at other places.
fn moved(
    metric: &Value,
    parts: &[Parts],
    way: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    let mut made = json!({"type": metric["type"]});
    for (kind, pairs) in parts {
        let Some(given) = metric.get(*kind) else { continue };
        let mut part = json!({});
        for (from, to) in pairs.iter().copied().map(way) {
            if let Some(value) = given.pointer(from) {
                set(&mut part, to, value.clone());
            }
        }
        made[*kind] = part;
    }
    made
}

/// Sets the value at a pointer, making the maps on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parents, last) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let parent = parents.split('/').skip(1).fold(object, |node, name| {
        if !node[name].is_object() {
            node[name] = Value::Object(Map::new());
        }
        &mut node[name]
    });
    parent[last] = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::to_version;

    #[test]
    fn one_metric_is_a_field_and_the_others_are_an_annotation() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 5,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "hits"}, "target": {"type": "Value", "value": "3"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
            "status": {"currentReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 30, "averageValue": "3m"}}}]},
        });
        let v1 = to_version(v2.clone(), "autoscaling/v1");
        assert_eq!(v1["spec"], json!({"maxReplicas": 5, "targetCPUUtilizationPercentage": 70}));
        assert_eq!(v1["status"], json!({"currentReplicas": 2, "currentCPUUtilizationPercentage": 30}));
        let annotation = |name: &str| -> Value {
            let text = v1["metadata"]["annotations"][name].as_str().expect("an annotation");
            serde_json::from_str(text).expect("JSON")
        };
        assert_eq!(
            annotation(METRICS),
            json!([
                {"type": "Pods", "pods": {"metricName": "qps", "targetAverageValue": "10"}},
                {"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "hits", "targetValue": "3"}},
            ])
        );
        assert_eq!(annotation(BEHAVIOR)["scaleDown"]["stabilizationWindowSeconds"], 60);
        let back = to_version(v1, "autoscaling/v2");
        assert_eq!(back["spec"], v2["spec"]);
        assert_eq!(back["status"]["conditions"], v2["status"]["conditions"]);
        assert_eq!(back["metadata"], json!({"name": "a"}));
    }
}
