//! When tokens that lie in Secrets were last used: a label of the Secret says the day, so that the controllers can
//! find those that nobody has used for a year. Upstream's legacy token tracking gives the labels and texts.
//!
//! A request doesn't wait for its note. Which day it is, is all that is noted, so a Secret is written once a day at
//! most; a note that finds the queue full is left to the token's next use.

use std::sync::{Arc, Weak};

use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Identity;
use crate::body::Body;
use crate::handle::ApiServer;
use crate::peer::Peer;
use crate::pki::MASTERS_GROUP;
use crate::storage::key;

/// The ConfigMap in `kube-system` that says since when uses are noted.
const SINCE: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Notes that wait to be written; those beyond are dropped.
pub const WAITING: usize = 64;

/// A token of this Secret was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Namespace of the Secret, and of the account.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
}

/// What every cluster has from its first start on.
pub fn since(now: Timestamp) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SINCE, "namespace": "kube-system"},
        "data": {"since": day(now)},
    })
}

/// Whether a use must be noted in the Secret.
///
/// # Errors
/// The token counts no longer: in upstream's words.
pub fn judge(secret: &Value, account: &str, now: Timestamp) -> Result<bool, String> {
    let (namespace, name) = (api::object::namespace(secret), api::object::name(secret));
    let label = |name: &str| secret["metadata"]["labels"][name].as_str().unwrap_or_default();
    if !label(INVALID_SINCE).is_empty() {
        return Err(format!(
            "the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked invalid. \
             Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
             '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        ));
    }
    // Another member's clock may already be in tomorrow.
    let known = [now, now + SignedDuration::from_hours(24)].map(day);
    Ok(!known.iter().any(|day| day == label(LAST_USED)))
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// Writes notes until the server is gone.
pub async fn run(server: Weak<ApiServer>, mut uses: mpsc::Receiver<Used>) {
    while let Some(used) = uses.recv().await {
        let Some(server) = server.upgrade() else { return };
        note(&server, &used).await;
    }
}

async fn note(server: &Arc<ApiServer>, used: &Used) {
    let key = key::of_core("secrets", &used.namespace, &used.secret);
    let Ok(Some(stored)) = server.storage.read(&key).await else { return };
    let Ok(secret) = stored.to_value() else { return };
    let now = Timestamp::now();
    if judge(&secret, "", now) != Ok(true) {
        return;
    }
    let patch = json!({"metadata": {"uid": api::object::uid(&secret), "labels": {LAST_USED: day(now)}}});
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(format!("/api/v1/namespaces/{}/secrets/{}", used.namespace, used.secret))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(Body::from(patch.to_string()))
        .expect("names of objects fit into a path");
    let identity = Identity::new("system:apiserver", &[MASTERS_GROUP]);
    let code = server.handle(request, Peer::InProcess(identity)).await.status();
    if !code.is_success() {
        tracing::warn!(%code, namespace = used.namespace, secret = used.secret, "note a token's use");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_noted_once_and_what_is_marked_is_refused() {
        let noon = |day: &str| format!("{day}T12:00:00Z").parse::<Timestamp>().expect("a time");
        let secret = |label: &str, value: &str| json!({"metadata": {"namespace": "shop", "name": "old", "labels": {label: value}}});
        let judged = |day: &str| judge(&secret(LAST_USED, day), "robot", noon("2026-03-01"));
        assert_eq!(judged("2026-02-28"), Ok(true));
        assert_eq!(judged("2026-03-01"), Ok(false));
        assert_eq!(judged("2026-03-02"), Ok(false), "a clock that is ahead");
        assert_eq!(judged("nonsense"), Ok(true));
        let marked = judge(&secret(INVALID_SINCE, "2026-03-01"), "robot", noon("2026-03-01"));
        let why = marked.expect_err("it counts no longer");
        assert!(
            why.starts_with("the token in secret shop/old for service account shop/robot has been"),
            "{why}"
        );
    }
}
