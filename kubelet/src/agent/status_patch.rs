//! A pod's status as the patch that tells only what is the node's to tell.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use crate::pod::PodRef;
use crate::pod::conditions::OWNED;

/// The fields of `status` that the node owns; those that may be absent are told as `null`.
const FIELDS: [&str; 13] = [
    "observedGeneration",
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "qosClass",
    "initContainerStatuses",
    "containerStatuses",
    "conditions",
];

/// The strategic merge patch of the `status` subresource: conditions are merged by type, so those of
/// others stay. The uid keeps it from a new pod of the same name.
pub fn patch(pod: &PodRef, status: &PodStatus) -> Value {
    let mut own = owned_part(status);
    if let Some(own) = own.as_object_mut() {
        for field in ["reason", "message"] {
            own.entry(field).or_insert(Value::Null);
        }
    }
    json!({ "metadata": { "uid": pod.uid.0 }, "status": own })
}

/// What of this status is the node's to tell.
pub fn owned_part(status: &PodStatus) -> Value {
    let all = serde_json::to_value(status).unwrap_or_default();
    let mut own: Map<String, Value> =
        FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), all.get(field)?.clone()))).collect();
    if let Some(Value::Array(conditions)) = own.get_mut("conditions") {
        conditions.retain(|c| c["type"].as_str().is_some_and(|kind| OWNED.contains(&kind)));
        conditions.sort_by_key(|c| OWNED.iter().position(|kind| c["type"] == **kind));
    }
    Value::Object(own)
}
