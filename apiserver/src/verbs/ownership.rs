//! Who owns which fields: every write records it, and server-side apply goes by it.

use api::managed::{self, FieldSet, Manager, Operation, Writer, reset_fields};
use api::status::{FieldError, Status};
use http::header::USER_AGENT;
use serde_json::Value;

use crate::error::Outcome;
use crate::request::Verb;
use crate::verbs::Call;
use crate::verbs::decode::{self, media_type};
use crate::verbs::submit::Part;

/// The language of server-side apply.
pub const MEDIA_TYPE: &str = "application/apply-patch+yaml";
/// The longest name of a manager, in characters (upstream's limit).
const MAX_MANAGER: usize = 128;

/// Whether the request is a server-side apply, which settles ownership itself.
pub fn is_apply(call: &Call<'_>) -> bool {
    call.info.verb == Verb::Patch && media_type(call.headers) == MEDIA_TYPE
}

/// Records in `new`, which replaces `old` (null if it is new), who owns what after an ordinary write.
pub fn track(call: &Call<'_>, part: Part, old: &Value, new: &mut Value) -> Outcome<()> {
    if is_apply(call) {
        return Ok(());
    }
    let schema = decode::own_schema(call)?;
    let reset = not_written(call, part);
    let manager = manager(call, Operation::Update)?;
    let writer = Writer { manager, now: &now(), reset: &reset };
    Ok(managed::track(old, new, Some(schema), &writer).map_err(|error| error.to_status())?)
}

/// What an applied configuration makes of `live`; `live` itself if that is nothing new.
pub fn apply(call: &Call<'_>, part: Part, live: &Value, config: &Value) -> Outcome<Value> {
    let schema = decode::own_schema(call)?;
    let reset = not_written(call, part);
    let manager = manager(call, Operation::Apply)?;
    let writer = Writer { manager, now: &now(), reset: &reset };
    let force = call.info.query.flag("force");
    let applied = managed::apply(live, config, Some(schema), &writer, force);
    Ok(applied.map_err(|error| error.to_status())?.unwrap_or_else(|| live.clone()))
}

/// The fields that a write to this part of an object can't change.
fn not_written(call: &Call<'_>, part: Part) -> FieldSet {
    match part {
        Part::Main if call.resource.has_status() => reset_fields(&[&["status"]]),
        Part::Main => FieldSet::default(),
        Part::Status if call.resource.custom.is_some() => reset_fields(&[&["spec"], &["metadata"]]),
        Part::Status => reset_fields(&[&["spec"], &["metadata", "labels"], &["metadata", "ownerReferences"]]),
        Part::Finalizers | Part::EphemeralContainers | Part::Resize => reset_fields(&[&["status"]]),
    }
}

/// Who writes: what the request says, else the first word of the User-Agent.
///
/// # Errors
/// 422 if an apply doesn't say it, or says something unprintable or too long.
pub fn manager(call: &Call<'_>, operation: Operation) -> Result<Manager, Status> {
    let given = call.info.query.get("fieldManager").unwrap_or_default();
    let mut errors = Vec::new();
    if given.is_empty() && operation == Operation::Apply {
        errors.push(FieldError::required("fieldManager", "is required for apply patch"));
    }
    if given.chars().count() > MAX_MANAGER {
        errors.push(FieldError::too_long("fieldManager", MAX_MANAGER));
    }
    if let Some(c) = given.chars().find(|c| c.is_control()) {
        let why = format!("invalid character {c:?} (at position {})", given.find(c).unwrap_or_default());
        errors.push(FieldError::invalid("fieldManager", given, &why));
    }
    if !errors.is_empty() {
        return Err(Status::invalid_options("PatchOptions", "meta.k8s.io", errors));
    }
    let name = if given.is_empty() { program(call) } else { given.to_owned() };
    let resource = call.resource;
    Ok(Manager {
        name,
        operation,
        api_version: crate::registry::resource::group_version(&resource.group, &resource.version),
        subresource: call.info.subresource.clone().unwrap_or_default(),
    })
}

/// What the client calls itself, without its version.
fn program(call: &Call<'_>) -> String {
    let agent = call.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default().trim();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_MANAGER).collect();
    if name.is_empty() { "unknown".into() } else { name }
}

fn now() -> String {
    api::time::rfc3339(jiff::Timestamp::now())
}
