//! RuntimeClass: what a class costs beyond its pods' containers, and where its pods can run.

use std::sync::Arc;

use api::object;
use api::status::Status;
use serde_json::{Value, json};

use super::lookup;
use crate::error::Outcome;
use crate::verbs::Call;

/// Sets the overhead and the placement that the pod's class asks for.
///
/// # Errors
/// 403 if there is no such class, or the pod contradicts it.
pub async fn apply(call: &Call<'_>, pod: &mut Value) -> Outcome<()> {
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    let class = match name.as_str() {
        "" => Arc::default(),
        name => lookup::one(call, "node.k8s.io", "runtimeclasses", "", name)
            .await?
            .ok_or_else(|| forbidden(pod, &format!("pod rejected: RuntimeClass {name:?} not found")))?,
    };
    merge(pod, &class).map_err(|why| forbidden(pod, &why).into())
}

fn forbidden(pod: &Value, why: &str) -> Status {
    Status::forbidden("pods", "", object::name(pod), why)
}

fn merge(pod: &mut Value, class: &Value) -> Result<(), String> {
    let overhead = class["overhead"].get("podFixed").filter(|fixed| !fixed.is_null());
    let given =
        pod["spec"].get("overhead").filter(|given| given.as_object().is_some_and(|map| !map.is_empty()));
    match (given, overhead) {
        (Some(_), None) if class.is_null() => {
            return Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into()
            );
        }
        (Some(given), overhead) if Some(given) != overhead => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (None, Some(overhead)) => pod["spec"]["overhead"] = overhead.clone(),
        _ => {}
    }
    let wanted = class["scheduling"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (label, value) in wanted {
        let given = &pod["spec"]["nodeSelector"][&label];
        if !given.is_null() && *given != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {}; pod.spec.nodeSelector[{label}] = {}",
                value.as_str().unwrap_or_default(),
                given.as_str().unwrap_or_default()
            ));
        }
        pod["spec"]["nodeSelector"][label] = value;
    }
    let more = class["scheduling"]["tolerations"].as_array().cloned().unwrap_or_default();
    if !more.is_empty() {
        let mut all = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let new: Vec<Value> = more.into_iter().filter(|toleration| !all.contains(toleration)).collect();
        all.extend(new);
        pod["spec"]["tolerations"] = json!(all);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_and_its_class_agree() {
        let class = json!({
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "t", "operator": "Exists"}]},
        });
        let mut pod = json!({"spec": {"nodeSelector": {"c": "d"}}});
        merge(&mut pod, &class).expect("no contradiction");
        let spec = json!({
            "nodeSelector": {"a": "b", "c": "d"},
            "overhead": {"cpu": "10m"},
            "tolerations": [{"key": "t", "operator": "Exists"}],
        });
        assert_eq!(pod["spec"], spec);
        merge(&mut pod, &class).expect("twice is once");
        assert_eq!(pod["spec"], spec);
    }

    #[test]
    fn contradictions_are_refused() {
        let class =
            json!({"overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"a": "b"}}});
        let cases = [
            (json!({"overhead": {"cpu": "1"}}), class.clone(), "doesn't match"),
            (json!({"overhead": {"cpu": "1"}}), Value::Null, "without corresponding"),
            (
                json!({"nodeSelector": {"a": "x"}}),
                class,
                "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x",
            ),
        ];
        for (spec, class, expected) in cases {
            let why = merge(&mut json!({"spec": spec}), &class).expect_err("contradicts");
            assert!(why.contains(expected), "{why}");
        }
    }
}
