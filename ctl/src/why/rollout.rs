//! Why a rollout stands still: which ReplicaSet, which pod, and why that one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::Question;
use super::answer::{Answer, place};
use super::pod;
use super::view::{View, condition, is_true, number, text};

const REVISION: &str = "deployment.kubernetes.io/revision";
/// Who leads the controllers.
const LEASE: (&str, &str) = ("kube-system", "kube-controller-manager");

/// Why the workload is as it is.
pub fn why(question: Question<'_>) -> Answer {
    let Question { object, view, now, .. } = question;
    let mut answer = Answer::about(object, "");
    if let Some(unseen) = unseen(object, view, now) {
        answer.verdict = unseen;
        return answer;
    }
    match api::object::kind(object) {
        "Deployment" => deployment(&mut answer, object, view, now),
        kind => plain(&mut answer, object, kind, view, now),
    }
    answer.events(object, view, now);
    answer
}

/// The controllers have not seen what was asked for last.
fn unseen(object: &Value, view: &View, now: Timestamp) -> Option<String> {
    let (wanted, seen) = (api::object::generation(object), number(object, "/status/observedGeneration"));
    (seen < wanted).then(|| {
        format!(
            "was changed (generation {wanted}), and its controller has seen {seen} so far: {}",
            leader(view, now)
        )
    })
}

fn leader(view: &View, now: Timestamp) -> String {
    let Some(lease) = view.get("Lease", LEASE.0, LEASE.1) else {
        return "no controllers have ever run (there is no Lease kube-system/kube-controller-manager)"
            .to_owned();
    };
    let renewed = api::time::from_value(lease["spec"].get("renewTime"));
    let age = renewed.map_or_else(|| "never".to_owned(), |time| format!("{} ago", api::time::age(time, now)));
    format!("the controllers' leader is {}, heard of {age}", text(lease, "/spec/holderIdentity"))
}

fn deployment(answer: &mut Answer, object: &Value, view: &View, now: Timestamp) {
    let wanted = number(object, "/spec/replicas");
    let mut sets: Vec<&Value> = view.controlled("ReplicaSet", object).collect();
    sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    let newest = sets.first().filter(|set| revision(set) == revision(object)).copied();
    let updated = number(object, "/status/updatedReplicas");
    let available = number(object, "/status/availableReplicas");
    let total = number(object, "/status/replicas");
    answer.table(
        "ReplicaSets",
        &["REPLICASET", "REVISION", "WANTED", "READY"],
        sets.iter().map(|set| set_row(set)).collect(),
    );
    let pods: Vec<&Value> = sets.iter().flat_map(|set| view.controlled("Pod", set)).collect();
    let culprits = culprits(answer, &pods, view, now);
    let stopped = condition(object, "Progressing").filter(|said| said["status"] == "False");
    answer.verdict = if object["spec"]["paused"] == true {
        let name = api::object::name(object);
        let namespace = api::object::namespace(object);
        answer.fix(
            "resume it",
            Some(format!("kubectl -n {namespace} rollout resume deployment/{name}")),
            "then it goes on",
        );
        format!("is paused: {updated} of {wanted} pods are of its newest template")
    } else if let Some(failure) = condition(object, "ReplicaFailure").filter(|said| said["status"] == "True")
    {
        format!("can't make its pods: {}", text(failure, "/message"))
    } else if updated >= wanted && available >= wanted && total == updated {
        format!("is rolled out: {available} of {wanted} pods are available")
    } else {
        let set = newest.map_or_else(
            || "no ReplicaSet yet".to_owned(),
            |set| format!("ReplicaSet {}", api::object::name(set)),
        );
        let state = if stopped.is_some() {
            "is stuck (its progress deadline is over)"
        } else {
            "is being rolled out"
        };
        format!(
            "{state}: {available} of {wanted} pods are available, {updated} of the newest template ({set}){culprits}"
        )
    };
}

fn revision(object: &Value) -> i64 {
    api::object::annotation(object, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_row(set: &Value) -> Vec<String> {
    let count = |pointer: &str| number(set, pointer).to_string();
    vec![
        api::object::name(set).to_owned(),
        revision(set).to_string(),
        count("/spec/replicas"),
        count("/status/readyReplicas"),
    ]
}

/// Workloads whose pods are their own.
fn plain(answer: &mut Answer, object: &Value, kind: &str, view: &View, now: Timestamp) {
    let mut pods: Vec<&Value> = view.controlled("Pod", object).collect();
    pods.sort_by_key(|pod| ordinal(pod));
    let wanted = match kind {
        "DaemonSet" => number(object, "/status/desiredNumberScheduled"),
        _ => object["spec"]["replicas"].as_i64().unwrap_or(1),
    };
    let ready = i64::try_from(pods.iter().filter(|pod| is_true(pod, "Ready")).count()).unwrap_or(0);
    let existing = i64::try_from(pods.len()).unwrap_or(0);
    let culprits = culprits(answer, &pods, view, now);
    let old = if kind == "StatefulSet" { outdated(object, &pods) } else { String::new() };
    answer.verdict = match view.newest_event(object, "FailedCreate").filter(|_| existing < wanted) {
        Some(refusal) => format!("has {existing} of {wanted} pods, and can't make more: {refusal}"),
        None if ready >= wanted && existing == wanted && culprits.is_empty() => {
            format!("is complete: {ready} of {wanted} pods are ready{old}")
        }
        None => format!("has {ready} of {wanted} pods ready{old}{culprits}"),
    };
}

fn ordinal(pod: &Value) -> (u64, String) {
    let name = api::object::name(pod);
    let ordinal = name.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
    (ordinal.unwrap_or(u64::MAX), name.to_owned())
}

/// Pods of a StatefulSet that an update has still to reach; an ordered one waits for each.
fn outdated(set: &Value, pods: &[&Value]) -> String {
    let newest = text(set, "/status/updateRevision");
    let is_old = |pod: &&&Value| api::object::label(pod, "controller-revision-hash") != Some(newest);
    match pods.iter().filter(is_old).count() {
        0 => String::new(),
        _ if text(set, "/spec/updateStrategy/type") == "OnDelete" => {
            ", and pods of an old revision stay until they are deleted (its strategy is OnDelete)".to_owned()
        }
        count => format!(", and {} of an old revision", crate::text::count(count, "pod")),
    }
}

/// A row for each reason that pods aren't ready for, with the pods; the first of them ends the verdict.
fn culprits(answer: &mut Answer, pods: &[&Value], view: &View, now: Timestamp) -> String {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut first = String::new();
    for pod in pods.iter().filter(|pod| !is_true(pod, "Ready") || api::object::is_deleting(pod)) {
        let reason = pod::in_short(pod, view, now);
        if first.is_empty() {
            first = format!("; pod {} {reason}", place(pod));
        }
        reasons.entry(reason).or_default().push(api::object::name(pod).to_owned());
    }
    let row = |(reason, pods): (String, Vec<String>)| vec![pods.len().to_string(), pods[0].clone(), reason];
    let mut rows: Vec<Vec<String>> = reasons.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row[0].parse::<usize>().unwrap_or(0)));
    answer.table("Pods that aren't ready", &["PODS", "SUCH AS", "WHY"], rows);
    first
}
