//! Certificate requests: nodes' own are approved, approved ones are signed, old ones are forgotten.
//!
//! Upstream's csrapproving, csrsigning and csrcleaner in one: they look at the same object and never at the same
//! time. The key that signs is behind [`CertificateSigner`]; whether somebody may ask is asked of the API server.

use crate::plan::{Action, Part, Plan, Target, to_value};
use api::csr::{API_CLIENT, CertificateRequest, NODE_CLIENT, NODE_SERVING};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use serde_json::json;
use std::{net::IpAddr, ops::Range};

/// Signs with the cluster's authority.
pub trait CertificateSigner: Send + Sync {
    /// A certificate in PEM for these usages, valid for these seconds since 1970 or less.
    ///
    /// # Errors
    /// Why it can't be made; trying again would not help.
    fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        valid: Range<i64>,
    ) -> Result<String, String>;
}

/// A request of a node for itself, or for a new node: what its sender must be allowed to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognised {
    /// Subresource of `certificatesigningrequests`.
    pub permission: &'static str,
    message: &'static str,
}

const SELF: Recognised = Recognised {
    permission: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const OTHER: Recognised = Recognised {
    permission: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};
const SERVING: Recognised = Recognised {
    permission: "selfnodeserver",
    message: "Auto approving kubelet serving certificate: it names the node and what the node reports.",
};
/// A Node may reach us after the request of its agent.
const NODE_PATIENCE: SignedDuration = SignedDuration::from_secs(1);
/// Clocks of others may be behind by this.
const BACKDATE_SECONDS: i64 = 5 * 60;
/// A year: how long a certificate lasts unless less is asked for.
const LONGEST_SECONDS: i64 = 365 * 24 * 3600;
/// How long requests are kept, as upstream: those nobody decided on, and those that are done.
const KEEP_PENDING: SignedDuration = SignedDuration::from_hours(24);
const KEEP_DONE: SignedDuration = SignedDuration::from_hours(1);

/// As what a request could be approved without a person, in the order in which it is tried.
pub fn recognise(request: &CertificateSigningRequest) -> Vec<Recognised> {
    let spec = &request.spec;
    let undecided = !has(request, "Approved") && !has(request, "Denied");
    let asked = CertificateRequest::parse(&spec.request.0);
    let Some(asked) = asked.ok().filter(|_| undecided && spec.signer_name == NODE_CLIENT) else {
        return Vec::new();
    };
    if asked.check(NODE_CLIENT, usages(request)).is_err() {
        return Vec::new();
    }
    match spec.username.as_deref() == Some(asked.common_name.as_str()) {
        true => vec![SELF, OTHER],
        false => vec![OTHER],
    }
}

/// What a kubelet may be reached by, for the decision on its serving certificate.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// The addresses that the Node reports; `None` if there is no such Node yet.
    pub node: Option<Vec<IpAddr>>,
    /// Addresses of API servers: nobody else may show a certificate for them.
    pub servers: Vec<IpAddr>,
}

/// The node that asks for a certificate to serve with, if it asks for itself and nobody has decided yet.
pub fn serving_node(request: &CertificateSigningRequest) -> Option<String> {
    let spec = &request.spec;
    let undecided = !has(request, "Approved") && !has(request, "Denied");
    let asked = CertificateRequest::parse(&spec.request.0).ok();
    let asked = asked.filter(|_| undecided && spec.signer_name == NODE_SERVING)?;
    let own = spec.username.as_deref() == Some(asked.common_name.as_str());
    let fits = own && asked.check(NODE_SERVING, usages(request)).is_ok();
    asked.common_name.strip_prefix("system:node:").filter(|_| fits).map(str::to_owned)
}

/// Approves a node's serving certificate if it names the node and nothing else: its own name, and addresses that it
/// reports and that no API server has. Upstream leaves this to somebody else; a certificate for a foreign name would
/// make the node an API server to others, so whatever goes beyond waits for a person.
pub fn approve_serving(
    request: &CertificateSigningRequest,
    node: &str,
    reached: &Reached,
    now: Timestamp,
) -> Plan {
    let Some(own) = &reached.node else {
        let mut plan = Plan::nothing();
        plan.look_again(now.saturating_add(NODE_PATIENCE).unwrap_or(Timestamp::MAX));
        return plan;
    };
    let asked = CertificateRequest::parse(&request.spec.request.0).unwrap_or_default();
    let is_reserved = node == "localhost" || node == "kubernetes" || node.starts_with("kubernetes.");
    let names = asked.names.iter().all(|name| name == node) && !is_reserved;
    let addresses = asked.addresses.iter().all(|ip| own.contains(ip) && !reached.servers.contains(ip));
    match names && addresses {
        true => approve(request, SERVING),
        false => Plan::nothing(),
    }
}

/// Approves a request that was recognised and may be made.
pub fn approve(request: &CertificateSigningRequest, as_what: Recognised) -> Plan {
    let mut plan = Plan::nothing();
    let conditions = with_condition(request, "Approved", "AutoApproved", as_what.message);
    plan.patch(
        Target::of(request),
        Part::Approval,
        json!({"status": {"conditions": conditions}}),
        format!("its sender may create {}", as_what.permission),
    );
    plan
}

/// Signs what is approved, and forgets what is old.
pub fn reconcile(
    request: &CertificateSigningRequest,
    signer: &dyn CertificateSigner,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::nothing();
    let ours = [API_CLIENT, NODE_CLIENT, NODE_SERVING].contains(&request.spec.signer_name.as_str());
    let wanted = has(request, "Approved") && !has(request, "Failed") && !is_issued(request);
    if ours && wanted {
        plan.push(signed(request, signer, now));
        return plan;
    }
    let Some(end) = end(request) else { return plan };
    match end <= now {
        false => plan.look_again(end),
        true => plan.delete(Target::of(request), "it was kept long enough"),
    }
    plan
}

fn signed(request: &CertificateSigningRequest, signer: &dyn CertificateSigner, now: Timestamp) -> Action {
    let (status, reason) = match certificate(request, signer, now) {
        Ok(pem) => {
            (json!({"certificate": k8s_openapi::ByteString(pem.into_bytes())}), "it is approved".to_owned())
        }
        Err(why) => {
            let conditions = with_condition(request, "Failed", "SignerValidationFailure", &why);
            (json!({"conditions": conditions}), why)
        }
    };
    Action::Patch {
        target: Target::of(request),
        part: Part::Status,
        patch: json!({"status": status}),
        reason,
    }
}

fn certificate(
    request: &CertificateSigningRequest,
    signer: &dyn CertificateSigner,
    now: Timestamp,
) -> Result<String, String> {
    let spec = &request.spec;
    let asked = CertificateRequest::parse(&spec.request.0)?;
    asked.check(&spec.signer_name, usages(request))?;
    let seconds = spec.expiration_seconds.map_or(LONGEST_SECONDS, i64::from).min(LONGEST_SECONDS);
    let now = now.as_second();
    signer.sign(&asked, usages(request), now - BACKDATE_SECONDS..now + seconds)
}

/// When it may be forgotten.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let since = |kind: &str| {
        let condition = conditions(request).iter().find(|condition| condition.type_ == kind)?;
        condition.last_update_time.as_ref().map(|time| time.0)
    };
    let done = ["Denied", "Failed", "Approved"].into_iter().find_map(since);
    match done {
        Some(done) => done.checked_add(KEEP_DONE).ok(),
        None => request.metadata.creation_timestamp.as_ref()?.0.checked_add(KEEP_PENDING).ok(),
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    let status = request.status.as_ref();
    status.and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}

fn usages(request: &CertificateSigningRequest) -> &[String] {
    request.spec.usages.as_deref().unwrap_or_default()
}

/// All conditions and one more; the server says since when.
fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> Vec<serde_json::Value> {
    let present = conditions(request).iter().map(to_value);
    let new = json!({"type": kind, "status": "True", "reason": reason, "message": message});
    present.chain([new]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// A request by the key of node n1, made once with openssl.
    const NODE_REQUEST: &str = include_str!("../testdata/node.csr");

    struct Names;

    impl CertificateSigner for Names {
        fn sign(
            &self,
            request: &CertificateRequest,
            usages: &[String],
            valid: Range<i64>,
        ) -> Result<String, String> {
            let life = valid.end - valid.start;
            Ok(format!("{} for {} during {life}", request.common_name, usages.join("+")))
        }
    }

    fn request(username: &str, change: Value) -> CertificateSigningRequest {
        let mut object = json!({
            "metadata": {"name": "r", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "request": k8s_openapi::ByteString(NODE_REQUEST.as_bytes().to_vec()),
                "signerName": NODE_CLIENT,
                "username": username,
                "usages": ["digital signature", "client auth"],
            },
        });
        if !change["status"].is_null() {
            object["status"] = change["status"].clone();
        }
        for (field, value) in change["spec"].as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value(object).expect("a request")
    }

    fn decided(kind: &str) -> Value {
        json!({"status": {"conditions": [{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T01:00:00Z"}]}})
    }

    fn plan(request: &CertificateSigningRequest, now: &str) -> String {
        reconcile(request, &Names, now.parse().expect("a time")).to_string()
    }

    #[test]
    fn nodes_ask_for_themselves_and_bootstrappers_for_nodes() {
        let permissions = |request: &CertificateSigningRequest| -> Vec<&str> {
            recognise(request).into_iter().map(|recognised| recognised.permission).collect()
        };
        assert_eq!(permissions(&request("system:node:n1", Value::Null)), ["selfnodeclient", "nodeclient"]);
        assert_eq!(permissions(&request("system:bootstrap:abcdef", Value::Null)), ["nodeclient"]);
        assert!(permissions(&request("system:node:n1", decided("Denied"))).is_empty());
        let other = json!({"spec": {"signerName": API_CLIENT}});
        assert!(permissions(&request("system:node:n1", other)).is_empty(), "people decide on people");
        let more = json!({"spec": {"usages": ["digital signature", "client auth", "server auth"]}});
        assert!(permissions(&request("system:node:n1", more)).is_empty());
        let approved = approve(&request("system:node:n1", Value::Null), SELF).to_string();
        assert!(
            approved.starts_with("patch approval of certificatesigningrequests r [uid u v1]"),
            "{approved}"
        );
    }

    #[test]
    fn what_is_approved_is_signed_for_as_long_as_was_asked() {
        let now = "2026-01-01T01:00:00Z";
        let approved = request("jane", decided("Approved"));
        let pem = b"system:node:n1 for digital signature+client auth during 31536300".to_vec();
        let encoded = serde_json::to_string(&k8s_openapi::ByteString(pem)).expect("text");
        assert!(plan(&approved, now).contains(&encoded), "{}", plan(&approved, now));
        let mut short = decided("Approved");
        short["spec"] = json!({"expirationSeconds": 600});
        let pem = b"system:node:n1 for digital signature+client auth during 900".to_vec();
        let encoded = serde_json::to_string(&k8s_openapi::ByteString(pem)).expect("text");
        assert!(plan(&request("jane", short), now).contains(&encoded));
        let mut wrong = decided("Approved");
        wrong["spec"] = json!({"usages": ["code signing"]});
        let failed = plan(&request("jane", wrong), now);
        assert!(
            failed.contains("SignerValidationFailure") && failed.contains("usages did not match"),
            "{failed}"
        );
        assert_eq!(plan(&request("jane", decided("Failed")), now), "look again at 2026-01-01T02:00:00Z\n");
        let mut foreign = decided("Approved");
        foreign["spec"] = json!({"signerName": "example.com/mine"});
        assert!(!plan(&request("jane", foreign), now).contains("patch"), "others sign for other signers");
    }

    /// By the key of node n1, with the name n1 and the address 10.0.0.1, made once with openssl.
    const SERVING_REQUEST: &str = include_str!("../testdata/serving.csr");

    #[test]
    fn a_node_serves_under_its_own_names_only() {
        let serving = |username: &str| {
            let spec = json!({
                "request": k8s_openapi::ByteString(SERVING_REQUEST.as_bytes().to_vec()),
                "signerName": NODE_SERVING,
                "usages": ["digital signature", "server auth"],
            });
            request(username, json!({"spec": spec}))
        };
        assert_eq!(serving_node(&serving("system:node:n1")).as_deref(), Some("n1"));
        assert_eq!(serving_node(&serving("system:node:n2")), None, "for itself only");
        assert_eq!(serving_node(&request("system:node:n1", Value::Null)), None, "another signer's");
        let now = Timestamp::from_second(5).expect("a time");
        let plan = |node: Option<&str>, server: &str| {
            let node = node.map(|ip| vec![ip.parse().expect("an address")]);
            let reached = Reached { node, servers: vec![server.parse().expect("an address")] };
            approve_serving(&serving("system:node:n1"), "n1", &reached, now).to_string()
        };
        assert!(plan(Some("10.0.0.1"), "10.0.0.9").starts_with("patch approval"));
        assert_eq!(plan(Some("10.0.0.2"), "10.0.0.9"), "nothing\n", "an address that it doesn't report");
        assert_eq!(plan(Some("10.0.0.1"), "10.0.0.1"), "nothing\n", "an API server's address");
        assert_eq!(plan(None, "10.0.0.9"), "look again at 1970-01-01T00:00:06Z\n");
        let reached =
            Reached { node: Some(vec!["10.0.0.1".parse().expect("an address")]), servers: Vec::new() };
        let other = approve_serving(&serving("system:node:n1"), "kubernetes", &reached, now);
        assert_eq!(other, Plan::nothing(), "a name that isn't the node's");
    }

    #[test]
    fn old_requests_are_forgotten() {
        let pending = request("jane", Value::Null);
        assert_eq!(plan(&pending, "2026-01-01T01:00:00Z"), "look again at 2026-01-02T00:00:00Z\n");
        assert!(plan(&pending, "2026-01-02T00:00:00Z").starts_with("delete certificatesigningrequests r"));
        let denied = request("jane", decided("Denied"));
        assert_eq!(plan(&denied, "2026-01-01T01:00:00Z"), "look again at 2026-01-01T02:00:00Z\n");
        assert!(plan(&denied, "2026-01-01T02:00:00Z").starts_with("delete certificatesigningrequests r"));
    }
}
