//! Kinds by which a cluster is run: admission, flow control, addresses, devices, quotas.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{
    AGE, CREATED_AT, DEFAULT, NAME, NONE, Spec, UNSET, field, int, items, number, or, str_at, text,
};

/// The columns of a kind of `group` that isn't listed in a file of its own.
pub(super) fn columns(group: &str, kind: &str) -> &'static [Spec] {
    match (group, kind) {
        ("", "ResourceQuota") => QUOTA,
        ("", "LimitRange") => LIMIT_RANGE,
        (_, "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => WEBHOOKS,
        (_, "ValidatingAdmissionPolicy") => VALIDATING_POLICY,
        (_, "MutatingAdmissionPolicy") => MUTATING_POLICY,
        (_, "MutatingAdmissionPolicyBinding" | "ValidatingAdmissionPolicyBinding") => POLICY_BINDING,
        (_, "FlowSchema") => FLOW_SCHEMA,
        (_, "PriorityLevelConfiguration") => PRIORITY_LEVEL,
        (_, "RuntimeClass") => RUNTIME_CLASS,
        (_, "IPAddress") => IP_ADDRESS,
        (_, "ServiceCIDR") => SERVICE_CIDR,
        (_, "ResourceClaim") => CLAIM,
        (_, "ResourceSlice") => SLICE,
        (_, "DeviceClass" | "ResourceClaimTemplate" | "DeviceTaintRule") => PLAIN,
        (_, "StorageVersionMigration") => MIGRATION,
        (_, "APIService") => API_SERVICE,
        _ => DEFAULT,
    }
}

const API_SERVICE: &[Spec] = &[
    NAME,
    text("Service", "Who serves it.", |object, _| match str_at(object, "/spec/service/name") {
        "" => json!("Local"),
        name => json!(format!("{}/{name}", str_at(object, "/spec/service/namespace"))),
    }),
    text("Available", "Whether it answers.", available),
    AGE,
];

fn available(object: &Value, _: Timestamp) -> Value {
    let condition = items(object, "/status/conditions").iter().find(|one| one["type"] == "Available");
    match condition.map(|one| (str_at(one, "/status"), str_at(one, "/reason"))) {
        Some(("False", reason)) => json!(format!("False ({reason})")),
        Some((status, _)) => json!(status),
        None => json!("Unknown"),
    }
}

const PLAIN: &[Spec] = &[NAME, AGE];
const LIMIT_RANGE: &[Spec] = &[NAME, CREATED_AT];
const QUOTA: &[Spec] = &[
    NAME,
    text("Request", "Used and allowed requests and counts.", |quota, _| json!(usage(quota, false))),
    text("Limit", "Used and allowed limits.", |quota, _| json!(usage(quota, true))),
    AGE,
];
const WEBHOOKS: &[Spec] = &[
    NAME,
    number("Webhooks", "How many are called.", |object, _| json!(items(object, "/webhooks").len())),
    AGE,
];
const VALIDATING_POLICY: &[Spec] = &[
    NAME,
    number("Validations", "How many expressions must hold.", |object, _| {
        json!(items(object, "/spec/validations").len())
    }),
    text("ParamKind", "What it is parametrized by.", param_kind),
    AGE,
];
const MUTATING_POLICY: &[Spec] = &[
    NAME,
    number("Mutations", "How many changes it makes.", |object, _| {
        json!(items(object, "/spec/mutations").len())
    }),
    text("ParamKind", "What it is parametrized by.", param_kind),
    AGE,
];
const POLICY_BINDING: &[Spec] = &[
    NAME,
    field("PolicyName", "The policy that it puts to use.", "/spec/policyName"),
    text("ParamRef", "The parameters.", param_ref),
    AGE,
];
const FLOW_SCHEMA: &[Spec] = &[
    NAME,
    field("PriorityLevel", "Where its requests queue.", "/spec/priorityLevelConfiguration/name"),
    number("MatchingPrecedence", "The lowest that matches wins.", |object, _| {
        json!(int(object, "/spec/matchingPrecedence"))
    }),
    text("DistinguisherMethod", "What tells its flows apart.", |object, _| {
        or(str_at(object, "/spec/distinguisherMethod/type"), NONE)
    }),
    AGE,
    text("MissingPL", "Whether its priority level is missing.", |object, _| {
        let conditions = items(object, "/status/conditions");
        let dangling = conditions.iter().find(|condition| condition["type"] == "Dangling");
        json!(dangling.map_or("?", |condition| condition["status"].as_str().unwrap_or("?")))
    }),
];
const PRIORITY_LEVEL: &[Spec] = &[
    NAME,
    field("Type", "Limited or Exempt.", "/spec/type"),
    text("NominalConcurrencyShares", "Its share of the server.", |object, _| {
        shown(object, "/spec/limited/nominalConcurrencyShares")
    }),
    text("Queues", "How many queues it has.", |object, _| {
        shown(object, "/spec/limited/limitResponse/queuing/queues")
    }),
    text("HandSize", "Queues that one flow may use.", |object, _| {
        shown(object, "/spec/limited/limitResponse/queuing/handSize")
    }),
    text("QueueLengthLimit", "Requests that may wait in a queue.", |object, _| {
        shown(object, "/spec/limited/limitResponse/queuing/queueLengthLimit")
    }),
    AGE,
];
const RUNTIME_CLASS: &[Spec] = &[NAME, field("Handler", "How nodes run its pods.", "/handler"), AGE];
const IP_ADDRESS: &[Spec] = &[NAME, text("ParentRef", "Whose address it is.", parent), AGE];
const SERVICE_CIDR: &[Spec] = &[
    NAME,
    text("CIDRs", "Where addresses come from.", |object, _| {
        let cidrs = items(object, "/spec/cidrs").iter().filter_map(Value::as_str);
        json!(cidrs.collect::<Vec<_>>().join(","))
    }),
    AGE,
];
const CLAIM: &[Spec] = &[NAME, text("State", "How it stands.", claim_state), AGE];
const SLICE: &[Spec] = &[
    NAME,
    text("Node", "Where its devices are.", |object, _| or(str_at(object, "/spec/nodeName"), UNSET)),
    field("Driver", "Whose devices they are.", "/spec/driver"),
    field("Pool", "To which pool they belong.", "/spec/pool/name"),
    AGE,
];
const MIGRATION: &[Spec] = &[
    NAME,
    text("Resource", "What is written anew.", |object, _| {
        let (name, group) =
            (str_at(object, "/spec/resource/resource"), str_at(object, "/spec/resource/group"));
        json!(if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") })
    }),
    AGE,
];

/// `used/hard` of a quota, of the limits or of all but the limits.
fn usage(quota: &Value, limits: bool) -> String {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten();
    let chosen = hard.filter(|(name, _)| name.starts_with("limits.") == limits);
    let used = |name: &str| quota["status"]["used"][name].as_str().unwrap_or("0").to_owned();
    let texts =
        chosen.map(|(name, hard)| format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or_default()));
    texts.collect::<Vec<_>>().join(", ")
}

fn param_kind(object: &Value, _now: Timestamp) -> Value {
    match str_at(object, "/spec/paramKind/kind") {
        "" => json!(UNSET),
        kind => json!(format!("{}/{kind}", str_at(object, "/spec/paramKind/apiVersion"))),
    }
}

fn param_ref(object: &Value, _now: Timestamp) -> Value {
    let (namespace, name) =
        (str_at(object, "/spec/paramRef/namespace"), str_at(object, "/spec/paramRef/name"));
    match (namespace, name) {
        _ if object.pointer("/spec/paramRef").is_none() => json!(UNSET),
        ("", name) => json!(name),
        (namespace, name) => json!(format!("{namespace}/{name}")),
    }
}

fn shown(object: &Value, pointer: &str) -> Value {
    json!(object.pointer(pointer).map_or(NONE.to_owned(), Value::to_string))
}

fn parent(address: &Value, _now: Timestamp) -> Value {
    let part = |name: &str| str_at(address, &format!("/spec/parentRef/{name}")).to_owned();
    let resource = match part("group").as_str() {
        "" => part("resource"),
        group => format!("{}.{group}", part("resource")),
    };
    let parts = [resource, part("namespace"), part("name")];
    json!(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
}

/// Upstream's words: deleted, allocated, reserved, or pending.
fn claim_state(claim: &Value, _now: Timestamp) -> Value {
    let mut states = Vec::new();
    if claim.pointer("/metadata/deletionTimestamp").is_some() {
        states.push("deleted");
    }
    if claim.pointer("/status/allocation").is_none() {
        states.push("pending");
    } else {
        states.push("allocated");
        states.push(if items(claim, "/status/reservedFor").is_empty() { "" } else { "reserved" });
    }
    states.retain(|state| !state.is_empty());
    json!(states.join(","))
}
