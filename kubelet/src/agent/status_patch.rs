//! A pod's status as the patch that tells only what is the node's to tell.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use crate::pod::PodRef;
use crate::pod::conditions::{DISRUPTION, OWNED};

/// The fields of `status` that the node owns; those that may be absent are told as `null`.
const FIELDS: [&str; 14] = [
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
    "ephemeralContainerStatuses",
    "conditions",
];

/// The strategic merge patch of the `status` subresource: conditions are merged by type, so those of
/// others stay. The uid keeps it from a new pod of the same name.
/// What the server has of the conditions that are the node's and no longer hold is taken away.
pub fn patch(pod: &PodRef, status: &PodStatus, seen: Option<&PodStatus>) -> Value {
    let mut own = owned_part(status);
    let gone = gone(status, seen);
    if let Some(own) = own.as_object_mut() {
        clear_absent(own);
    }
    own["conditions"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
        .for_each(clear_absent);
    if let Some(conditions) = own["conditions"].as_array_mut() {
        conditions.extend(gone.into_iter().map(|kind| json!({ "type": kind, "$patch": "delete" })));
    }
    json!({ "metadata": { "uid": pod.uid.0 }, "status": own })
}

fn gone(status: &PodStatus, seen: Option<&PodStatus>) -> Vec<&'static str> {
    let has = |status: &PodStatus, kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    let was = |kind: &&str| seen.is_some_and(|seen| has(seen, kind)) && !has(status, kind);
    OWNED.into_iter().filter(was).collect()
}

/// A merge keeps what a patch doesn't name: the reason of a verdict that no longer holds must be taken back.
fn clear_absent(object: &mut Map<String, Value>) {
    for field in ["reason", "message"] {
        object.entry(field).or_insert(Value::Null);
    }
}

/// What of this status is the node's to tell.
pub fn owned_part(status: &PodStatus) -> Value {
    let all = serde_json::to_value(status).unwrap_or_default();
    let mut own: Map<String, Value> =
        FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), all.get(field)?.clone()))).collect();
    if let Some(Value::Array(conditions)) = own.get_mut("conditions") {
        let is_own = |kind: &str, reason: &Value| {
            OWNED.contains(&kind) || (kind, reason.as_str()) == (DISRUPTION.0, Some(DISRUPTION.1))
        };
        conditions.retain(|c| c["type"].as_str().is_some_and(|kind| is_own(kind, &c["reason"])));
        conditions.sort_by_key(|c| OWNED.iter().position(|kind| c["type"] == **kind));
    }
    Value::Object(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodUid;
    use k8s_openapi::api::core::v1::PodCondition;

    #[test]
    fn what_no_longer_holds_is_taken_back_and_what_others_own_is_left() {
        let condition = |kind: &str, reason: Option<&str>| PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            ..PodCondition::default()
        };
        let status = PodStatus {
            phase: Some("Running".to_owned()),
            conditions: Some(vec![condition("DisruptionTarget", None), condition("Ready", None)]),
            nominated_node_name: Some("n2".to_owned()),
            ..PodStatus::default()
        };
        let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: PodUid("u1".into()) };
        let ready = json!({ "type": "Ready", "status": "True", "reason": null, "message": null });
        let want = json!({ "phase": "Running", "reason": null, "message": null, "conditions": [ready] });
        assert_eq!(patch(&pod, &status, None), json!({ "metadata": { "uid": "u1" }, "status": want }));
        let before = PodStatus {
            conditions: Some(vec![condition("PodResizePending", None), condition("Own", None)]),
            ..PodStatus::default()
        };
        let patch = patch(&pod, &status, Some(&before));
        assert_eq!(
            patch["status"]["conditions"][1],
            json!({ "type": "PodResizePending", "$patch": "delete" })
        );
        assert_eq!(patch["status"]["conditions"][2], json!(null));
    }
}
