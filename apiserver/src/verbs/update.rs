//! `update`: a whole new state of an object, and the loop that every change of an object goes through.

use std::sync::Arc;

use api::status::{FieldError, FieldErrorKind, Status};
use serde_json::Value;

use crate::addresses;
use crate::error::Outcome;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::storage::{Commit, Write, decode as decode_stored};
use crate::verbs::decode::{self, Draft};
use crate::verbs::submit::{self, Part, Written};
use crate::verbs::view::View;
use crate::verbs::{Answer, Call, create, metadata, present};

/// Answers with the object's new state.
pub async fn update(call: Call<'_>, part: Part, body: &[u8]) -> Answer {
    let view = View::of(&call)?;
    let draft = decode::object(&call, body)?;
    check_version(&call, &draft)?;
    let home = call.home();
    let inner = Call { resource: &home, ..call };
    let draft = if Arc::ptr_eq(&home, call.resource) { draft } else { draft.at_home(&home) };
    let written = match change(&inner, part, |_| Ok(draft.clone())).await? {
        Some(written) => written,
        None if part == Part::Main && call.resource.strategy.traits().creates_on_update => {
            create_missing(&inner, draft).await?
        }
        None => return Err(call.not_found(call.name()).into()),
    };
    written.respond(&call, &view).await
}

/// Some kinds are replaced only by who has seen what is replaced.
fn check_version(call: &Call<'_>, draft: &Draft) -> Result<(), Status> {
    let object = &draft.object;
    let resource = call.resource;
    if resource.strategy.traits().unconditional_update || !api::object::resource_version(object).is_empty() {
        return Ok(());
    }
    let error = FieldError {
        kind: FieldErrorKind::Invalid,
        path: "metadata.resourceVersion".to_owned(),
        value: None,
        detail: "0x0: must be specified for an update".to_owned(),
    };
    Err(Status::invalid(&resource.kind, &resource.group, call.name(), vec![error]))
}

/// A kind that may be updated into existence must still be meant for this place.
async fn create_missing(call: &Call<'_>, mut draft: Draft) -> Outcome<Written> {
    metadata::check_target(call, &mut draft.object, &Value::Null)?;
    create::insert(call, draft).await
}

/// Writes what `make` makes of the present state; `None` if there is no object.
///
/// If somebody else writes in between, `make` is asked again with the newer state, unless it gave a state
/// that names the version it is meant for.
pub async fn change(
    call: &Call<'_>,
    part: Part,
    mut make: impl FnMut(&Value) -> Outcome<Draft> + Send,
) -> Outcome<Option<Written>> {
    let key = Key::Object(call.resource, call.namespace(), call.name()).to_bytes();
    let mut current = call.storage().read(&key).await?;
    for _ in 0..call.server.config.limits.patch_tries {
        let Some(stored) = current else { return Ok(None) };
        let (key, json) = (stored.key.clone(), stored.json.clone());
        let shown = present::one(call.resource, Arc::new(stored)).await?;
        let old = decode_stored(&shown)?;
        let mut draft = make(&old)?;
        metadata::check_target(call, &mut draft.object, &old)?;
        match attempt(call, part, draft, &old, Stored::of(key, json, shown.revision)).await? {
            Ok(written) => return Ok(Some(written)),
            Err(newer) => current = newer,
        }
    }
    Err(call.modified(call.name()).into())
}

/// Writes once; `Err` with the newer state if somebody else was faster and it makes sense to try again.
async fn attempt(
    call: &Call<'_>,
    part: Part,
    draft: Draft,
    old: &Value,
    stored: Stored,
) -> Outcome<Result<Written, Option<Stored>>> {
    let object = draft.warned(call);
    let pinned = !api::object::resource_version(&object).is_empty();
    let (new, admitted) = submit::complete_change(call, part, object, old).await?;
    let bytes = submit::encoded(call, &new).await?;
    let ends = is_finished(call, &new);
    if (bytes == stored.json && !ends) || submit::is_dry_run(call)? {
        let stored = submit::stored(call, &new, bytes, stored.revision);
        return Ok(Ok(Written { stored, created: false }));
    }
    let mut also = admitted.also;
    if ends {
        also.extend(addresses::release(call, old).await?);
    }
    let write = Write {
        key: stored.key.clone(),
        expected: stored.revision,
        value: (!ends).then(|| bytes.clone()),
        guards: admitted.guards,
        also,
        expires: call.resource.strategy.traits().expires,
        origin: call.origin(),
    };
    match call.commit(write).await? {
        Commit::Done(revision) => {
            let stored = submit::stored(call, &new, bytes, revision);
            Ok(Ok(Written { stored, created: false }))
        }
        // The object is as it was: what is written beside it has changed.
        Commit::Lost(Some(newer)) if newer.revision == stored.revision => Ok(Err(Some(newer))),
        Commit::Lost(_) if pinned => Err(call.modified(call.name()).into()),
        Commit::Lost(newer) => Ok(Err(newer)),
    }
}

/// An object that was only kept by finalizers goes with the last of them.
fn is_finished(call: &Call<'_>, object: &Value) -> bool {
    api::object::is_deleting(object)
        && api::object::finalizers(object).is_empty()
        && api::object::deletion_grace_period_seconds(object).unwrap_or(0) == 0
        && !call.resource.strategy.holds_deletion(object)
}
