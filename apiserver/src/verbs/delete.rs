//! `delete`: the end of an object, at once or after its grace period and finalizers.
//!
//! What has to happen is decided by a pure function ([`plan`]) on the present state.

use api::object::{self, FOREGROUND, ORPHAN};
use api::status::{Details, Status};
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use store::kv::Revision;

use crate::addresses;
use crate::admission;
use crate::body::Body;
use crate::error::Outcome;
use crate::registry::strategy::Strategy;
use crate::response;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::storage::{Also, Commit, Write, decode};
use crate::verbs::delete_options::{self, DeleteOptions, Propagation};
use crate::verbs::{Answer, Call, eviction, present, submit};

/// What a deletion does to the object as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// It goes now.
    Remove,
    /// It stays for a while, in this state.
    Mark(Value),
    /// Its deletion is under way and this wish adds nothing.
    Nothing,
}

/// What became of the object.
#[derive(Debug)]
pub struct Deleted {
    /// Its last state.
    pub object: Value,
    /// Whether it is gone.
    pub gone: bool,
}

/// Answers with a Status or the object, by upstream's rules.
pub async fn delete(call: Call<'_>, body: &[u8]) -> Answer {
    let options = delete_options::parse(&call, body)?;
    let home = call.home();
    let inner = Call { resource: &home, ..call };
    let mut deleted = remove(&inner, call.namespace(), call.name(), &options).await?;
    deleted.object = present::in_version(call.resource, vec![deleted.object]).await?.remove(0);
    Ok(respond(&call, &options, &deleted))
}

fn respond(call: &Call<'_>, options: &DeleteOptions, deleted: &Deleted) -> Response<Body> {
    if !deleted.gone || call.resource.strategy.traits().delete_returns_object {
        let waits = !deleted.gone && options.accepted;
        return response::json(if waits { StatusCode::ACCEPTED } else { StatusCode::OK }, &deleted.object);
    }
    response::status(&Status::success(Some(Details {
        name: object::name(&deleted.object).to_owned(),
        group: call.resource.group.clone(),
        kind: call.resource.plural.clone(),
        uid: object::uid(&deleted.object).to_owned(),
        ..Details::default()
    })))
}

/// Deletes one object, or begins to.
///
/// # Errors
/// 404 if there is none, 409 if a precondition doesn't hold.
pub async fn remove(
    call: &Call<'_>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Outcome<Deleted> {
    remove_if(call, namespace, name, options, Gate::Open).await
}

/// What a deletion must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing more.
    Open,
    /// The pod's disruption budget, which is charged in the same transaction.
    DisruptionBudget,
}

/// The same, if the gate lets it pass.
///
/// # Errors
/// Those of [`remove`], and of the gate.
pub async fn remove_if(
    call: &Call<'_>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
    gate: Gate,
) -> Outcome<Deleted> {
    let key = Key::Object(call.resource, namespace, name).to_bytes();
    let current = call.storage().read(&key).await?;
    remove_as_seen(call, name, current, options, gate).await
}

/// The same, beginning with the object as it was seen; if it has changed since, the store says how it is now.
///
/// # Errors
/// Those of [`remove_if`].
pub async fn remove_as_seen(
    call: &Call<'_>,
    name: &str,
    seen: Option<Stored>,
    options: &DeleteOptions,
    gate: Gate,
) -> Outcome<Deleted> {
    let mut current = seen;
    loop {
        let stored = current.ok_or_else(|| call.not_found(name))?;
        let old = decode(&stored)?;
        admission::delete(call, &old).await?;
        check_preconditions(call, &old, options)?;
        let charged = match gate {
            Gate::Open => Vec::new(),
            Gate::DisruptionBudget => eviction::charge(call, &old).await?,
        };
        match attempt(call, &stored, old, options, charged).await? {
            Ok(deleted) => return Ok(deleted),
            Err(newer) => current = newer,
        }
    }
}

/// Acts once; `Err` with the newer state if somebody else wrote in between.
async fn attempt(
    call: &Call<'_>,
    stored: &Stored,
    old: Value,
    options: &DeleteOptions,
    mut also: Vec<Also>,
) -> Outcome<Result<Deleted, Option<Stored>>> {
    let (mut object, gone) = match plan(&old, call.resource.strategy.as_ref(), options, Timestamp::now()) {
        Plan::Nothing => return Ok(Ok(Deleted { object: old, gone: false })),
        Plan::Remove => (old, true),
        Plan::Mark(object) => (object, false),
    };
    if options.dry_run {
        return Ok(Ok(Deleted { object, gone }));
    }
    if gone {
        also.extend(addresses::release(call, &object).await?);
    }
    let write = Write {
        key: stored.key.clone(),
        expected: stored.revision,
        value: if gone { None } else { Some(submit::encoded(call, &object).await?) },
        guards: Vec::new(),
        also,
        expires: call.resource.strategy.traits().expires,
        origin: call.origin(),
    };
    match call.commit(write).await? {
        Commit::Lost(newer) => Ok(Err(newer)),
        Commit::Done(Revision(revision)) => {
            object::set_resource_version(&mut object, &revision.to_string());
            Ok(Ok(Deleted { object, gone }))
        }
    }
}

fn check_preconditions(call: &Call<'_>, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let checks = [
        ("UID", options.uid.as_deref(), object::uid(old)),
        ("ResourceVersion", options.resource_version.as_deref(), object::resource_version(old)),
    ];
    for (what, wanted, actual) in checks {
        if let Some(wanted) = wanted
            && wanted != actual
        {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
            );
            let resource = call.resource;
            return Err(Status::conflict(&resource.plural, &resource.group, object::name(old), &why));
        }
    }
    Ok(())
}

/// What a deletion does to `old`.
pub fn plan(old: &Value, strategy: &dyn Strategy, options: &DeleteOptions, now: Timestamp) -> Plan {
    match object::is_deleting(old) {
        true => plan_again(old, strategy, options),
        false => plan_first(old, strategy, options, now),
    }
}

fn plan_first(old: &Value, strategy: &dyn Strategy, options: &DeleteOptions, now: Timestamp) -> Plan {
    let finalizers = finalizers(old, options.propagation);
    let grace = strategy.grace_seconds(old, options.grace_seconds);
    if grace == 0 && finalizers.is_empty() && !strategy.holds_deletion(old) {
        return Plan::Remove;
    }
    let mut marked = old.clone();
    set_finalizers(&mut marked, &finalizers);
    object::set_deletion(&mut marked, now + SignedDuration::from_secs(grace), grace);
    if object::generation(old) > 0 {
        object::set_generation(&mut marked, object::generation(old) + 1);
    }
    strategy.begin_delete(&mut marked);
    Plan::Mark(marked)
}

/// A second wish can only shorten the grace, or change what becomes of dependents.
fn plan_again(old: &Value, strategy: &dyn Strategy, options: &DeleteOptions) -> Plan {
    let left = object::deletion_grace_period_seconds(old).unwrap_or(0);
    let asked = options.grace_seconds.filter(|asked| (0..left).contains(asked));
    let finalizers = finalizers(old, options.propagation);
    let held = !finalizers.is_empty() || strategy.holds_deletion(old);
    if !held && (left == 0 || asked == Some(0)) {
        return Plan::Remove;
    }
    let mut marked = old.clone();
    set_finalizers(&mut marked, &finalizers);
    if let (Some(asked), Some(end)) = (asked, object::deletion_timestamp(old)) {
        object::set_deletion(&mut marked, end - SignedDuration::from_secs(left - asked), asked);
    }
    if marked == *old { Plan::Nothing } else { Plan::Mark(marked) }
}

/// The finalizers that make the garbage collector do what was asked for.
fn finalizers(old: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let all = object::finalizers(old);
    let Some(propagation) = propagation else { return all };
    let mut kept: Vec<String> = all.into_iter().filter(|f| f != FOREGROUND && f != ORPHAN).collect();
    match propagation {
        Propagation::Orphan => kept.push(ORPHAN.to_owned()),
        Propagation::Foreground => kept.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    kept
}

fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if object::finalizers(object) != finalizers {
        object::set_finalizers(object, finalizers);
    }
}
