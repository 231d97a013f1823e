//! The stored form of an object, and the way back.
//!
//! An object is stored as JSON with `apiVersion`, `kind` and `metadata` first and everything else in
//! order, without `metadata.resourceVersion`: that is the revision of the write and only known after it.
//! On the way out it is spliced in, without decoding.

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
    /// The values of the selectable fields, read when the first selector asks.
    fields: OnceLock<Packed>,
    /// The names and values of the labels, likewise.
    labels: OnceLock<Packed>,
    /// What was made of it last.
    made: Mutex<Option<Box<Made>>>,
}

/// What was made of an object for one request and is the same for the next. Nobody needs two of them of one object.
#[derive(Debug)]
enum Made {
    /// How it looks under a custom kind's schema in this state; `None` if just as it is.
    Shown { state: String, shown: Option<Arc<Stored>> },
    /// The object as a value.
    Decoded(Arc<Value>),
}

/// Texts behind one another: there are a hundred thousand such lists, of a few bytes each.
#[derive(Debug)]
struct Packed {
    all: Box<str>,
    /// Where each text ends.
    ends: Box<[u32]>,
}

impl Packed {
    fn of(texts: impl Iterator<Item = String>) -> Self {
        let (mut all, mut ends) = (String::new(), Vec::new());
        for text in texts {
            all.push_str(&text);
            ends.push(u32::try_from(all.len()).expect("an object is smaller than 4 GiB"));
        }
        Self { all: all.into(), ends: ends.into() }
    }

    fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.all[start..end])
    }
}

impl Stored {
    /// The object of a pair from the store.
    pub fn new(kv: &KeyValue) -> Self {
        Self::of(kv.key.clone(), kv.value.clone(), kv.mod_revision)
    }

    /// The object from its parts.
    pub fn of(key: Bytes, json: Bytes, revision: Revision) -> Self {
        let (fields, labels) = (OnceLock::new(), OnceLock::new());
        Self { key, json, revision, fields, labels, made: Mutex::default() }
    }

    /// The same in memory of its own, and no more than it takes. What comes from the store is a part of something
    /// larger (an entry of the log, a batch, a message of another member), all of which it would keep alive.
    pub fn compact(kv: &KeyValue) -> Self {
        let both = Bytes::from([&kv.key[..], &kv.value[..]].concat());
        let key = both.slice(..kv.key.len());
        Self::of(key, both.slice(kv.key.len()..), kv.mod_revision)
    }

    /// How it looks under a custom kind's schema in this state: outer `None` if that isn't known yet.
    pub fn remembered(&self, state: &str) -> Option<Option<Arc<Stored>>> {
        match self.made.lock().as_deref() {
            Some(Made::Shown { state: known, shown }) if known == state => Some(shown.clone()),
            _ => None,
        }
    }

    /// Remembers how it looks under a schema; the last one counts.
    pub fn remember(&self, state: &str, shown: Option<Arc<Stored>>) {
        *self.made.lock() = Some(Box::new(Made::Shown { state: state.to_owned(), shown }));
    }

    /// The object as a value, with its resourceVersion.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut value: Value = serde_json::from_slice(&self.json)?;
        if self.revision != UNWRITTEN {
            api::object::set_resource_version(&mut value, &self.revision.to_string());
        }
        Ok(value)
    }

    /// As [`Stored::to_value`], decoded once: for the few objects that many requests look at.
    pub fn shared_value(&self) -> Result<Arc<Value>, serde_json::Error> {
        let mut made = self.made.lock();
        if let Some(Made::Decoded(value)) = made.as_deref() {
            return Ok(value.clone());
        }
        let value = Arc::new(self.to_value()?);
        *made = Some(Box::new(Made::Decoded(value.clone())));
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

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let labels = self.labels.get_or_init(|| {
            let labels = api::object::labels(&self.only(&["/metadata/labels"]));
            Packed::of(labels.into_iter().flat_map(|(name, value)| [name, value]))
        });
        let mut pairs =
            (0..labels.ends.len() / 2).map(|pair| (labels.get(2 * pair), labels.get(2 * pair + 1)));
        pairs.find(|(known, _)| *known == Some(name))?.1
    }

    /// The value of the field that selectors know by `label`; `fields` must be the same at each call.
    pub fn field(&self, label: &str, fields: &[SelectableField]) -> &str {
        let (namespace, name) = key::names_of(&self.key);
        match label {
            "metadata.namespace" => namespace,
            "metadata.name" => name,
            label => {
                let place = fields.iter().position(|field| field.label == label);
                place.and_then(|place| self.packed_fields(fields).get(place)).unwrap_or_default()
            }
        }
    }

    fn packed_fields(&self, fields: &[SelectableField]) -> &Packed {
        self.fields.get_or_init(|| {
            let pointers: Vec<&str> = fields.iter().map(|field| field.pointer.as_str()).collect();
            let value = self.only(&pointers);
            Packed::of(fields.iter().map(|field| field_text(field, &value)))
        })
    }

    /// The parts of it that the pointers lead to.
    fn only(&self, pointers: &[&str]) -> Value {
        api::pluck::only(&self.json, pointers).unwrap_or_default()
    }
}

/// A field as selectors compare it. What is absent has its Go zero value.
pub fn field_text(field: &SelectableField, object: &Value) -> String {
    match object.pointer(&field.pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => match field.label.as_str() {
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
        let stored = Stored::of(Bytes::from_static(b"/registry/core/nodes/n"), encode(&node), Revision(1));
        let values =
            ["spec.unschedulable", "metadata.name", "spec.unknown"].map(|label| stored.field(label, &fields));
        assert_eq!(values, ["false", "n", ""]);
    }

    #[test]
    fn labels_are_found_one_by_one() {
        let labels = json!({"a": "1", "b": "", "c": "3"});
        let stored = stored(&json!({"metadata": {"labels": labels}}), 1);
        assert_eq!(
            ["a", "b", "c", "", "1"].map(|name| stored.label(name)),
            [Some("1"), Some(""), Some("3"), None, None]
        );
    }

    #[test]
    fn an_object_is_decoded_once_for_all_who_share_it() {
        let stored = stored(&json!({"metadata": {"name": "a"}}), 7);
        let first = stored.shared_value().expect("JSON");
        assert!(Arc::ptr_eq(&first, &stored.shared_value().expect("JSON")));
        assert_eq!(*first, stored.to_value().expect("JSON"));
    }

    #[test]
    fn a_compact_object_holds_on_to_nothing_else() {
        let entry = Bytes::from(vec![b'x'; 10_000]);
        let kv = KeyValue {
            key: entry.slice(..10),
            value: entry.slice(100..120),
            create_revision: Revision(3),
            mod_revision: Revision(7),
            version: 2,
            lease: None,
        };
        let compact = Stored::compact(&kv);
        assert_eq!((&compact.key, &compact.json, compact.revision), (&kv.key, &kv.value, Revision(7)));
        drop(kv);
        assert!(entry.is_unique());
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
