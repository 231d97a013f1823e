//! Certificate signing requests.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, Spec, field, items, or, str_at, text};

pub(super) const SIGNING_REQUEST: &[Spec] = &[
    NAME,
    AGE,
    text("SignerName", "Who is asked to sign.", |object, _| or(str_at(object, "/spec/signerName"), "<none>")),
    text("Requestor", "Who asked.", |object, _| json!(str_at(object, "/spec/username"))),
    text("RequestedDuration", "For how long.", duration),
    text("Condition", "How it stands.", condition),
];

pub(super) const TRUST_BUNDLE: &[Spec] =
    &[NAME, field("SignerName", "Whose certificates these are.", "/spec/signerName")];

pub(super) const POD_CERTIFICATE_REQUEST: &[Spec] = &[
    NAME,
    field("PodName", "For which pod.", "/spec/podName"),
    field("ServiceAccountName", "As whom it runs.", "/spec/serviceAccountName"),
    field("NodeName", "Where it runs.", "/spec/nodeName"),
    field("SignerName", "Who is asked to sign.", "/spec/signerName"),
    text("State", "How it stands.", state),
];

fn state(object: &Value, _: Timestamp) -> Value {
    let conditions = items(object, "/status/conditions");
    let known = ["Denied", "Failed", "Issued"];
    let found = known.into_iter().find(|kind| conditions.iter().any(|one| one["type"] == *kind));
    json!(found.unwrap_or("Pending"))
}

fn duration(object: &Value, _: Timestamp) -> Value {
    match object.pointer("/spec/expirationSeconds").and_then(Value::as_i64) {
        Some(seconds) => json!(api::time::human_duration(seconds)),
        None => json!("<none>"),
    }
}

/// Approved or denied, and what became of that.
fn condition(object: &Value, _: Timestamp) -> Value {
    let has =
        |kind: &str| items(object, "/status/conditions").iter().any(|condition| condition["type"] == kind);
    let mut words = match (has("Denied"), has("Approved")) {
        (true, _) => vec!["Denied"],
        (_, true) => vec!["Approved"],
        _ => vec!["Pending"],
    };
    if has("Failed") {
        words.push("Failed");
    }
    if !str_at(object, "/status/certificate").is_empty() {
        words.push("Issued");
    }
    json!(words.join(","))
}
