//! PodSecurity: what the namespace's labels forbid its pods.
//!
//! Pods are refused; who writes a workload whose pods would be is warned. Messages are upstream's.

use std::collections::BTreeMap;

use api::object;
use api::pod_security::{Policy, Standard, describe, violations};
use api::status::{FieldError, Status};
use serde_json::{Value, json};

use super::lookup;
use crate::error::Outcome;
use crate::verbs::Call;

/// Existing pods that are looked at when a namespace becomes stricter (upstream: 3000).
const MAX_PODS: usize = 3000;

/// Judges a pod, a workload or a namespace. `old` is null if it is new.
///
/// # Errors
/// 403 for a pod that violates what is enforced, 422 for a namespace whose labels mean nothing.
pub async fn check(call: &Call<'_>, object: &Value, old: &Value) -> Outcome<()> {
    match (call.resource.group.as_str(), call.resource.kind.as_str()) {
        ("", "Pod") => pod(call, object, old).await,
        ("", "Namespace") => namespace(call, object, old).await,
        (group, kind) => match template(group, kind, object) {
            Some(template) => workload(call, &template).await,
            None => Ok(()),
        },
    }
}

/// The pods that a workload would make.
fn template(group: &str, kind: &str, object: &Value) -> Option<Value> {
    let pointer = match (group, kind) {
        ("", "PodTemplate") => "/template",
        ("", "ReplicationController") | ("batch", "Job") | ("apps", _) => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    object.pointer(pointer).cloned()
}

async fn policy(call: &Call<'_>) -> Outcome<Policy> {
    let namespace = lookup::one(call, "", "namespaces", "", call.namespace()).await?;
    Ok(namespace.map(|namespace| Policy::of_labels(&object::labels(&namespace)).0).unwrap_or_default())
}

async fn pod(call: &Call<'_>, pod: &Value, old: &Value) -> Outcome<()> {
    let policy = policy(call).await?;
    if policy.allows_all() || !old.is_null() && !is_significant(pod, old) {
        return Ok(());
    }
    note(call, "enforce-policy", policy.enforce.to_string());
    note_violations(call, policy.audit, pod);
    let wrong = violations(policy.enforce, pod);
    if !wrong.is_empty() {
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, describe(&wrong));
        return Err(Status::forbidden("pods", "", object::name(pod), &why).into());
    }
    warn(call, policy.warn, pod);
    Ok(())
}

async fn workload(call: &Call<'_>, template: &Value) -> Outcome<()> {
    let policy = policy(call).await?;
    note_violations(call, policy.audit, template);
    warn(call, policy.warn, template);
    Ok(())
}

/// For the audit log.
fn note(call: &Call<'_>, what: &str, value: String) {
    call.info.annotations.add(format!("pod-security.kubernetes.io/{what}"), value);
}

fn note_violations(call: &Call<'_>, standard: Standard, pod: &Value) {
    let wrong = violations(standard, pod);
    if !wrong.is_empty() {
        let text = format!("would violate PodSecurity \"{standard}\": {}", describe(&wrong));
        note(call, "audit-violations", text);
    }
}

fn warn(call: &Call<'_>, standard: Standard, pod: &Value) {
    let wrong = violations(standard, pod);
    if !wrong.is_empty() {
        call.warn(format!("would violate PodSecurity \"{standard}\": {}", describe(&wrong)));
    }
}

/// Whether anything has changed that checks look at and that can change at all: images, profiles in
/// annotations, and new ephemeral containers.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let profiles = |pod: &Value| -> BTreeMap<String, String> {
        let annotations = object::annotations(pod).into_iter();
        annotations.filter(|(key, _)| key.contains("seccomp.security.alpha.kubernetes.io/")).collect()
    };
    let images = |pod: &Value| -> Vec<(Value, Value)> {
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        let all = lists.iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
        all.map(|container| (container["name"].clone(), container["image"].clone())).collect()
    };
    profiles(pod) != profiles(old) || images(pod) != images(old)
}

/// The labels must mean something where they change, and who makes a namespace stricter hears of the pods
/// that would no longer be allowed.
async fn namespace(call: &Call<'_>, namespace: &Value, old: &Value) -> Outcome<()> {
    let labels = object::labels(namespace);
    let (policy, wrong) = Policy::of_labels(&labels);
    let (before, wrong_before) = Policy::of_labels(&object::labels(old));
    if !wrong.is_empty() && (old.is_null() || wrong != wrong_before) {
        let error = |(key, why): &(String, String)| {
            FieldError::invalid(format!("metadata.labels[{key}]"), json!(labels.get(key)), why)
        };
        let errors = wrong.iter().map(error).collect();
        return Err(Status::invalid("Namespace", "", object::name(namespace), errors).into());
    }
    let relaxed =
        policy.enforce.minor == before.enforce.minor && policy.enforce.level <= before.enforce.level;
    if !old.is_null() && !relaxed {
        let pods = lookup::stored(call, "", "pods", object::name(namespace)).await?;
        let checked = pods.iter().take(MAX_PODS).map(|stored| crate::storage::decode(stored));
        let found = existing(policy.enforce, checked.collect::<Outcome<Vec<_>>>()?);
        if pods.len() > MAX_PODS {
            call.warn(format!(
                "new PodSecurity enforce level only checked against the first {MAX_PODS} of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            call.warn(format!(
                "existing pods in namespace {:?} violate the new PodSecurity enforce level \"{}\"",
                object::name(namespace),
                policy.enforce
            ));
        }
        call.info.warnings.extend(found);
    }
    Ok(())
}

/// For each set of reasons the first pod and how many others.
fn existing(standard: Standard, pods: Vec<Value>) -> Vec<String> {
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods {
        let reasons: Vec<String> =
            violations(standard, &pod).into_iter().map(|violation| violation.reason).collect();
        if !reasons.is_empty() {
            by_reason.entry(reasons.join(", ")).or_default().push(object::name(&pod).to_owned());
        }
    }
    let line = |(reason, mut names): (String, Vec<String>)| {
        names.sort();
        match names.len() {
            1 => format!("{}: {reason}", names[0]),
            2 => format!("{} (and 1 other pod): {reason}", names[0]),
            count => format!("{} (and {} other pods): {reason}", names[0], count - 1),
        }
    };
    let mut lines: Vec<String> = by_reason.into_iter().map(line).collect();
    lines.sort();
    lines
}
