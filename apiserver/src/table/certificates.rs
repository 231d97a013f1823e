//! Certificate signing requests.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, Spec, items, or, str_at, text};

pub(super) const SIGNING_REQUEST: &[Spec] = &[
    NAME,
    AGE,
    text("SignerName", "Who is asked to sign.", |object, _| or(str_at(object, "/spec/signerName"), "<none>")),
    text("Requestor", "Who asked.", |object, _| json!(str_at(object, "/spec/username"))),
    text("RequestedDuration", "For how long.", duration),
    text("Condition", "How it stands.", condition),
];

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
