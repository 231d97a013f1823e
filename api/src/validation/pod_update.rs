//! What may change in a pod that exists.

use serde::Deserialize;
use serde_json::Value;

use super::field::{Errors, Field};
use crate::k8s::api::core::v1::PodSpec;
use crate::self_fence::ANNOTATION;
use crate::status::FieldError;

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The spec of a pod may change in a few places only.
pub(super) fn spec(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for list in ["containers", "initContainers"] {
        if new.get(list).items().count() != old.get(list).items().count() {
            errors.push(new.get(list).forbidden("pod updates may not add or remove containers"));
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    errors.extend(deadline(&new.get("activeDeadlineSeconds"), &old.get("activeDeadlineSeconds")));
    errors.extend(tolerations(&new.get("tolerations"), &old.get("tolerations")));
    errors.extend(gates(&new.get("schedulingGates"), &old.get("schedulingGates")));
    let (fixed_new, fixed_old) = (without_mutable(new.value), without_mutable(old.value));
    if fixed_new != fixed_old {
        let changed = changed_paths("spec", &fixed_old, &fixed_new).join(", ");
        errors.push(new.forbidden(&format!("{MAY_CHANGE}\nchanged: {changed}")));
    }
    errors
}

/// The spec without the places that may change (each has a rule of its own).
fn without_mutable(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(map) = spec.as_object_mut() else { return spec };
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        map.remove(key);
    }
    for list in ["containers", "initContainers"] {
        for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container.as_object_mut().map(|container| container.remove("image"));
        }
    }
    if map.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|grace| grace < 0) {
        map.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    spec
}

/// Where two values differ, in the words a user would search for.
fn changed_paths(path: &str, old: &Value, new: &Value) -> Vec<String> {
    match (old, new) {
        (Value::Object(old_map), Value::Object(new_map)) => {
            let mut keys: Vec<&String> = old_map.keys().chain(new_map.keys()).collect();
            keys.sort();
            keys.dedup();
            let each = keys.into_iter().map(|key| {
                let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                changed_paths(&format!("{path}.{key}"), &side(old_map), &side(new_map))
            });
            each.flatten().collect()
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let pairs = old.iter().zip(new).enumerate();
            pairs
                .flat_map(|(index, (old, new))| changed_paths(&format!("{path}[{index}]"), old, new))
                .collect()
        }
        _ if old == new => Vec::new(),
        _ => vec![path.to_string()],
    }
}

fn deadline(new: &Field<'_>, old: &Field<'_>) -> Errors {
    match (new.int(), old.int()) {
        (Some(new_value), Some(old_value)) if new_value > old_value => {
            vec![new.invalid("must be less than or equal to previous value")]
        }
        (None, Some(_)) => vec![new.invalid("must not update from a positive integer to nil value")],
        _ => Errors::new(),
    }
}

/// Tolerations may be added, and their seconds changed.
fn tolerations(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.as_object_mut().map(|map| map.remove("tolerationSeconds"));
        toleration
    };
    let kept: Vec<Value> = new.items().map(|toleration| without_seconds(toleration.value)).collect();
    match old.items().all(|toleration| kept.contains(&without_seconds(toleration.value))) {
        true => Errors::new(),
        false => vec![new.forbidden("existing toleration can not be modified except its tolerationSeconds")],
    }
}

/// Gates may only be opened.
fn gates(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let known: Vec<&str> = old.items().map(|gate| gate.get("name").text()).collect();
    let added = new.items().filter(|gate| !known.contains(&gate.get("name").text()));
    added.map(|gate| gate.forbidden("only deletion is allowed, but found new scheduling gate")).collect()
}

/// A pod's node is decided once, and a container that has ended for good stays so.
pub(super) fn status(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let (node, before) = (new.at("spec.nodeName"), old.at("spec.nodeName"));
    let mut errors = self_fence(new, old);
    if !before.is_empty() && node.value != before.value {
        errors.push(node.forbidden("may not be changed directly"));
    }
    errors
}

/// Who supervises a container that runs has read whether it is to be ended; the controllers rely on it.
pub(super) fn self_fence(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let asks = |pod: &Field<'_>| pod.at("metadata.annotations").get(ANNOTATION).text() == "true";
    if asks(new) == asks(old) {
        return Errors::new();
    }
    let path = format!("metadata.annotations[{ANNOTATION}]");
    vec![FieldError::forbidden(path, "may not be changed in a pod that exists")]
}

/// Ephemeral containers may only be added.
pub(super) fn ephemeral_containers(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for before in old.items() {
        let name = before.get("name").text();
        match new.items().find(|container| container.get("name").text() == name) {
            None => {
                errors.push(
                    new.forbidden(&format!("existing ephemeral containers {name:?} may not be removed\n")),
                );
            }
            Some(now) if now.value != before.value => {
                errors.push(
                    new.forbidden(&format!("existing ephemeral containers {name:?} may not be changed\n")),
                );
            }
            Some(_) => {}
        }
    }
    errors
}

/// A resize changes how much processor and memory containers have, nothing else that follows from it.
pub(super) fn resize(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let class = |pod: &Field<'_>| {
        PodSpec::deserialize(pod.get("spec").value).ok().map(|spec| crate::pod::qos_class(&spec))
    };
    let mut errors = Errors::new();
    if class(new) != class(old) {
        errors.push(FieldError::invalid(
            "metadata",
            class(new).map(|class| class.as_str()),
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    for list in ["spec.containers", "spec.initContainers"] {
        for (now, before) in new.at(list).items().zip(old.at(list).items()) {
            errors.extend(resized(&now.get("resources"), &before.get("resources")));
        }
    }
    errors
}

fn resized(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let rest = |resources: &Field<'_>| {
        let mut rest = resources.value.clone();
        for part in ["limits", "requests"] {
            let Some(amounts) = rest.get_mut(part).and_then(Value::as_object_mut) else { continue };
            amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
            if amounts.is_empty() {
                rest.as_object_mut().map(|rest| rest.remove(part));
            }
        }
        rest.as_object().cloned().unwrap_or_default()
    };
    let mut errors = Errors::new();
    if rest(new) != rest(old) {
        errors.push(new.forbidden("only cpu and memory resources are mutable"));
    }
    for (part, why) in
        [("limits", "resource limits cannot be removed"), ("requests", "resource requests cannot be removed")]
    {
        let gone = |(name, _): (&String, Field<'_>)| !new.get(part).get(name).exists();
        if old.get(part).entries().any(gone) {
            errors.push(new.get(part).forbidden(why));
        }
    }
    errors
}
