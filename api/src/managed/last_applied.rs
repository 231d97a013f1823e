//! The passage from client-side apply, which keeps what it applied in an annotation, to server-side apply.
//!
//! kubectl may take over what kubectl applied on the client's side, as long as nobody changed it since; a
//! client that calls itself otherwise may not (upstream's lastAppliedManager).

use serde_json::Value;

use super::ApplyError;
use super::compare::compare;
use super::extract::fields_of;
use super::set::FieldSet;
use crate::schema::Schema;

/// Whose annotation it is.
const KUBECTL: &str = "kubectl";
const POINTER: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// The parts of `live` that are as the client-side apply of this manager left them.
pub(super) fn unchanged(
    manager: &str,
    live: &Value,
    schema: Option<&Schema>,
) -> Result<FieldSet, ApplyError> {
    let applied = live.pointer(POINTER).and_then(Value::as_str).filter(|_| manager == KUBECTL);
    let Some(applied) = applied.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Ok(FieldSet::default());
    };
    let changes = compare(&applied, live, schema)?;
    let same = fields_of(&applied, schema)?.difference(&changes.modified);
    Ok(same.difference(&changes.added).difference(&changes.removed))
}

/// Keeps the annotation true, so that the client's side can go on where the server's side ended.
pub(super) fn refresh(manager: &str, object: &mut Value, config: &Value) {
    if manager == KUBECTL
        && let Some(annotation) = object.pointer_mut(POINTER)
    {
        *annotation = Value::String(format!("{config}\n"));
    }
}
