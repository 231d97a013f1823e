//! Nobody gains rights by writing a role or a binding.

use api::status::Status;
use serde_json::Value;

use crate::error::Outcome;
use crate::verbs::Call;

/// The caller holds what the role or binding would give.
pub fn check(call: &Call<'_>, new: &Value, old: Option<&Value>) -> Outcome<()> {
    let resource = call.resource;
    let checked = call.server.authorizer.check_escalation(call.identity, &resource.kind, old, new);
    Ok(checked
        .map_err(|why| Status::forbidden(&resource.plural, &resource.group, api::object::name(new), &why))?)
}
