//! The audit log: who did what, as lines of `audit.k8s.io/v1` Events in a file.
//!
//! What was written is in the store's journal already, with its author, in the same transaction as the write; that
//! record can't be lost or forged. The file adds what the journal can't know: what was refused, what was read, from
//! where, and the answer's code. The annotation `amoeba.dev/revision` of a write names its record in the journal.
//! A [`policy`] in upstream's form says what is recorded. Events go to the file's own thread by a bounded queue;
//! when the disk doesn't keep up, requests wait, so that nothing acts unrecorded.

pub mod annotations;
pub mod file;
pub mod policy;

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use http::header::USER_AGENT;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::auth::Identity;
use crate::metrics::Text;
use crate::peer::Peer;
use crate::request::RequestInfo;
use file::{Rotating, Rotation};
use policy::{Level, Policy};

/// Events that wait for the disk; beyond it requests wait.
const QUEUE: usize = 10_000;

/// Where and what to record.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// What is recorded.
    pub policy: Policy,
    /// The file.
    pub path: std::path::PathBuf,
    /// When it is set aside, and how long it is kept.
    pub rotation: Rotation,
}

/// Records requests.
pub struct Audit {
    policy: Policy,
    lines: mpsc::Sender<Vec<u8>>,
    recorded: AtomicU64,
}

/// What is known of a request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The request's head.
    pub parts: &'a Parts,
    /// What it asked for.
    pub info: &'a RequestInfo,
    /// Who asked, before impersonation.
    pub caller: &'a Identity,
    /// As whom it was answered.
    pub identity: &'a Identity,
    /// The other end.
    pub peer: &'a Peer,
    /// The request's id.
    pub id: &'a HeaderValue,
    /// The code of the answer.
    pub code: u16,
    /// When it came.
    pub began: Timestamp,
    /// When it was answered.
    pub ended: Timestamp,
}

impl Audit {
    /// Opens the file.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn open(config: &AuditConfig) -> std::io::Result<Self> {
        let mut file = Rotating::open(&config.path, config.rotation)?;
        let (lines, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        // Ends when the last sender is dropped, after all that was queued is written.
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            while let Some(line) = queue.blocking_recv() {
                if let Err(error) = file.append(&line) {
                    tracing::error!(%error, "the audit log can't be written");
                }
            }
        })?;
        Ok(Self { policy: config.policy.clone(), lines, recorded: AtomicU64::new(0) })
    }

    /// Records the request if the policy says so.
    pub async fn record(&self, answered: Answered<'_>) {
        if self.policy.level(answered.identity, answered.info) == Level::None {
            return;
        }
        let mut line = event(&answered).to_string().into_bytes();
        line.push(b'\n');
        // Waits while the queue is full; the thread ends only after us.
        if self.lines.send(line).await.is_ok() {
            self.recorded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends the counter of events.
    pub fn render(&self, text: &mut Text) {
        text.family("apiserver_audit_event_total", "counter", "Audit events that were recorded.");
        text.sample("apiserver_audit_event_total", &[], self.recorded.load(Ordering::Relaxed));
    }
}

fn event(answered: &Answered<'_>) -> Value {
    let Answered { parts, info, caller, identity, .. } = answered;
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": answered.id.to_str().unwrap_or_default(),
        "stage": "ResponseComplete",
        "requestURI": parts.uri.to_string(),
        "verb": info.verb.as_str(),
        "user": user(caller),
        "sourceIPs": [],
        "responseStatus": {"metadata": {}, "code": answered.code},
        "requestReceivedTimestamp": api::time::rfc3339_micros(answered.began),
        "stageTimestamp": api::time::rfc3339_micros(answered.ended),
    });
    if identity.user != caller.user {
        event["impersonatedUser"] = user(identity);
    }
    if let Peer::Tls { addr, .. } = answered.peer {
        event["sourceIPs"] = json!([addr.ip().to_string()]);
    }
    if let Some(agent) = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
        event["userAgent"] = json!(agent);
    }
    if info.is_resource {
        event["objectRef"] = object_ref(info);
    }
    let annotations = info.annotations.all();
    if !annotations.is_empty() {
        event["annotations"] = json!(annotations);
    }
    event
}

fn user(identity: &Identity) -> Value {
    let mut user = json!({"username": identity.user, "groups": identity.groups});
    if let Some(uid) = &identity.uid {
        user["uid"] = json!(uid);
    }
    user
}

/// What is empty is left out, as upstream does.
fn object_ref(info: &RequestInfo) -> Value {
    let parts = [
        ("resource", info.plural.as_str()),
        ("namespace", info.namespace.as_deref().unwrap_or_default()),
        ("name", info.name.as_deref().unwrap_or_default()),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", info.subresource.as_deref().unwrap_or_default()),
    ];
    parts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key, json!(value))).collect()
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::*;
    use crate::registry::Registry;

    #[tokio::test]
    async fn who_did_what_with_which_outcome_is_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let config =
            AuditConfig { policy: Policy::default(), path: path.clone(), rotation: Rotation::default() };
        let audit = Audit::open(&config).expect("it opens");
        let uri = "/api/v1/namespaces/a/pods/p";
        let request = Request::builder().method("DELETE").uri(uri).header("user-agent", "kubectl/v1");
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let info = RequestInfo::parse(&Method::DELETE, uri, "", &Registry::builtin());
        let (caller, identity) = (Identity::new("jane", &["dev"]), Identity::new("joe", &[]));
        let time: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let peer = Peer::Tls { certs: Vec::new(), addr: ([10, 0, 0, 1], 7).into() };
        let id = HeaderValue::from_static("id-1");
        let answered = Answered {
            parts: &parts,
            info: &info,
            caller: &caller,
            identity: &identity,
            peer: &peer,
            id: &id,
            code: 403,
            began: time,
            ended: time,
        };
        audit.record(answered).await;
        drop(audit);
        let line = crate::audit::file::tests::wait_for_lines(&path, 1).remove(0);
        assert_eq!(
            serde_json::from_str::<Value>(&line).expect("JSON"),
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "id-1",
                "stage": "ResponseComplete", "requestURI": uri, "verb": "delete",
                "user": {"username": "jane", "groups": caller.groups},
                "impersonatedUser": {"username": "joe", "groups": identity.groups},
                "sourceIPs": ["10.0.0.1"], "userAgent": "kubectl/v1",
                "objectRef": {"resource": "pods", "namespace": "a", "name": "p", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 403},
                "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
                "stageTimestamp": "2026-01-01T00:00:00.000000Z",
            })
        );
    }
}
