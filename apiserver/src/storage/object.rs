//! The stored form of an object, and the way back.
//!
//! An object is stored as JSON with `apiVersion`, `kind` and `metadata` first and everything else in
//! order, without `metadata.resourceVersion`: that is the revision of the write and only known after it.
//! On the way out it is spliced in, without decoding.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use store::kv::{KeyValue, Revision};

use crate::registry::resource::SelectableField;
use crate::storage::key;

/// Where the splice goes: behind the brace. `apiVersion` and `kind` can't contain it.
const METADATA: &[u8] = br#""metadata":{"#;

/// The revision of an object that a dry run would have created: it has no resourceVersion.
pub const UNWRITTEN: Revision = Revision(0);

/// An object as it lies in the store.
#[derive(Debug)]
pub struct Stored {
    /// Its storage key.
    pub key: Bytes,
    /// The stored JSON.
    pub json: Bytes,
    /// The revision of its last write: its resourceVersion.
    pub revision: Revision,
    /// Labels and selectable fields, read when the first selector asks.
    selectable: OnceLock<Selectable>,
    /// How it was last shown by a custom kind's schema in some state; `None` inside if just as it is.
    seen: Mutex<Option<(String, Option<Arc<Stored>>)>>,
}

/// What selectors look at.
#[derive(Debug, Default)]
pub struct Selectable {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The selectable fields by label.
    pub fields: BTreeMap<String, String>,
}

impl Stored {
    /// The object of a pair from the store.
    pub fn new(kv: &KeyValue) -> Self {
        Self::of(kv.key.clone(), kv.value.clone(), kv.mod_revision)
    }

    /// The object from its parts.
    pub fn of(key: Bytes, json: Bytes, revision: Revision) -> Self {
        Self { key, json, revision, selectable: OnceLock::new(), seen: Mutex::default() }
    }

    /// How it looks under a custom kind's schema in this state: outer `None` if that isn't known yet.
    pub fn remembered(&self, state: &str) -> Option<Option<Arc<Stored>>> {
        self.seen.lock().as_ref().filter(|(of, _)| of == state).map(|(_, seen)| seen.clone())
    }

    /// Remembers how it looks under a schema; the last one counts.
    pub fn remember(&self, state: &str, seen: Option<Arc<Stored>>) {
        *self.seen.lock() = Some((state.to_owned(), seen));
    }

    /// The object as a value, with its resourceVersion.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut value: Value = serde_json::from_slice(&self.json)?;
        if self.revision != UNWRITTEN {
            api::object::set_resource_version(&mut value, &self.revision.to_string());
        }
        Ok(value)
    }

    /// Appends the object as a client sees it.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.write_at(self.revision, out);
    }

    /// Appends the object as it was seen last, at the revision of its end.
    pub fn write_at(&self, revision: Revision, out: &mut Vec<u8>) {
        splice(&self.json, revision, out);
    }

    /// The object as a client sees it.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.json.len() + 48);
        self.write_to(&mut out);
        out.into()
    }

    /// What selectors look at; `fields` must be the same at each call.
    pub fn selectable(&self, fields: &[SelectableField]) -> &Selectable {
        self.selectable.get_or_init(|| self.selectable_now(fields))
    }

    /// The same, read anew.
    pub fn selectable_now(&self, fields: &[SelectableField]) -> Selectable {
        let value: Value = serde_json::from_slice(&self.json).unwrap_or_default();
        Selectable::of(&value, fields)
    }
}

impl Selectable {
    /// Reads what selectors look at.
    pub fn of(value: &Value, fields: &[SelectableField]) -> Self {
        let named = [("metadata.name", "/metadata/name"), ("metadata.namespace", "/metadata/namespace")];
        let fields = fields.iter().map(|field| (field.label.as_str(), field.pointer.as_str()));
        Self {
            labels: api::object::labels(value),
            fields: named
                .into_iter()
                .chain(fields)
                .map(|(label, pointer)| (label.to_owned(), field_text(label, value.pointer(pointer))))
                .collect(),
        }
    }
}

/// A field as selectors compare it. What is absent has its Go zero value.
fn field_text(label: &str, value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => match label {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" => "0".to_owned(),
            _ => String::new(),
        },
        Some(other) => other.to_string(),
    }
}

/// The stored form of `object`; its resourceVersion is left out.
pub fn encode(object: &Value) -> Bytes {
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for field in ["apiVersion", "kind"] {
        member(field, map.get(field).unwrap_or(&Value::Null), &mut out);
    }
    write_metadata(map.get("metadata").and_then(Value::as_object).unwrap_or(&empty), &mut out);
    for (field, value) in map {
        if !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
            member(field, value, &mut out);
        }
    }
    out.push(b'}');
    out.into()
}

fn write_metadata(metadata: &Map<String, Value>, out: &mut Vec<u8>) {
    out.push(b',');
    out.extend_from_slice(METADATA);
    for (field, value) in metadata {
        if field != "resourceVersion" {
            member(field, value, out);
        }
    }
    out.push(b'}');
}

fn member(field: &str, value: &Value, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_json(field, out);
    out.push(b':');
    write_json(value, out);
}

fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a JSON value encodes into memory");
}

/// Appends `json` with the resourceVersion in its metadata.
fn splice(json: &[u8], revision: Revision, out: &mut Vec<u8>) {
    let at = find(json, METADATA).filter(|_| revision != UNWRITTEN).map(|at| at + METADATA.len());
    // A value that we did not write ourselves is passed on as it is, and so is one that isn't written at all.
    let Some(at) = at else { return out.extend_from_slice(json) };
    out.extend_from_slice(&json[..at]);
    out.extend_from_slice(br#""resourceVersion":""#);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.push(b'"');
    if json.get(at) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&json[at..]);
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The names in a storage key, for messages.
pub fn name_of(stored: &Stored) -> &str {
    key::names_of(&stored.key).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn stored(object: &Value, revision: u64) -> Stored {
        Stored::of(Bytes::new(), encode(object), Revision(revision))
    }

    #[test]
    fn metadata_comes_before_anything_that_could_look_like_it() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision",
            "data": {"metadata": {"name": "inner"}}, "metadata": {"name": "outer", "resourceVersion": "1"},
        });
        let stored = stored(&object, 7);
        assert_eq!(
            std::str::from_utf8(&stored.to_bytes()).expect("text"),
            r#"{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{"resourceVersion":"7","name":"outer"},"data":{"metadata":{"name":"inner"}}}"#
        );
    }

    #[test]
    fn absent_fields_select_as_their_zero_value() {
        let fields =
            [SelectableField { label: "spec.unschedulable".into(), pointer: "/spec/unschedulable".into() }];
        let node = json!({"metadata": {"name": "n"}});
        assert_eq!(Selectable::of(&node, &fields).fields["spec.unschedulable"], "false");
        assert_eq!(Selectable::of(&node, &fields).fields["metadata.name"], "n");
    }

    proptest! {
        /// Splicing into the bytes and setting the field in the value are the same.
        #[test]
        fn splicing_is_setting(name in ".*", data in prop::collection::btree_map(".*", ".*", 0..4), revision in 1u64..) {
            let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
            let spliced: Value = serde_json::from_slice(&stored(&object, revision).to_bytes()).expect("JSON");
            api::object::set_resource_version(&mut object, &revision.to_string());
            prop_assert_eq!(spliced, object);
        }
    }
}
