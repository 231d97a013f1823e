//! Accessors over an object as a JSON value: names, labels, owners, lifecycle.
//!
//! A missing field reads as empty; setting a field makes the way to it. Nothing here validates.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::time;

/// Finalizer of a foreground deletion.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of a deletion that orphans the dependents.
pub const ORPHAN: &str = "orphan";

/// Names one object of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// `Pod`, …
    pub kind: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid; may be empty if only the name is known.
    pub uid: String,
}

impl ObjectRef {
    /// The reference to this object.
    pub fn of(object: &Value) -> Self {
        Self {
            api_version: api_version(object).into(),
            kind: kind(object).into(),
            namespace: namespace(object).into(),
            name: name(object).into(),
            uid: uid(object).into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerReference {
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the namespace of the object.
    pub name: String,
    /// Uid of the owner.
    pub uid: String,
    /// Whether this owner manages the object.
    pub controller: bool,
    /// Whether a foreground deletion of the owner waits for the object.
    pub block_owner_deletion: bool,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `apiVersion`, or nothing.
pub fn api_version(object: &Value) -> &str {
    text(object, "/apiVersion")
}

/// `kind`, or nothing.
pub fn kind(object: &Value) -> &str {
    text(object, "/kind")
}

/// Splits an `apiVersion` into group (empty for the core group) and version.
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// `metadata.name`, or nothing.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.generateName`, or nothing.
pub fn generate_name(object: &Value) -> &str {
    text(object, "/metadata/generateName")
}

/// `metadata.namespace`; empty for objects of the cluster.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`, or nothing.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// `metadata.resourceVersion`, or nothing. It is opaque to clients.
pub fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// `metadata.generation`; 0 if the kind has none.
pub fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.labels`; an absent map is empty.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    text_map(object.pointer("/metadata/labels"))
}

/// One label, if it is set.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// `metadata.annotations`; an absent map is empty.
pub fn annotations(object: &Value) -> BTreeMap<String, String> {
    text_map(object.pointer("/metadata/annotations"))
}

/// One annotation, if it is set.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// A JSON map of texts; anything else is empty.
pub fn text_map(map: Option<&Value>) -> BTreeMap<String, String> {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string()))).collect()
}

/// `metadata.finalizers`; an absent list is empty.
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|value| value.as_str().map(String::from)).collect()
}

/// `metadata.creationTimestamp`, if set.
pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    time::from_value(object.pointer("/metadata/creationTimestamp"))
}

/// `metadata.deletionTimestamp`, if the object is being deleted.
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    time::from_value(object.pointer("/metadata/deletionTimestamp"))
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// `metadata.deletionGracePeriodSeconds`, if set.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64)
}

/// `metadata.ownerReferences`; an absent list is empty.
pub fn owner_references(object: &Value) -> Vec<OwnerReference> {
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    list.map(owner_reference).collect()
}

/// The owner that manages the object, if any.
pub fn controller_of(object: &Value) -> Option<OwnerReference> {
    owner_references(object).into_iter().find(|owner| owner.controller)
}

fn owner_reference(value: &Value) -> OwnerReference {
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or_default();
    OwnerReference {
        api_version: text(value, "/apiVersion").into(),
        kind: text(value, "/kind").into(),
        name: text(value, "/name").into(),
        uid: text(value, "/uid").into(),
        controller: flag("controller"),
        block_owner_deletion: flag("blockOwnerDeletion"),
    }
}

/// The map below `key`, made if it isn't there (or is no map).
pub fn map_at<'a>(parent: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    let child = parent.as_object_mut().expect("made one above").entry(key).or_insert(Value::Null);
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child.as_object_mut().expect("made one above")
}

/// `metadata`, made if it isn't there.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_at(object, "metadata")
}

fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(key.into(), value.into());
}

/// Sets `apiVersion` and `kind`.
pub fn set_type(object: &mut Value, api_version: &str, kind: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
    }
}

/// Sets `metadata.name`.
pub fn set_name(object: &mut Value, name: &str) {
    set(object, "name", name);
}

/// Sets `metadata.namespace`, or removes it if empty.
pub fn set_namespace(object: &mut Value, namespace: &str) {
    set_or_remove(object, "namespace", namespace);
}

/// Sets `metadata.uid`.
pub fn set_uid(object: &mut Value, uid: &str) {
    set(object, "uid", uid);
}

/// Sets `metadata.resourceVersion`, or removes it if empty.
pub fn set_resource_version(object: &mut Value, version: &str) {
    set_or_remove(object, "resourceVersion", version);
}

/// Sets `metadata.generation`.
pub fn set_generation(object: &mut Value, generation: i64) {
    set(object, "generation", generation);
}

/// Sets `metadata.creationTimestamp`.
pub fn set_creation_timestamp(object: &mut Value, time: Timestamp) {
    set(object, "creationTimestamp", time::rfc3339(time));
}

/// Sets `metadata.deletionTimestamp` and `metadata.deletionGracePeriodSeconds`.
pub fn set_deletion(object: &mut Value, time: Timestamp, grace_seconds: i64) {
    set(object, "deletionTimestamp", time::rfc3339(time));
    set(object, "deletionGracePeriodSeconds", grace_seconds);
}

/// Sets `metadata.finalizers`, or removes them if empty.
pub fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    match finalizers {
        [] => drop(metadata_mut(object).remove("finalizers")),
        _ => set(object, "finalizers", finalizers),
    }
}

/// Sets one label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    set_in(object, "labels", key, value);
}

/// Sets one annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    set_in(object, "annotations", key, value);
}

fn set_in(object: &mut Value, map: &str, key: &str, value: &str) {
    let metadata = metadata_mut(object);
    let entries = metadata.entry(map).or_insert_with(|| Value::Object(Map::new()));
    if !entries.is_object() {
        *entries = Value::Object(Map::new());
    }
    entries.as_object_mut().expect("made one above").insert(key.into(), value.into());
}

fn set_or_remove(object: &mut Value, key: &str, text: &str) {
    match text {
        "" => drop(metadata_mut(object).remove(key)),
        _ => set(object, key, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_field_reads_as_empty() {
        let empty = json!({});
        assert_eq!((name(&empty), uid(&empty), generation(&empty)), ("", "", 0));
        assert!(labels(&empty).is_empty() && finalizers(&empty).is_empty() && !is_deleting(&empty));
        assert_eq!(controller_of(&empty), None);
    }

    #[test]
    fn what_is_set_reads_back() {
        let mut object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": null});
        set_name(&mut object, "web");
        set_namespace(&mut object, "prod");
        set_label(&mut object, "app", "web");
        set_finalizers(&mut object, &[ORPHAN.into()]);
        set_deletion(&mut object, Timestamp::UNIX_EPOCH, 30);
        assert_eq!(ObjectRef::of(&object).to_string(), "Pod prod/web");
        assert_eq!(label(&object, "app"), Some("web"));
        assert_eq!(finalizers(&object), [ORPHAN]);
        assert_eq!(deletion_timestamp(&object), Some(Timestamp::UNIX_EPOCH));
        set_finalizers(&mut object, &[]);
        assert!(object["metadata"].get("finalizers").is_none());
    }

    #[test]
    fn the_controller_is_one_of_the_owners() {
        let object = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "b", "uid": "2", "controller": true},
        ]}});
        assert_eq!(controller_of(&object).map(|owner| owner.name), Some("b".into()));
        assert_eq!(owner_references(&object).len(), 2);
    }
}
