//! Rules for the kinds that keep pods running, and for ControllerRevisions.

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
    errors.extend(selector(spec, "deployment"));
    errors.extend(template(spec, "ReplicaSet"));
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
    errors.extend(selector(spec, "deployment"));
    errors.extend(template(spec, "ReplicaSet"));
    errors
}

/// The spec of a StatefulSet.
pub(super) fn stateful_set(spec: &Field<'_>) -> Errors {
    let management = spec.get("podManagementPolicy");
    let mut errors = management.present();
    errors.extend(management.one_of(&["OrderedReady", "Parallel"]));
    let update = spec.get("updateStrategy");
    errors.extend(update.get("type").one_of(&["OnDelete", "RollingUpdate"]));
    if update.get("type").text() == "OnDelete" && update.get("rollingUpdate").exists() {
        let why = "only allowed for updateStrategy 'RollingUpdate'";
        errors.push(update.get("rollingUpdate").invalid(why));
    }
    errors.extend(update.at("rollingUpdate.partition").nonnegative());
    errors.extend(int_or_percent(&update.at("rollingUpdate.maxUnavailable")));
    for when in ["whenDeleted", "whenScaled"] {
        errors
            .extend(spec.get("persistentVolumeClaimRetentionPolicy").get(when).one_of(&["Delete", "Retain"]));
    }
    for number in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        errors.extend(spec.get(number).nonnegative());
    }
    errors.extend(spec.at("ordinals.start").nonnegative());
    errors.extend(selector(spec, "statefulset"));
    errors.extend(template(spec, "StatefulSet"));
    errors
}

/// What of a StatefulSet's spec may change.
pub(super) fn stateful_set_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let mut comparable = new.value.clone();
    for field in MUTABLE {
        match old.value.get(field) {
            Some(value) => comparable[field] = value.clone(),
            None => drop(comparable.as_object_mut().and_then(|spec| spec.remove(field))),
        }
    }
    if comparable == *old.value {
        return Errors::new();
    }
    vec![new.forbidden(
        "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
         'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
    )]
}

/// The spec of a DaemonSet.
pub(super) fn daemon_set(spec: &Field<'_>) -> Errors {
    let mut errors = selector(spec, "daemonset");
    errors.extend(template(spec, "DaemonSet"));
    let update = spec.get("updateStrategy");
    errors.extend(update.get("type").one_of(&["OnDelete", "RollingUpdate"]));
    if update.get("type").text() == "RollingUpdate" {
        errors.extend(daemon_rolling_update(&update.get("rollingUpdate")));
    }
    for number in ["minReadySeconds", "revisionHistoryLimit"] {
        errors.extend(spec.get(number).nonnegative());
    }
    errors
}

/// Just one of the two numbers says how the update goes.
fn daemon_rolling_update(rolling: &Field<'_>) -> Errors {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    let mut errors = int_or_percent(&unavailable);
    errors.extend(int_or_percent(&surge));
    match (amount(&unavailable).unwrap_or_default(), amount(&surge).unwrap_or_default()) {
        (0, 0) => errors.push(unavailable.invalid("cannot be 0 when maxSurge is 0")),
        (left, right) if left > 0 && right > 0 => {
            errors.push(surge.invalid("may not be set when maxUnavailable is non-zero"));
        }
        _ => {}
    }
    errors
}

/// The spec of a ReplicationController, whose selector is a plain map.
pub(super) fn replication_controller(spec: &Field<'_>) -> Errors {
    let mut errors = spec.get("replicas").nonnegative();
    errors.extend(spec.get("minReadySeconds").nonnegative());
    let (selector, labels) = (spec.get("selector"), spec.at("template.metadata.labels"));
    errors.extend(selector.present());
    if selector.entries().any(|(key, value)| labels.get(key).value != value.value) {
        errors.push(mismatch(&labels));
    }
    errors.extend(template(spec, "ReplicaSet"));
    errors
}

fn selector(spec: &Field<'_>, kind: &str) -> Errors {
    let selector = spec.get("selector");
    let labels = spec.at("template.metadata.labels");
    if !selector.exists() {
        return vec![selector.required(""), mismatch(&labels)];
    }
    let mut errors = label_selector(&selector);
    match LabelSelector::from_value(selector.value) {
        Ok(parsed) if parsed.is_empty() => {
            errors.push(selector.invalid(format!("empty selector is invalid for {kind}")))
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

fn template(spec: &Field<'_>, kind: &str) -> Errors {
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
        errors.push(deadline.forbidden(&format!("activeDeadlineSeconds in {kind} is not Supported")));
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

pub(super) fn int_or_percent(field: &Field<'_>) -> Errors {
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
