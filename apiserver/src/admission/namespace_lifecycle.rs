//! NamespaceLifecycle: nothing is created in a namespace that isn't there or is going, and the namespaces
//! that the cluster needs can't be deleted.

use api::status::Status;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::Guard;
use crate::error::Outcome;
use crate::storage::decode_part;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::verbs::Call;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace exists and is not being deleted; the guard keeps it so until the object is written.
pub async fn check_create(call: &Call<'_>, object: &Value) -> Outcome<Vec<Guard>> {
    if !call.resource.namespaced {
        return Ok(Vec::new());
    }
    let namespace = call.namespace();
    let missing = || Status::not_found("namespaces", "", namespace);
    let resource = call.server.registry.find("", "v1", "namespaces").ok_or_else(missing)?;
    let key = Key::Object(&resource, "", namespace).to_bytes();
    // The transaction that makes the object makes its namespace, too, or neither.
    if call.batch.is_some_and(|batch| batch.creates(&key)) {
        return Ok(Vec::new());
    }
    // A guard finds out if the cache was behind with good news; bad news is looked up in the store.
    if let Some(cached) = call.storage().cache.get(&key)
        && !is_deleting(&cached)?
    {
        return Ok(vec![(key, cached.revision)]);
    }
    let stored = call.storage().read(&key).await?.ok_or_else(missing)?;
    match is_deleting(&stored)? {
        true => Err(terminating(call, namespace, object).into()),
        false => Ok(vec![(key, stored.revision)]),
    }
}

/// Every create asks for it.
#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    deletion_timestamp: Option<IgnoredAny>,
}

fn is_deleting(namespace: &Stored) -> Outcome<bool> {
    Ok(decode_part::<Namespace>(namespace)?.metadata.deletion_timestamp.is_some())
}

fn terminating(call: &Call<'_>, namespace: &str, object: &Value) -> Status {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let resource = call.resource;
    let message = format!("namespace {namespace} is being terminated");
    Status::forbidden(&resource.plural, &resource.group, api::object::name(object), &why).with_cause(
        "NamespaceTerminating",
        &message,
        "metadata.namespace",
    )
}

/// The namespace may be deleted.
pub fn check_delete(call: &Call<'_>, name: &str) -> Outcome<()> {
    let is_namespace = call.resource.group.is_empty() && call.resource.plural == "namespaces";
    if is_namespace && IMMORTAL.contains(&name) {
        return Err(Status::forbidden("namespaces", "", name, "this namespace may not be deleted").into());
    }
    Ok(())
}
