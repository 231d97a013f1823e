//! Rules for Deployments, ReplicaSets and ControllerRevisions.

use serde_json::Value;

use super::field::{Errors, Field, label_selector};
use super::pod;
use crate::selector::LabelSelector;
use crate::status::FieldError;

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
    '93%', regex used for validation is '[0-9]+%')";

/// The spec of a Deployment.
pub(super) fn deployment(spec: &Field<'_>) -> Errors {
    let mut errors = spec.get("replicas").nonnegative();
    errors.extend(selector(spec));
    errors.extend(template(spec));
    errors.extend(strategy(&spec.get("strategy")));
    for number in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.extend(spec.get(number).nonnegative());
    }
    let deadline = spec.get("progressDeadlineSeconds");
    if deadline.int().is_some_and(|seconds| seconds <= spec.get("minReadySeconds").int().unwrap_or_default())
    {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
    errors
}

/// The spec of a ReplicaSet.
pub(super) fn replica_set(spec: &Field<'_>) -> Errors {
    let mut errors = spec.get("replicas").nonnegative();
    errors.extend(spec.get("minReadySeconds").nonnegative());
    errors.extend(selector(spec));
    errors.extend(template(spec));
    errors
}

fn selector(spec: &Field<'_>) -> Errors {
    let selector = spec.get("selector");
    let labels = spec.at("template.metadata.labels");
    if !selector.exists() {
        return vec![selector.required(""), mismatch(&labels)];
    }
    let mut errors = label_selector(&selector);
    match LabelSelector::from_value(selector.value) {
        Ok(parsed) if parsed.is_empty() => {
            errors.push(selector.invalid("empty selector is invalid for deployment"))
        }
        Ok(parsed) if !parsed.matches_with(|key| labels.value.get(key)?.as_str()) => {
            errors.push(mismatch(&labels))
        }
        Ok(_) => {}
        Err(_) if errors.is_empty() => errors.push(selector.invalid("invalid label selector")),
        Err(_) => {}
    }
    errors
}

fn mismatch(labels: &Field<'_>) -> FieldError {
    labels.invalid("`selector` does not match template `labels`")
}

fn template(spec: &Field<'_>) -> Errors {
    let template = spec.get("template");
    if !template.exists() {
        // Only a ReplicaSet may come without: defaulting gives a Deployment one.
        return match spec.get("replicas").int() {
            Some(0) => Errors::new(),
            _ => vec![template.required("")],
        };
    }
    let mut errors = pod::template(&template);
    errors.extend(template.at("spec.restartPolicy").one_of(&["Always"]));
    let deadline = template.at("spec.activeDeadlineSeconds");
    if deadline.exists() {
        errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
    errors
}

fn strategy(strategy: &Field<'_>) -> Errors {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.exists() => {
            vec![rolling.forbidden("may not be specified when strategy `type` is 'Recreate'")]
        }
        "Recreate" => Errors::new(),
        "RollingUpdate" if !rolling.exists() => {
            vec![rolling.required("this should be defaulted and never be nil")]
        }
        "RollingUpdate" => rolling_update(&rolling),
        _ => strategy.get("type").one_of(&["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &Field<'_>) -> Errors {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    let mut errors = int_or_percent(&unavailable);
    errors.extend(int_or_percent(&surge));
    if amount(&unavailable) == Some(0) && amount(&surge) == Some(0) {
        errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
    }
    if unavailable.text().ends_with('%') && amount(&unavailable).is_some_and(|percent| percent > 100) {
        errors.push(unavailable.invalid("must not be greater than 100%"));
    }
    errors
}

fn int_or_percent(field: &Field<'_>) -> Errors {
    match field.value {
        Value::String(_) if amount(field).is_none() => vec![field.invalid(PERCENT)],
        _ => field.nonnegative(),
    }
}

/// The number, or the number before the percent sign.
fn amount(field: &Field<'_>) -> Option<i64> {
    match field.value {
        Value::String(text) => {
            let digits = text.strip_suffix('%')?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        }
        _ => field.int(),
    }
}

/// The counters of a status are counts.
pub(super) fn status(status: &Field<'_>) -> Errors {
    let counters = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "fullyLabeledReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
    ];
    let mut errors: Errors = counters.iter().flat_map(|name| status.get(name).nonnegative()).collect();
    let total = status.get("replicas").int().unwrap_or_default();
    let ready = status.get("readyReplicas").int().unwrap_or_default();
    for name in ["updatedReplicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"] {
        let counter = status.get(name);
        if counter.int().is_some_and(|count| count > total) {
            errors.push(counter.invalid("cannot be greater than status.replicas"));
        }
    }
    let available = status.get("availableReplicas");
    if available.int().is_some_and(|count| count > ready) {
        errors.push(available.invalid("cannot be greater than readyReplicas"));
    }
    errors
}

/// A ControllerRevision: data, and its place in history.
pub(super) fn controller_revision(root: &Field<'_>) -> Errors {
    let mut errors = root.get("revision").nonnegative();
    if !root.get("data").exists() {
        errors.push(root.get("data").required("data is mandatory"));
    }
    errors
}
