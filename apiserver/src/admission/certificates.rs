//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may ask for a certificate, who
//! may approve it, and who may sign.
//!
//! A request says who made it; that is ours to write. `approval` writes Approved and Denied, `status` the
//! certificate and whatever else there is to say: each leaves the other's part alone.

use api::csr::{API_CLIENT, CertificateRequest};
use api::object;
use api::status::{FieldError, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::Attributes;
use crate::error::Outcome;
use crate::pki::MASTERS_GROUP;
use crate::verbs::Call;

const GROUP: &str = "certificates.k8s.io";
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];

/// Notes in a new request who makes it.
///
/// # Errors
/// 403 for a client certificate of the group that may do everything: nobody can take it away again.
pub fn stamp(call: &Call<'_>, request: &mut Value) -> Outcome<()> {
    let spec = object::map_at(request, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    let who = call.identity;
    spec.insert("username".to_owned(), json!(who.user));
    if let Some(uid) = &who.uid {
        spec.insert("uid".to_owned(), json!(uid));
    }
    if !who.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(who.groups));
    }
    if !who.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(who.extra));
    }
    let asks_for_all = request["spec"]["signerName"] == API_CLIENT
        && asked(request).is_some_and(|asked| asked.organizations.iter().any(|group| group == MASTERS_GROUP));
    match asks_for_all {
        false => Ok(()),
        true => {
            let why = format!("use of {API_CLIENT} signer with {MASTERS_GROUP} group is not allowed");
            Err(forbidden(request, &why).into())
        }
    }
}

fn asked(request: &Value) -> Option<CertificateRequest> {
    let pem = STANDARD.decode(request["spec"]["request"].as_str()?).ok()?;
    CertificateRequest::parse(&pem).ok()
}

fn forbidden(request: &Value, why: &str) -> Status {
    Status::forbidden("certificatesigningrequests", GROUP, object::name(request), why)
}

/// Leaves the certificate alone where only the decision is written, and says when conditions changed.
pub fn complete(call: &Call<'_>, new: &mut Value, old: &Value) {
    match call.info.subresource.as_deref() {
        Some("approval") => {
            let conditions = new["status"]["conditions"].take();
            let mut status = old["status"].as_object().cloned().unwrap_or_default();
            status.insert("conditions".to_owned(), conditions);
            status.retain(|_, value| !value.is_null());
            new["status"] = Value::Object(status);
        }
        Some(_) => {}
        None => return,
    }
    let now = api::time::rfc3339(Timestamp::now());
    for condition in new["status"].get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let kind = condition["type"].as_str().unwrap_or_default().to_owned();
        let before = of_type(old, &kind).next();
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(now);
        }
        if condition["lastTransitionTime"].is_null() {
            let kept = before.filter(|before| before["status"] == condition["status"]);
            let kept = kept.map(|before| before["lastTransitionTime"].clone()).filter(|time| !time.is_null());
            condition["lastTransitionTime"] = kept.unwrap_or_else(|| json!(now));
        }
    }
}

/// The conditions of a type.
fn of_type<'a>(request: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let conditions = request["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(move |condition| condition["type"] == kind)
}

/// Judges a change: what each subresource may write, and whether the caller may.
///
/// # Errors
/// 403 without the right to approve or sign for the request's signer, 422 for what can't be changed there.
pub fn check(call: &Call<'_>, new: &Value, old: &Value) -> Outcome<()> {
    let subresource = call.info.subresource.as_deref();
    let errors = refused_changes(subresource, new, old);
    if !errors.is_empty() {
        let kind = &call.resource.kind;
        return Err(Status::invalid(kind, GROUP, object::name(new), errors).into());
    }
    let verb = match subresource {
        Some("approval") => "approve",
        Some("status") if new["status"] != old["status"] => "sign",
        _ => return Ok(()),
    };
    let signer = new["spec"]["signerName"].as_str().unwrap_or_default();
    match may(call, verb, signer) {
        true => Ok(()),
        false => {
            let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
            Err(forbidden(new, &why).into())
        }
    }
}

/// Whether the caller has the verb on the signer, or on all signers of its domain.
fn may(call: &Call<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let act = Attributes {
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            is_resource: true,
            ..Attributes::default()
        };
        call.server.authorizer.authorize(call.identity, &act).allowed
    })
}

/// Judges a bundle of trust anchors: who writes one of a signer speaks for the signer.
///
/// # Errors
/// 403 without the right to.
pub fn check_bundle(call: &Call<'_>, bundle: &Value) -> Outcome<()> {
    let signer = bundle["spec"]["signerName"].as_str().unwrap_or_default();
    if signer.is_empty() || may(call, "attest", signer) {
        return Ok(());
    }
    let why = format!("user not permitted to attest for signerName {signer:?}");
    Err(Status::forbidden("clustertrustbundles", GROUP, object::name(bundle), &why).into())
}

fn refused_changes(subresource: Option<&str>, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut refuse = |path: &str, why: String| errors.push(FieldError::forbidden(path, why));
    for kind in LASTING {
        let (before, after) = (of_type(old, kind).count(), of_type(new, kind).count());
        let decides = DECISIONS.contains(&kind) && subresource != Some("approval");
        if after < before {
            refuse("status.conditions", format!("updates may not remove a condition of type {kind:?}"));
        } else if decides && after > before {
            refuse("status.conditions", format!("updates may not add a condition of type {kind:?}"));
        } else if decides && of_type(old, kind).ne(of_type(new, kind)) {
            refuse("status.conditions", format!("updates may not modify a condition of type {kind:?}"));
        }
    }
    let certificate =
        |object: &Value| object["status"]["certificate"].as_str().unwrap_or_default().to_owned();
    let (before, after) = (certificate(old), certificate(new));
    if before != after && !before.is_empty() {
        refuse("status.certificate", "updates may not modify existing certificate content".to_owned());
    }
    errors
}
