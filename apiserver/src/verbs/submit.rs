//! What every write passes between decoding and the store: the kind's own preparation, defaults, admission,
//! validation, and the size limit.

use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;
use store::kv::Revision;

use crate::addresses;
use crate::admission::{self, Admitted};
use crate::body::Body;
use crate::error::Outcome;
use crate::query::Query;
use crate::storage::key::Key;
use crate::storage::object::{Stored, encode};
use crate::verbs::view::View;
use crate::verbs::{Call, metadata, ownership, present};

/// Which part of an object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but status.
    Main,
    /// Only status.
    Status,
    /// Only a namespace's `spec.finalizers`.
    Finalizers,
    /// Only a pod's `spec.ephemeralContainers`.
    EphemeralContainers,
    /// Only what a pod's containers may use.
    Resize,
}

/// The outcome of a write.
#[derive(Debug)]
pub struct Written {
    /// The object as it is now, or would be.
    pub stored: Stored,
    /// Whether it is new.
    pub created: bool,
}

impl Written {
    /// The answer that shows the object.
    pub async fn respond(self, call: &Call<'_>, view: &View) -> Outcome<Response<Body>> {
        let code = if self.created { StatusCode::CREATED } else { StatusCode::OK };
        view.object(call, code, self.stored).await
    }
}

/// Completes a new object whose metadata is set already, and refuses what can't be stored.
pub async fn complete_new(call: &Call<'_>, new: &mut Value) -> Outcome<Admitted> {
    let resource = call.resource;
    resource.strategy.prepare_create(new);
    apply_defaults(call, new);
    track(call, Part::Main, &Value::Null, new)?;
    let mut admitted = Admitted::default();
    admission::mutate_create(call, new, &mut admitted).await?;
    addresses::assign(call, new, &Value::Null, &mut admitted).await?;
    resource.strategy.finish_create(new);
    admission::type_check::complete(call, new);
    let mut errors = api::validation::validate_create(&resource.group, &resource.kind, new);
    errors.extend(custom_errors(call, new, None));
    refuse(call, new, errors)?;
    admission::validate_create(call, new, &mut admitted).await?;
    Ok(admitted)
}

/// Fills in what the kind has defaults for.
pub fn apply_defaults(call: &Call<'_>, object: &mut Value) {
    match &call.resource.custom {
        Some(custom) => api::crd::default(&custom.structural, object),
        None => api::defaults::apply(&call.resource.group, &call.resource.kind, object),
    }
}

/// Records who owns what. Where that fails because the object isn't what its schema says, the schema's own
/// complaint is the better answer.
fn track(call: &Call<'_>, part: Part, old: &Value, new: &mut Value) -> Outcome<()> {
    let Err(failure) = ownership::track(call, part, old, new) else { return Ok(()) };
    refuse(call, new, custom_errors(call, new, Some(old)))?;
    Err(failure)
}

/// What a custom kind's own schema has against the object, which replaces `old`.
fn custom_errors(call: &Call<'_>, object: &Value, old: Option<&Value>) -> Vec<api::status::FieldError> {
    let custom = call.resource.custom.as_ref();
    custom.map(|custom| api::crd::validate_object(&custom.structural, object, old)).unwrap_or_default()
}

/// Completes an object that replaces `old`, keeping what this part of it may not change.
pub async fn complete_change(
    call: &Call<'_>,
    part: Part,
    mut new: Value,
    old: &Value,
) -> Outcome<(Value, Admitted)> {
    let resource = call.resource;
    metadata::keep(&mut new, old);
    let mut new = restrict(call, part, new, old);
    if part == Part::Main {
        resource.strategy.prepare_update(&mut new, old);
    }
    apply_defaults(call, &mut new);
    track(call, part, old, &mut new)?;
    let mut admitted = Admitted::default();
    admission::mutate_update(call, &mut new, old).await?;
    addresses::assign(call, &mut new, old, &mut admitted).await?;
    metadata::count_generation(resource, &mut new, old);
    if part == Part::Main {
        admission::type_check::complete(call, &mut new);
    }
    let validate = match part {
        Part::Status => api::validation::validate_status_update,
        Part::Main | Part::Finalizers => api::validation::validate_update,
        Part::EphemeralContainers => api::validation::validate_ephemeral_containers,
        Part::Resize => api::validation::validate_resize,
    };
    let mut errors = validate(&resource.group, &resource.kind, &new, old);
    errors.extend(custom_errors(call, &new, Some(old)));
    refuse(call, &new, errors)?;
    admission::validate_update(call, &new, old, &mut admitted).await?;
    Ok((new, admitted))
}

/// The old object with the new one's part in it.
fn restrict(call: &Call<'_>, part: Part, mut new: Value, old: &Value) -> Value {
    match part {
        Part::Main if call.resource.has_status() => {
            copy(&mut new, old, "status");
            new
        }
        Part::Main => new,
        Part::Status => {
            let mut kept = old.clone();
            copy(&mut kept, &new, "status");
            kept["metadata"] = new["metadata"].take();
            copy(&mut kept["metadata"], &old["metadata"], "ownerReferences");
            kept
        }
        Part::EphemeralContainers => {
            let mut kept = old.clone();
            copy(&mut kept["spec"], &new["spec"], "ephemeralContainers");
            carry_ownership(kept, &mut new)
        }
        Part::Resize => {
            let mut kept = old.clone();
            for list in ["containers", "initContainers"] {
                resize(&mut kept["spec"][list], &new["spec"][list]);
            }
            copy(&mut kept["spec"], &new["spec"], "resources");
            carry_ownership(kept, &mut new)
        }
        Part::Finalizers => {
            let mut kept = old.clone();
            let mut spec = kept["spec"].take();
            copy(&mut spec, &new["spec"], "finalizers");
            kept["spec"] = spec;
            kept
        }
    }
}

/// Who owns what is settled by then if the write is a server-side apply.
fn carry_ownership(mut kept: Value, new: &mut Value) -> Value {
    copy(&mut kept["metadata"], &new["metadata"].take(), "managedFields");
    kept
}

/// Gives containers the resources that those of the same name have.
fn resize(containers: &mut Value, new: &Value) {
    for container in containers.as_array_mut().into_iter().flatten() {
        let same = new.as_array().into_iter().flatten().find(|other| other["name"] == container["name"]);
        if let Some(same) = same {
            copy(container, same, "resources");
            copy(container, same, "resizePolicy");
        }
    }
}

/// `to[field] = from[field]`, or nothing if there is none.
fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

fn refuse(call: &Call<'_>, object: &Value, errors: Vec<api::status::FieldError>) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let resource = call.resource;
    Err(Status::invalid(&resource.kind, &resource.group, api::object::name(object), errors))
}

/// The stored form.
///
/// # Errors
/// 413 if it is larger than an object may be.
pub async fn encoded(call: &Call<'_>, object: &Value) -> Outcome<Bytes> {
    let bytes = match &call.resource.custom {
        Some(custom) if api::object::api_version(object) != custom.stored_as => {
            let converted = present::convert(custom, &custom.stored_as, vec![object.clone()]).await?;
            converted.first().map(encode).unwrap_or_default()
        }
        _ => encode(object),
    };
    let limit = call.server.config.limits.object_bytes;
    if bytes.len() > limit { Err(Status::request_too_large(limit).into()) } else { Ok(bytes) }
}

/// The object as it will read back, once written at `revision`.
pub fn stored(call: &Call<'_>, object: &Value, bytes: Bytes, revision: Revision) -> Stored {
    Stored::of(key_of(call, object), bytes, revision)
}

/// Where the object lies.
pub fn key_of(call: &Call<'_>, object: &Value) -> Bytes {
    Key::Object(call.resource, api::object::namespace(object), api::object::name(object)).to_bytes()
}

/// Whether nothing is to be written.
///
/// # Errors
/// 422 for anything but `All`.
pub fn is_dry_run(call: &Call<'_>) -> Result<bool, Status> {
    asks_dry_run(&call.info.query)
}

/// As [`is_dry_run`], of any query.
///
/// # Errors
/// 422 for anything but `All`.
pub fn asks_dry_run(query: &Query) -> Result<bool, Status> {
    let mut values = query.all("dryRun").filter(|value| !value.is_empty()).peekable();
    let asked = values.peek().is_some();
    match values.find(|value| *value != "All") {
        Some(value) => {
            let error = api::status::FieldError::not_supported("dryRun", value, &["All"]);
            Err(Status::invalid_options("CreateOptions", "meta.k8s.io", vec![error]))
        }
        None => Ok(asked),
    }
}
