//! What plugins know of other objects: from the cache, and from the store where the cache may be behind.

use std::sync::Arc;

use serde_json::Value;

use crate::error::Outcome;
use crate::registry::resource::Resource;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::storage::{decode, decode_shared};
use crate::verbs::{Call, present};

/// A built-in resource of version v1.
pub(super) fn resource(call: &Call<'_>, group: &str, plural: &str) -> Option<Arc<Resource>> {
    call.server.registry.find(group, "v1", plural)
}

/// The objects of a kind in a namespace, or all of them for the empty namespace, with all that this server
/// wrote.
pub(super) async fn stored(
    call: &Call<'_>,
    group: &str,
    plural: &str,
    namespace: &str,
) -> Outcome<Vec<Arc<Stored>>> {
    match resource(call, group, plural) {
        Some(resource) => stored_of(call, &resource, namespace).await,
        None => Ok(Vec::new()),
    }
}

async fn stored_of(call: &Call<'_>, resource: &Arc<Resource>, namespace: &str) -> Outcome<Vec<Arc<Stored>>> {
    let place = match namespace {
        "" => Key::Resource(resource),
        namespace => Key::Namespace(resource, namespace),
    };
    let prefix = Key::Resource(resource).to_bytes();
    call.storage().catch_up(&prefix).await?;
    Ok(call.storage().cache.snapshot(&prefix, &place.range()).objects)
}

/// The objects of any resource as clients of its version see them.
pub(super) async fn objects_of(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
) -> Outcome<Vec<Value>> {
    let stored = present::all(resource, stored_of(call, resource, namespace).await?).await?;
    stored.iter().map(|stored| decode(stored)).collect()
}

/// One of them.
pub(super) async fn object_of(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
    name: &str,
) -> Outcome<Option<Value>> {
    let key = Key::Object(resource, namespace, name).to_bytes();
    let Some(stored) = call.storage().read(&key).await? else { return Ok(None) };
    decode(&*present::one(resource, Arc::new(stored)).await?).map(Some)
}

/// The same as values. Each write looks at them, so they are decoded once for each state they are in.
pub(super) async fn list(
    call: &Call<'_>,
    group: &str,
    plural: &str,
    namespace: &str,
) -> Outcome<Vec<Arc<Value>>> {
    stored(call, group, plural, namespace).await?.iter().map(|stored| decode_shared(stored)).collect()
}

/// One object; what the cache lacks is asked of the store.
pub(super) async fn one(
    call: &Call<'_>,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Outcome<Option<Arc<Value>>> {
    let Some(resource) = resource(call, group, plural) else { return Ok(None) };
    let key = Key::Object(&resource, namespace, name).to_bytes();
    call.storage().catch_up(&Key::Resource(&resource).to_bytes()).await?;
    if let Some(stored) = call.storage().cache.get(&key) {
        return decode_shared(&stored).map(Some);
    }
    call.storage().read(&key).await?.as_ref().map(decode_shared).transpose()
}
