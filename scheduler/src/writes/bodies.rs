//! What the scheduler sends, as values: bindings and patches. No client and no clock.

use super::{GroupReport, Subject};
use crate::gang::INITIALLY_SCHEDULED;
use crate::name::NodeName;
use crate::scheduler::ClaimWrite;
use crate::storage::SELECTED_NODE;
use api::k8s::api::core::v1::{Binding, ObjectReference};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::time::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};

/// On a volume: whoever binds may take it back, since no user has said whose it is.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// The header in which a binding says on which knowledge it was decided: our API server refuses it if another
/// scheduler's was made to the node since. Others ignore it.
const ROOM: &str = "amoeba-room";

/// The patch; the uid and version in it make the API server refuse it for another object, or another state of it.
pub(super) fn claim_patch(write: &ClaimWrite) -> Value {
    match write {
        ClaimWrite::Select { uid, node, .. } => {
            json!({"metadata": {"uid": uid, "annotations": {SELECTED_NODE: *node.0}}})
        }
        ClaimWrite::Give { uid, version, claim: (key, claim_uid), ours, .. } => {
            let mut patch = json!({
                "metadata": {"uid": uid, "resourceVersion": version},
                "spec": {"claimRef": {
                    "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": *key.namespace,
                    "name": *key.name, "uid": claim_uid,
                }},
            });
            if *ours {
                patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
            }
            patch
        }
    }
}

/// The status patch of a group.
pub(super) fn group_condition(GroupReport { uid, said }: &GroupReport, now: Timestamp) -> Value {
    let (status, reason) = if said.scheduled { ("True", "Scheduled") } else { ("False", "Unschedulable") };
    json!({
        "metadata": {"uid": uid},
        "status": {"conditions": [{
            "type": INITIALLY_SCHEDULED, "status": status, "reason": reason, "message": *said.message,
            "lastTransitionTime": rfc3339(now),
        }]},
    })
}

/// The request that binds a pod; `room` is the newest version of pods that was known, and to whom.
pub(super) fn binding_request(
    subject: &Subject,
    node: &NodeName,
    room: Option<(u64, &String)>,
) -> http::Result<http::Request<Vec<u8>>> {
    let body = serde_json::to_vec(&binding(subject, node)).expect("a binding has a JSON form");
    let pod = &subject.pod;
    let path = format!("/api/v1/namespaces/{}/pods/{}/binding", pod.namespace, pod.name);
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    let request = match room {
        Some((seen, sharer)) => request.header(ROOM, format!("{seen}/{sharer}")),
        None => request,
    };
    request.body(body)
}

fn binding(Subject { pod, uid, .. }: &Subject, node: &NodeName) -> Binding {
    Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_string()),
            ..ObjectReference::default()
        },
    }
}

/// The status patch; the uid in it makes the API server refuse it for another incarnation of the pod.
pub(super) fn unschedulable(
    subject: &Subject,
    message: &str,
    nominated: Option<&NodeName>,
    now: Timestamp,
) -> Value {
    json!({
        "metadata": {"uid": *subject.uid.0},
        "status": {"nominatedNodeName": nominated.map(|node| &*node.0), "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": rfc3339(now),
        }]},
    })
}

/// The status patch of a victim.
pub(super) fn disrupted(victim: &Subject, now: Timestamp) -> Value {
    json!({
        "metadata": {"uid": *victim.uid.0},
        "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", victim.scheduler),
            "lastTransitionTime": rfc3339(now),
        }]},
    })
}
