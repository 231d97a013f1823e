//! Why an object that is being deleted is still there: which finalizer holds it, and who removes that one.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::answer::{Answer, place};
use super::pod::claims;
use super::view::{View, condition, conditions, is_true, number, text};

/// Finalizers that we know: who removes them, and when.
const KNOWN: [(&str, &str, &str); 9] = [
    ("foregroundDeletion", "garbage collector", "when the dependents that block its deletion are gone"),
    ("orphan", "garbage collector", "when its dependents no longer name it as their owner"),
    ("kubernetes", "namespace controller", "when nothing is left in the namespace"),
    ("kubernetes.io/pvc-protection", "claim protection controller", "when no pod uses the claim"),
    ("kubernetes.io/pv-protection", "volume protection controller", "when no claim is bound to the volume"),
    ("batch.kubernetes.io/job-tracking", "job controller", "when the pod is counted in its Job's status"),
    (
        "customresourcecleanup.apiextensions.k8s.io",
        "API server",
        "when all objects of the definition are gone",
    ),
    (
        "service.kubernetes.io/load-balancer-cleanup",
        "cloud's service controller",
        "when the balancer is gone",
    ),
    (
        "external-provisioner.volume.kubernetes.io/finalizer",
        "volume's provisioner",
        "when its storage is freed",
    ),
];

/// Why it is still there.
pub fn why(object: &Value, view: &View, now: Timestamp) -> Answer {
    let mut answer = Answer::about(object, "");
    let since = api::object::deletion_timestamp(object);
    let age = since.map(|time| api::time::age(time, now)).unwrap_or_default();
    let finalizers = held_by(object);
    answer.table(
        "Finalizers",
        &["FINALIZER", "REMOVED BY", "WHEN", "SET BY"],
        finalizers.iter().map(|name| finalizer_row(object, name)).collect(),
    );
    answer.lines("It waits for", waits_for(object, &finalizers, view));
    answer.verdict = match finalizers.as_slice() {
        [] if api::object::kind(object) == "Pod" => ending_pod(&mut answer, object, view, now),
        [] => format!("is being deleted since {age} and nothing holds it: it goes at any moment"),
        held => {
            let by: Vec<String> =
                held.iter().map(|name| format!("{name} ({})", owner(object, name))).collect();
            format!("is being deleted since {age} and held by {}", crate::text::and(&by))
        }
    };
    unknown_fix(&mut answer, object, &finalizers);
    answer.events(object, view, now);
    answer
}

/// Whether its dependents, of whatever kind, must be known.
pub fn waits_for_dependents(object: &Value) -> bool {
    api::object::finalizers(object).iter().any(|name| name == "foregroundDeletion" || name == "orphan")
}

/// Finalizers of the object, and those of a namespace's spec.
fn held_by(object: &Value) -> Vec<String> {
    let mut all = api::object::finalizers(object);
    let spec = object["spec"]["finalizers"].as_array().into_iter().flatten();
    all.extend(spec.filter_map(Value::as_str).map(str::to_owned));
    all
}

fn known(name: &str) -> Option<(&'static str, &'static str)> {
    KNOWN.iter().find(|(known, ..)| *known == name).map(|(_, who, when)| (*who, *when))
}

fn owner(object: &Value, name: &str) -> String {
    match (known(name), set_by(object, name)) {
        (Some((who, _)), _) => format!("the {who} removes it"),
        (None, Some(manager)) => format!("set by {manager}"),
        (None, None) => match name.split_once('/') {
            Some((domain, _)) => format!("whoever runs {domain} must remove it"),
            None => "nobody that we know removes it".to_owned(),
        },
    }
}

fn finalizer_row(object: &Value, name: &str) -> Vec<String> {
    let (who, when) = known(name).unwrap_or(("whoever set it", "when its work is done"));
    let setter = set_by(object, name).unwrap_or_else(|| "-".to_owned());
    vec![name.to_owned(), format!("the {who}").replace("the whoever", "whoever"), when.to_owned(), setter]
}

/// The field manager that put the finalizer there, with the time of its last write.
fn set_by(object: &Value, name: &str) -> Option<String> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    let owns = |entry: &&Value| {
        let fields = &entry["fieldsV1"]["f:metadata"]["f:finalizers"];
        fields.get(format!("v:\"{name}\"")).is_some()
    };
    let entry = entries.iter().find(owns)?;
    Some(format!("{} at {}", text(entry, "/manager"), text(entry, "/time")))
}

/// The objects that a finalizer waits for.
fn waits_for(object: &Value, finalizers: &[String], view: &View) -> Vec<String> {
    finalizers.iter().flat_map(|name| waited_for(object, name, view)).collect()
}

fn waited_for(object: &Value, finalizer: &str, view: &View) -> Vec<String> {
    let name = api::object::name(object);
    let told = |object: &Value| {
        let ending = if api::object::is_deleting(object) { ", being deleted" } else { "" };
        let held = api::object::finalizers(object);
        let held = if held.is_empty() { String::new() } else { format!(", held by {}", held.join(", ")) };
        format!("{} {}{ending}{held}", api::object::kind(object).to_lowercase(), place(object))
    };
    match finalizer {
        "foregroundDeletion" | "orphan" => {
            let uid = api::object::uid(object);
            let blocks = |other: &&Value| {
                let references = api::object::owner_references(other);
                let blocking = |owner: &api::object::OwnerReference| {
                    owner.uid == uid && (finalizer == "orphan" || owner.block_owner_deletion)
                };
                references.iter().any(blocking)
            };
            view.everything().filter(blocks).map(told).collect()
        }
        "kubernetes.io/pvc-protection" => {
            let pods = view.of("Pod", api::object::namespace(object));
            pods.filter(|pod| claims(pod).any(|claim| claim == name)).map(told).collect()
        }
        "kubernetes.io/pv-protection" => {
            let claims = view.all("PersistentVolumeClaim").iter();
            claims.filter(|claim| text(claim, "/spec/volumeName") == name).map(told).collect()
        }
        "kubernetes" => {
            let bad = conditions(object).filter(|said| said["status"] == "True");
            bad.map(|said| text(said, "/message").to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

/// A pod that nothing holds but its grace: its node's agent ends it.
fn ending_pod(answer: &mut Answer, pod: &Value, view: &View, now: Timestamp) -> String {
    let node = text(pod, "/spec/nodeName");
    let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
    let due = api::object::deletion_timestamp(pod);
    let left = due.map(|due| due.duration_since(now)).filter(|left| *left > SignedDuration::ZERO);
    if let Some(left) = left {
        return format!(
            "is ending on {node}: its containers have {} s of {grace} s left to stop",
            left.as_secs()
        );
    }
    let Some(object) = view.get("Node", "", node) else {
        return format!(
            "is being deleted; its node {node} doesn't exist, the pod garbage collector removes it"
        );
    };
    if is_true(object, "Ready") {
        return format!(
            "should have ended on {node} by now: its agent has not said that the containers are gone"
        );
    }
    let said = condition(object, "Ready").map(|ready| text(ready, "/message").to_owned()).unwrap_or_default();
    let (namespace, name) = (api::object::namespace(pod), api::object::name(pod));
    answer.fix(format!("bring node {node} back"), None, "then its agent ends the pod and says so");
    answer.fix(
        "remove the pod without its node's word, if you know that it doesn't run any more",
        Some(format!("kubectl -n {namespace} delete pod {name} --grace-period=0 --force")),
        "then its name is free",
    );
    format!("is being deleted, but node {node}, which must end it, isn't ready: {said}")
}

/// A finalizer that nobody will remove can be removed by hand, which skips what it stands for.
fn unknown_fix(answer: &mut Answer, object: &Value, finalizers: &[String]) {
    let Some(unknown) = finalizers.iter().find(|name| known(name).is_none()) else { return };
    let namespace = match api::object::namespace(object) {
        "" => String::new(),
        namespace => format!("-n {namespace} "),
    };
    let (kind, name) = (api::object::kind(object).to_lowercase(), api::object::name(object));
    answer.fix(
        format!("make the owner of {unknown} run, or else remove the finalizer by hand"),
        Some(format!("kubectl {namespace}edit {kind} {name}")),
        "by hand, what the finalizer stands for is not cleaned up",
    );
}
