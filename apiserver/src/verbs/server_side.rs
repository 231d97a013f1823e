//! Server-side apply: a configuration says what its manager wants; the server merges it into the object, or
//! makes the object.

use api::schema::{DecodeError, FieldValidation, Format, decode_custom, decode_partial, parse};
use api::status::Status;
use serde_json::{Value, json};

use crate::error::{Failure, Outcome};
use crate::registry::resource::group_version;
use crate::verbs::decode::{self, Draft, KindName};
use crate::verbs::submit::{Part, Written};
use crate::verbs::update::change;
use crate::verbs::{Call, create, ownership};

/// How often an object that appears and disappears is tried again.
const TRIES: usize = 8;

/// Applies the configuration in `body`.
///
/// # Errors
/// 409 with a cause for each conflict, 400 if the configuration isn't one of this kind.
pub async fn apply(call: &Call<'_>, part: Part, body: &[u8]) -> Outcome<Written> {
    let config = parse_config(call, KindName::of(call), body)?;
    let home = call.home();
    let config = api::convert::to_version(config, &home.api_version());
    let call = &Call { resource: &home, ..*call };
    for _ in 0..TRIES {
        if let Some(written) = change(call, part, |live| draft(call, part, live, &config)).await? {
            return Ok(written);
        }
        if part != Part::Main || !api::object::uid(&config).is_empty() {
            break;
        }
        match create::insert(call, draft(call, part, &blank(call), &config)?).await {
            // Somebody else made it meanwhile.
            Err(Failure::Status(status)) if status.reason == api::status::Reason::AlreadyExists => {}
            other => return other,
        }
    }
    Err(call.not_found(call.name()).into())
}

/// Reads a configuration of a kind.
pub(super) fn parse_config(call: &Call<'_>, kind: KindName<'_>, body: &[u8]) -> Outcome<Value> {
    let mut parsed = parse(body, Format::Yaml)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    decode::check_kind(&mut parsed.value, kind)?;
    let decoded = match &call.resource.custom {
        _ if kind.kind != call.resource.kind => decode_partial(decode::schema(kind)?, parsed),
        Some(custom) => decode_custom(&custom.structural, parsed, FieldValidation::Strict),
        None => decode_partial(decode::own_schema(call)?, parsed),
    };
    let config = decoded.map_err(|error| Status::bad_request(untyped(call, &error)))?.object;
    match config["metadata"]["managedFields"] {
        Value::Null => Ok(config),
        _ => Err(Status::bad_request("metadata.managedFields must be nil").into()),
    }
}

fn untyped(call: &Call<'_>, error: &DecodeError) -> String {
    let resource = call.resource;
    format!(
        "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {}",
        call.namespace(),
        call.name(),
        resource.group,
        resource.version,
        resource.kind,
        undeclared(error).unwrap_or_else(|| error.to_string())
    )
}

/// Unknown fields in the words of upstream's typed merge, if that is all there is to say.
fn undeclared(error: &DecodeError) -> Option<String> {
    let DecodeError::Strict(problems) = error else { return None };
    let path =
        |problem: &String| problem.strip_prefix("unknown field \"")?.strip_suffix('"').map(str::to_owned);
    let undeclared = |path: String| format!(".{path}: field not declared in schema");
    let all: Vec<String> =
        problems.iter().map(|problem| path(problem).map(undeclared)).collect::<Option<_>>()?;
    Some(match all.as_slice() {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    })
}

/// The object that the configuration makes of `live`. Unless it names a version, it is meant for any.
pub(super) fn draft(call: &Call<'_>, part: Part, live: &Value, config: &Value) -> Outcome<Draft> {
    let mut object = ownership::apply(call, part, live, config)?;
    let metadata = api::object::metadata_mut(&mut object);
    let owners = metadata.remove("managedFields");
    if config["metadata"]["resourceVersion"].is_null() {
        metadata.remove("resourceVersion");
    }
    let mut draft = decode::value(call, KindName::of(call), object)?;
    if let Some(owners) = owners {
        api::object::metadata_mut(&mut draft.object).insert("managedFields".into(), owners);
    }
    Ok(draft)
}

/// What there is before anything is applied.
fn blank(call: &Call<'_>) -> Value {
    let resource = call.resource;
    let mut metadata = json!({"name": call.name()});
    if resource.namespaced {
        metadata["namespace"] = json!(call.namespace());
    }
    json!({
        "apiVersion": group_version(&resource.group, &resource.version),
        "kind": resource.kind,
        "metadata": metadata,
    })
}
