//! The part of metadata that the server owns, and the rules on names.

use api::object;
use api::status::{FieldError, Status};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::registry::resource::Resource;
use crate::verbs::Call;

/// Set by the server alone; what a client sends in a new object is dropped.
const SERVER_OWNED: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

/// Gives a new object its place, name and identity. A generated name is drawn anew at each call.
///
/// # Errors
/// 400 if it says that it lies elsewhere, 422 if it has no name. A malformed one is found by validation, together
/// with whatever else is wrong.
pub fn begin(call: &Call<'_>, new: &mut Value, now: Timestamp) -> Result<(), Status> {
    if !object::resource_version(new).is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    place(call, new)?;
    name(call.resource, new)?;
    let metadata = object::metadata_mut(new);
    for field in SERVER_OWNED {
        metadata.remove(field);
    }
    object::set_uid(new, &uuid::Uuid::new_v4().to_string());
    object::set_creation_timestamp(new, now);
    if call.resource.strategy.traits().has_generation {
        object::set_generation(new, 1);
    }
    Ok(())
}

/// The object lies where the path says, or says nothing about it.
pub fn place(call: &Call<'_>, new: &mut Value) -> Result<(), Status> {
    if !call.resource.namespaced {
        object::metadata_mut(new).remove("namespace");
        return Ok(());
    }
    let given = object::namespace(new);
    if !given.is_empty() && given != call.namespace() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    object::set_namespace(new, call.namespace());
    Ok(())
}

fn name(resource: &Resource, new: &mut Value) -> Result<(), Status> {
    let prefix = object::generate_name(new).to_owned();
    if object::name(new).is_empty() && !prefix.is_empty() {
        let generated = api::name::generate_name(&prefix, rand::random());
        object::set_name(new, &generated);
    }
    let name = object::name(new);
    if name.is_empty() {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(Status::invalid(&resource.kind, &resource.group, name, vec![error]));
    }
    Ok(())
}

/// The object to be written over `old` is meant for it.
///
/// # Errors
/// 400 if it names another place, 409 if it means an object that isn't there any more, or another state.
pub fn check_target(call: &Call<'_>, new: &mut Value, old: &Value) -> Result<(), Status> {
    place(call, new)?;
    let resource = call.resource;
    match object::name(new) {
        "" => object::set_name(new, call.name()),
        name if name != call.name() => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.name()
            )));
        }
        _ => {}
    }
    let uid = object::uid(new);
    if !uid.is_empty() && uid != object::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Status::conflict(&resource.plural, &resource.group, call.name(), &why));
    }
    let version = object::resource_version(new);
    if !version.is_empty() && version != object::resource_version(old) {
        return Err(call.modified(call.name()));
    }
    Ok(())
}

/// Gives `new` the metadata that an update can't change.
pub fn keep(new: &mut Value, old: &Value) {
    let empty = Map::new();
    let old = old["metadata"].as_object().unwrap_or(&empty);
    let metadata = object::metadata_mut(new);
    for field in SERVER_OWNED.into_iter().chain(["resourceVersion", "generateName"]) {
        match old.get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// Counts the change if it is one of the spec.
pub fn count_generation(resource: &Resource, new: &mut Value, old: &Value) {
    let strategy = &resource.strategy;
    if strategy.traits().has_generation && strategy.is_another_generation(new, old) {
        object::set_generation(new, object::generation(old) + 1);
    }
}
