//! Admission: what may be written, and what is added on the way.
//!
//! The plugins are upstream's, in upstream's order: first all that change the object, then all that only
//! judge it. Every way to write an object passes here.

mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod rbac_escalation;
mod service_account;
mod taint_nodes;

use bytes::Bytes;
use serde_json::Value;
use store::kv::Revision;

use crate::error::Outcome;
use crate::verbs::Call;

/// A key that must not have changed since this revision when the object is written: what was admitted
/// because of it stays true.
pub type Guard = (Bytes, Revision);

/// Admits a new object.
///
/// # Errors
/// The first refusal.
pub async fn create(call: &Call<'_>, object: &mut Value) -> Outcome<Vec<Guard>> {
    let guards = namespace_lifecycle::check_create(call, object).await?;
    match (call.resource.group.as_str(), call.resource.kind.as_str()) {
        ("", "Pod") => {
            service_account::set_default(object);
            priority::resolve(call, object).await?;
            let seconds = call.server.config.default_toleration_seconds;
            default_toleration_seconds::add(object, seconds);
        }
        ("", "Node") => taint_nodes::add(object),
        ("scheduling.k8s.io", "PriorityClass") => priority::check_class(call, object).await?,
        ("rbac.authorization.k8s.io", _) => rbac_escalation::check(call, object, None)?,
        _ => {}
    }
    Ok(guards)
}

/// Admits a change.
///
/// # Errors
/// The first refusal.
pub async fn update(call: &Call<'_>, object: &mut Value, old: &Value) -> Outcome<()> {
    match call.resource.group.as_str() {
        "rbac.authorization.k8s.io" => rbac_escalation::check(call, object, Some(old)),
        "scheduling.k8s.io" => priority::check_class(call, object).await,
        _ => Ok(()),
    }
}

/// Admits a deletion.
///
/// # Errors
/// The first refusal.
pub fn delete(call: &Call<'_>) -> Outcome<()> {
    namespace_lifecycle::check_delete(call)
}

/// Admits the making of a token that is bound to `bound`.
///
/// # Errors
/// The first refusal.
pub fn token_request(call: &Call<'_>, request: &Value, bound: Option<&Value>) -> Outcome<()> {
    node_restriction::token_request(call, request, bound)
}
