//! Stored objects as clients of one version of a custom kind see them.
//!
//! An object is stored in one version and may be older than the definition's present schema: on its way out
//! it gets the version that was asked for, loses what the schema doesn't know any more, and gets defaults
//! that came later. What comes out is remembered with the stored object, so that a list pays once. Built-in
//! kinds pass as they are.

use std::sync::Arc;

use crate::error::Outcome;
use crate::registry::custom::Custom;
use crate::registry::resource::Resource;
use crate::storage::decode;
use crate::storage::object::{Stored, encode};

/// One object.
///
/// # Errors
/// If what is stored is no JSON.
pub async fn one(resource: &Resource, stored: Arc<Stored>) -> Outcome<Arc<Stored>> {
    match &resource.custom {
        None => Ok(stored),
        Some(custom) => as_seen(resource, custom, stored),
    }
}

/// Many objects.
///
/// # Errors
/// If one that is stored is no JSON.
pub async fn all(resource: &Resource, stored: Vec<Arc<Stored>>) -> Outcome<Vec<Arc<Stored>>> {
    match &resource.custom {
        None => Ok(stored),
        Some(custom) => stored.into_iter().map(|stored| as_seen(resource, custom, stored)).collect(),
    }
}

fn as_seen(resource: &Resource, custom: &Custom, stored: Arc<Stored>) -> Outcome<Arc<Stored>> {
    if let Some(seen) = stored.remembered(&custom.state) {
        return Ok(seen.unwrap_or(stored));
    }
    let mut object = decode(&stored)?;
    api::object::set_type(&mut object, &resource.api_version(), &resource.kind);
    api::crd::prune(&custom.structural, &mut object);
    api::crd::default(&custom.structural, &mut object);
    let json = encode(&object);
    let seen = (json != stored.json).then(|| Arc::new(Stored::of(stored.key.clone(), json, stored.revision)));
    stored.remember(&custom.state, seen.clone());
    Ok(seen.unwrap_or(stored))
}
