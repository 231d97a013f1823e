//! Admission: what may be written, and what is added on the way.
//!
//! The plugins are upstream's, in upstream's order: first all that change the object, then, once the object
//! has proved valid, all that only judge it. Every way to write an object passes here.

mod authorizer;
mod certificates;
mod connect;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod dynamic;
mod expressions;
mod limit_ranger;
mod lookup;
mod matching;
mod mountable_secrets;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod policy;
mod priority;
mod pvc_resize;
mod question;
mod rbac_escalation;
mod reinvocation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_in_use;
mod taint_nodes;
mod token_secret;
pub mod turns;
mod webhook;

use bytes::Bytes;
use serde_json::Value;
use store::kv::Revision;

use crate::admission::turns::Turn;
use crate::error::Outcome;
use crate::registry::resource::SubresourceAction;
use crate::storage::Also;
use crate::verbs::Call;
use crate::verbs::scale::{scale_of, set_replicas};

use dynamic::settled;
pub use expressions::Programs;
pub use policy::type_check;
use question::Operation;

/// A key that must not have changed since this revision when the object is written: what was admitted
/// because of it stays true.
pub type Guard = (Bytes, Revision);

/// What admission asks of the write besides the object itself.
#[derive(Debug, Default)]
pub struct Admitted {
    /// What must still be so when the object is written.
    pub guards: Vec<Guard>,
    /// What is written in the same transaction: charged quotas, allocated addresses.
    pub also: Vec<Also>,
    /// Who charges a quota has his turn until the object is written.
    pub turn: Option<Turn>,
}

/// Completes a new object.
///
/// # Errors
/// The first refusal.
pub async fn mutate_create(call: &Call<'_>, object: &mut Value, admitted: &mut Admitted) -> Outcome<()> {
    admitted.guards.extend(namespace_lifecycle::check_create(call, object).await?);
    complete_create(call, object).await?;
    let mut rounds = dynamic::Rounds::default();
    if dynamic::mutate(call, Operation::Create, object, &Value::Null, &mut rounds).await? {
        complete_create(call, object).await?;
        dynamic::mutate_again(call, Operation::Create, object, &Value::Null, rounds).await?;
    }
    Ok(())
}

/// What the server itself adds to a new object; again, if others changed it.
async fn complete_create(call: &Call<'_>, object: &mut Value) -> Outcome<()> {
    match (call.resource.group.as_str(), call.resource.kind.as_str()) {
        ("", "Pod") => {
            limit_ranger::set_defaults(call, object).await?;
            service_account::admit(call, object).await?;
            priority::resolve(call, object).await?;
            let seconds = call.server.config.default_toleration_seconds;
            default_toleration_seconds::add(object, seconds);
            runtime_class::apply(call, object).await?;
        }
        ("", "PersistentVolumeClaim") => {
            default_storage_class::set(call, object).await?;
            storage_in_use::protect_claim(object);
        }
        ("networking.k8s.io", "Ingress") => default_ingress_class::set(call, object).await?,
        ("", "Node") => taint_nodes::add(object),
        ("", "Secret") => token_secret::fill(call, object).await?,
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::stamp(call, object)?,
        _ => {}
    }
    Ok(())
}

/// Judges a new object that is complete and valid.
///
/// # Errors
/// The first refusal.
pub async fn validate_create(call: &Call<'_>, object: &Value, admitted: &mut Admitted) -> Outcome<()> {
    node_restriction::create(call, object)?;
    match (call.resource.group.as_str(), call.resource.kind.as_str()) {
        ("", "Pod" | "PersistentVolumeClaim") => limit_ranger::check(call, object).await?,
        ("scheduling.k8s.io", "PriorityClass") => priority::check_class(call, object).await?,
        ("rbac.authorization.k8s.io", _) => rbac_escalation::check(call, object, None)?,
        ("certificates.k8s.io", "ClusterTrustBundle") => certificates::check_bundle(call, object)?,
        _ => {}
    }
    pod_security::check(call, object, &Value::Null).await?;
    Box::pin(dynamic::validate(call, Operation::Create, object, &Value::Null)).await?;
    resource_quota::charge(call, object, None, admitted).await
}

/// Completes a change.
///
/// # Errors
/// The first refusal.
pub async fn mutate_update(call: &Call<'_>, object: &mut Value, old: &Value) -> Outcome<()> {
    if is_signing_request(call) {
        certificates::complete(call, object, old);
    }
    if !is_scaled(call) {
        return dynamic::mutate_twice(call, Operation::Update, object, old).await;
    }
    let (mut scale, old) = (scale_of(call.resource, object), scale_of(call.resource, old));
    dynamic::mutate_twice(call, Operation::Update, &mut scale, &old).await?;
    set_replicas(call.resource, object, &scale);
    Ok(())
}

/// Lets policies and webhooks judge a change; of one to the number of replicas they see that.
async fn validate_dynamically(call: &Call<'_>, object: &Value, old: &Value) -> Outcome<()> {
    if !is_scaled(call) {
        return Box::pin(dynamic::validate(call, Operation::Update, object, old)).await;
    }
    let (scale, old) = (scale_of(call.resource, object), scale_of(call.resource, old));
    Box::pin(dynamic::validate(call, Operation::Update, &scale, &old)).await
}

fn is_scaled(call: &Call<'_>) -> bool {
    call.info.subresource_row().is_some_and(|row| row.action == SubresourceAction::Scale)
}

/// Judges a change that is complete and valid.
///
/// # Errors
/// The first refusal.
pub async fn validate_update(
    call: &Call<'_>,
    object: &Value,
    old: &Value,
    admitted: &mut Admitted,
) -> Outcome<()> {
    node_restriction::update(call, object, old)?;
    if is_signing_request(call) {
        certificates::check(call, object, old)?;
    }
    match call.info.subresource.as_deref() {
        None => {}
        Some("ephemeralcontainers" | "resize") => {
            pod_security::check(call, object, old).await?;
            return validate_dynamically(call, object, old).await;
        }
        Some(_) => return validate_dynamically(call, object, old).await,
    }
    match (call.resource.group.as_str(), call.resource.kind.as_str()) {
        ("rbac.authorization.k8s.io", _) => rbac_escalation::check(call, object, Some(old))?,
        ("certificates.k8s.io", "ClusterTrustBundle") if object["spec"] != old["spec"] => {
            certificates::check_bundle(call, object)?;
        }
        ("scheduling.k8s.io", _) => priority::check_class(call, object).await?,
        ("", "PersistentVolumeClaim") => {
            limit_ranger::check(call, object).await?;
            pvc_resize::check(call, object, old).await?;
        }
        _ => {}
    }
    pod_security::check(call, object, old).await?;
    validate_dynamically(call, object, old).await?;
    resource_quota::charge(call, object, Some(old), admitted).await
}

fn is_signing_request(call: &Call<'_>) -> bool {
    call.resource.group == "certificates.k8s.io" && call.resource.kind == "CertificateSigningRequest"
}

/// Admits the deletion of `old`.
///
/// # Errors
/// The first refusal.
pub async fn delete(call: &Call<'_>, old: &Value) -> Outcome<()> {
    node_restriction::delete(call, old)?;
    namespace_lifecycle::check_delete(call, api::object::name(old))?;
    if call.info.subresource.is_some() {
        return Ok(()); // An eviction has been asked about as such.
    }
    dynamic::mutate(call, Operation::Delete, &mut Value::Null, old, &mut dynamic::Rounds::default()).await?;
    Box::pin(dynamic::validate(call, Operation::Delete, &Value::Null, old)).await
}

/// Admits what is sent to a path below an object and isn't stored there: an Eviction, a Binding, a TokenRequest.
///
/// # Errors
/// The first refusal.
pub async fn create_below(call: &Call<'_>, object: &mut Value) -> Outcome<()> {
    judge_only(call, Operation::Create, object).await
}

/// Admits a stream to what the call names.
///
/// # Errors
/// The first refusal.
pub async fn connect(call: &Call<'_>, kind: &str) -> Outcome<()> {
    judge_only(call, Operation::Connect, &mut connect::options(kind, &call.info.query)).await
}

async fn judge_only(call: &Call<'_>, operation: Operation, object: &mut Value) -> Outcome<()> {
    dynamic::mutate_twice(call, operation, object, &Value::Null).await?;
    Box::pin(dynamic::validate(call, operation, object, &Value::Null)).await
}

/// Admits the making of a token that is bound to `bound`.
///
/// # Errors
/// The first refusal.
pub fn token_request(call: &Call<'_>, request: &Value, bound: Option<&Value>) -> Outcome<()> {
    node_restriction::token_request(call, request, bound)
}
