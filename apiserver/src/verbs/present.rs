//! Stored objects as clients of one version of a custom kind see them.
//!
//! An object is stored in one version and may be older than the definition's present schema: on its way out
//! it is converted to the version that was asked for, loses what the schema doesn't know any more, and gets
//! defaults that came later. What comes out is remembered with the stored object, so that a list pays once.
//! Built-in kinds pass as they are, but for the few that are served in two versions ([`api::convert`]).

use std::sync::Arc;

use serde_json::Value;

use crate::error::Outcome;
use crate::registry::custom::Custom;
use crate::registry::resource::Resource;
use crate::storage::decode;
use crate::storage::object::{Stored, encode};

/// One object.
///
/// # Errors
/// If what is stored is no JSON, or can't be converted.
pub async fn one(resource: &Resource, stored: Arc<Stored>) -> Outcome<Arc<Stored>> {
    let seen = all(resource, vec![stored.clone()]).await?;
    Ok(seen.into_iter().next().unwrap_or(stored))
}

/// Many objects; those that must be converted are asked for at once.
///
/// # Errors
/// If one that is stored is no JSON, or can't be converted.
pub async fn all(resource: &Resource, mut stored: Vec<Arc<Stored>>) -> Outcome<Vec<Arc<Stored>>> {
    if resource.stored_as.is_some() {
        return stored.iter().map(|stored| converted(resource, stored)).collect();
    }
    let Some(custom) = &resource.custom else { return Ok(stored) };
    let mut unknown = Vec::new();
    for (index, stored) in stored.iter_mut().enumerate() {
        match stored.remembered(&custom.state) {
            Some(Some(seen)) => *stored = seen,
            Some(None) => {}
            None => unknown.push(index),
        }
    }
    let objects = unknown.iter().map(|index| decode(&stored[*index])).collect::<Outcome<Vec<Value>>>()?;
    let converted = convert(custom, &resource.api_version(), objects).await?;
    for (index, object) in unknown.into_iter().zip(converted) {
        stored[index] = completed(custom, &stored[index], object);
    }
    Ok(stored)
}

/// Objects in the version of a row of their resource.
///
/// # Errors
/// If they can't be converted.
pub async fn in_version(resource: &Resource, objects: Vec<Value>) -> Outcome<Vec<Value>> {
    match &resource.custom {
        Some(custom) => convert(custom, &resource.api_version(), objects).await,
        None => {
            let version = resource.api_version();
            Ok(objects.into_iter().map(|object| api::convert::to_version(object, &version)).collect())
        }
    }
}

/// A stored object of a built-in kind in the version of a row that isn't the one it is stored as. That isn't
/// remembered: few ask for it, and each copy would stay in memory.
fn converted(resource: &Resource, stored: &Arc<Stored>) -> Outcome<Arc<Stored>> {
    let json = encode(&api::convert::to_version(decode(stored)?, &resource.api_version()));
    Ok(Arc::new(Stored::of(stored.key.clone(), json, stored.revision)))
}

/// Objects of a custom kind in another version.
///
/// # Errors
/// If the definition's webhook doesn't convert them.
pub async fn convert(custom: &Custom, api_version: &str, mut objects: Vec<Value>) -> Outcome<Vec<Value>> {
    let is_other = |object: &Value| api::object::api_version(object) != api_version;
    let Some(converter) = &custom.converter else {
        for object in objects.iter_mut().filter(|object| is_other(object)) {
            let kind = api::object::kind(object).to_owned();
            api::object::set_type(object, api_version, &kind);
        }
        return Ok(objects);
    };
    let others: Vec<Value> = objects.iter().filter(|object| is_other(object)).cloned().collect();
    if others.is_empty() {
        return Ok(objects);
    }
    let mut converted = converter.convert(api_version, others).await?.into_iter();
    for object in objects.iter_mut().filter(|object| is_other(object)) {
        *object = converted.next().unwrap_or_default();
    }
    Ok(objects)
}

/// The object by the schema of now; the stored one itself if that is the same.
fn completed(custom: &Custom, stored: &Arc<Stored>, mut object: Value) -> Arc<Stored> {
    api::crd::prune(&custom.structural, &mut object);
    api::crd::default(&custom.structural, &mut object);
    let json = encode(&object);
    let seen = (json != stored.json).then(|| Arc::new(Stored::of(stored.key.clone(), json, stored.revision)));
    stored.remember(&custom.state, seen.clone());
    seen.unwrap_or_else(|| stored.clone())
}
