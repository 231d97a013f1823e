//! What a write does to ownership.

use serde_json::{Map, Value};

use super::compare::{Changes, compare};
use super::entries::{Entry, ManagedFields, Manager};
use super::extract::fields_of;
use super::last_applied;
use super::merge::merge;
use super::remove::remove;
use super::set::FieldSet;
use super::{ApplyError, Conflict};
use crate::schema::Schema;

/// What the server writes itself, and so nobody owns.
const SERVER_FIELDS: [&[&str]; 10] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "resourceVersion"],
];
/// Structs that upstream's types always write, even empty: they are there before anybody sets a part of
/// them, so nobody owns them by themselves.
const ALWAYS_THERE: [&str; 7] =
    ["metadata", "spec", "status", "strategy", "template", "updateStrategy", "jobTemplate"];
/// Who owns what an object had before anybody was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// A write as ownership sees it.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// Who.
    pub manager: Manager,
    /// When, RFC 3339 in seconds.
    pub now: &'a str,
    /// Parts that the request can't change, whatever it says.
    pub reset: &'a FieldSet,
}

/// The set of the given paths of field names.
pub fn reset_fields(paths: &[&[&str]]) -> FieldSet {
    let mut set = FieldSet::default();
    paths.iter().for_each(|path| set.insert_fields(path));
    set
}

/// Records in `new` who owns what after an ordinary write, given the object that it replaces (null for a
/// new one). A request that brings its own list of owners sets it; one empty owner clears the list; none
/// leaves the old list.
///
/// # Errors
/// If an item of a list can't be told apart.
pub fn track(
    old: &Value,
    new: &mut Value,
    schema: Option<&Schema>,
    writer: &Writer<'_>,
) -> Result<(), ApplyError> {
    let given = take_managed(new);
    if given.as_array().is_some_and(|list| list.len() == 1 && is_blank(&list[0])) {
        return Ok(());
    }
    let mut managed = owners(old, &given, writer);
    let mut old = old.clone();
    take_managed(&mut old);
    if old.is_null() {
        old = skeleton(new);
    }
    let changes = compare(&old, new, schema)?;
    release(&mut managed, &changes, None, &FieldSet::default());
    let taken = changes.modified.union(&changes.added).without(writer.reset).difference(&server_fields());
    let previous = managed.get(&writer.manager).cloned();
    if !taken.is_empty() {
        let fields = previous.map_or_else(|| taken.clone(), |entry| entry.fields.union(&taken));
        managed.set(Entry { manager: writer.manager.clone(), time: writer.now.into(), fields });
    }
    put_managed(new, managed);
    Ok(())
}

/// What an applied configuration makes of the live object, owners included. `None` if nothing changes,
/// not even who owns what.
///
/// # Errors
/// [`ApplyError::Conflicts`] unless `force`; others if the configuration isn't sound.
pub fn apply(
    live: &Value,
    config: &Value,
    schema: Option<&Schema>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Option<Value>, ApplyError> {
    let before = ManagedFields::decode(&live["metadata"]["managedFields"]).unwrap_or_default();
    let mut bare = live.clone();
    take_managed(&mut bare);
    let mut managed = before.clone();
    if managed.entries.is_empty() && live["metadata"]["uid"].is_string() {
        managed.set(first_owner(&bare, schema, writer)?);
    }
    let merged = merge(&bare, config, schema)?;
    let claimed = fields_of(config, schema)?.without(writer.reset).difference(&server_fields());
    let last = managed.get(&writer.manager).map(|entry| entry.fields.clone());
    let time = managed.get(&writer.manager).map_or_else(|| writer.now.into(), |entry| entry.time.clone());
    managed.set(Entry { manager: writer.manager.clone(), time, fields: claimed });
    let mut object = match last {
        Some(last) => prune(merged, &managed, &last, schema)?,
        None => merged,
    };
    let changes = compare(&bare, &object, schema)?;
    let own = last_applied::unchanged(&writer.manager.name, &bare, schema)?;
    let conflicts = release(&mut managed, &changes, Some(&writer.manager), &own);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    if changes.is_empty() && managed == before {
        return Ok(None);
    }
    if let Some(entry) = managed.entries.iter_mut().find(|entry| entry.manager.is(&writer.manager)) {
        entry.time = writer.now.into();
        entry.manager = writer.manager.clone();
    }
    last_applied::refresh(&writer.manager.name, &mut object, config);
    put_managed(&mut object, managed);
    Ok(Some(object))
}

/// Takes what was changed from its owners; returns what they, other than `but`, lost to another value. What
/// is in `free` may be taken from anyone.
fn release(
    managed: &mut ManagedFields,
    changes: &Changes,
    but: Option<&Manager>,
    free: &FieldSet,
) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let set = changes.modified.union(&changes.added);
    for entry in &mut managed.entries {
        if but.is_some_and(|manager| entry.manager.is(manager)) {
            continue;
        }
        let lost = entry.fields.intersection(&set);
        let manager = entry.manager.describe();
        let contested = lost.difference(free);
        conflicts
            .extend(contested.paths().into_iter().map(|path| Conflict { manager: manager.clone(), path }));
        entry.fields = entry.fields.difference(&lost).difference(&changes.removed);
    }
    managed.entries.retain(|entry| !entry.fields.is_empty());
    conflicts
}

/// Removes what the owner applied last time and doesn't any more, unless somebody else owns it.
fn prune(
    merged: Value,
    managed: &ManagedFields,
    last: &FieldSet,
    schema: Option<&Schema>,
) -> Result<Value, ApplyError> {
    let named = |set: &FieldSet| set.with_named_fields(schema);
    let empty = || Value::Object(Map::new());
    let owned = managed.entries.iter().fold(FieldSet::default(), |all, entry| all.union(&entry.fields));
    let all = named(&fields_of(&merged, schema)?);
    let pruned = remove(&merged, &named(last), schema)?.unwrap_or_else(empty);
    // What somebody owns comes back, with what it stands in.
    let kept = named(&fields_of(&pruned, schema)?).union(&named(&owned));
    let pruned = remove(&merged, &all.difference(&kept), schema)?.unwrap_or_else(empty);
    // What nobody owned, but went with something around it, comes back too.
    let kept = named(&fields_of(&pruned, schema)?);
    let gone = all.difference(&kept).intersection(&named(last));
    Ok(remove(&merged, &gone, schema)?.unwrap_or_else(empty))
}

/// Everything in an object that has no owners yet.
fn first_owner(object: &Value, schema: Option<&Schema>, writer: &Writer<'_>) -> Result<Entry, ApplyError> {
    let manager = Manager {
        name: BEFORE_FIRST_APPLY.into(),
        operation: super::Operation::Update,
        subresource: String::new(),
        ..writer.manager.clone()
    };
    let fields = fields_of(object, schema)?.difference(&server_fields()).without(writer.reset);
    Ok(Entry { manager, time: writer.now.into(), fields })
}

/// The owners that count before a write: those the request gives, if it may and does, else the old ones.
fn owners(old: &Value, given: &Value, writer: &Writer<'_>) -> ManagedFields {
    let own = ManagedFields::decode(given).unwrap_or_default();
    if own.entries.is_empty() || !writer.manager.subresource.is_empty() {
        return ManagedFields::decode(&old["metadata"]["managedFields"]).unwrap_or_default();
    }
    own
}

/// The structs of `new` that are there before anybody writes.
fn skeleton(new: &Value) -> Value {
    let mut out = Map::new();
    for (name, value) in new.as_object().into_iter().flatten() {
        if ALWAYS_THERE.contains(&name.as_str()) && value.is_object() {
            out.insert(name.clone(), skeleton(value));
        }
    }
    Value::Object(out)
}

fn server_fields() -> FieldSet {
    reset_fields(&SERVER_FIELDS)
}

fn is_blank(entry: &Value) -> bool {
    entry
        .as_object()
        .is_some_and(|entry| entry.values().all(|value| value.as_str() == Some("") || value.is_null()))
}

fn take_managed(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.remove("managedFields")).unwrap_or_default()
}

fn put_managed(object: &mut Value, managed: ManagedFields) {
    if !managed.entries.is_empty() {
        crate::object::metadata_mut(object).insert("managedFields".into(), managed.encode());
    }
}

#[cfg(test)]
mod tests;
