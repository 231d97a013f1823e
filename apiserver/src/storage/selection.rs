//! Which objects of a resource a list, a watch or a deletion of many means.

use std::sync::Arc;

use api::selector::{FieldSelector, FieldTerm, LabelSelector};
use api::status::Status;
use bytes::Bytes;
use serde_json::Value;
use store::kv::KeyRange;

use crate::query::Query;
use crate::registry::resource::{Resource, SelectableField};
use crate::storage::key::Key;
use crate::storage::object::{Stored, field_text};

/// A place in the key space and conditions on the objects there.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Of which resource.
    pub resource: Arc<Resource>,
    /// In which part of the key space.
    pub range: KeyRange,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 if one is malformed or names a field that can't be selected by.
    pub fn parse(resource: Arc<Resource>, namespace: Option<&str>, query: &Query) -> Result<Self, Status> {
        let bad = |error: api::selector::SelectorError| Status::bad_request(error.to_string());
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default()).map_err(bad)?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default()).map_err(bad)?;
        check_fields(&resource, &fields)?;
        let range = range(&resource, namespace, &fields);
        Ok(Self { resource, range, labels, fields })
    }

    /// Everything in a namespace, or everywhere.
    pub fn everything(resource: Arc<Resource>, namespace: Option<&str>) -> Self {
        let range = range(&resource, namespace, &FieldSelector::default());
        Self { resource, range, labels: LabelSelector::everything(), fields: FieldSelector::default() }
    }

    /// The prefix of all keys of the resource.
    pub fn prefix(&self) -> Bytes {
        Key::Resource(&self.resource).to_bytes()
    }

    /// Whether there are conditions beyond the place.
    pub fn is_conditional(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    /// Whether the object is meant.
    pub fn selects(&self, stored: &Stored) -> bool {
        self.range.contains(&stored.key) && (!self.is_conditional() || self.conditions_hold(stored))
    }

    fn conditions_hold(&self, stored: &Stored) -> bool {
        let fields = &self.resource.selectable_fields;
        // Another version, or another state of the definition, may have other fields.
        if self.resource.custom.is_some() || self.resource.stored_as.is_some() {
            return self.hold_now(stored, fields);
        }
        self.labels.matches_with(|name| stored.label(name))
            && self.fields.terms().iter().all(|term| holds(term, stored.field(&term.field, fields)))
    }

    fn hold_now(&self, stored: &Stored, fields: &[SelectableField]) -> bool {
        let value: Value = serde_json::from_slice(&stored.json).unwrap_or_default();
        let named = |label: &str| fields.iter().find(|field| field.label == label);
        let text = |label: &str| match named(label) {
            Some(field) => field_text(field, &value),
            None => stored.field(label, &[]).to_owned(),
        };
        self.labels.matches_object(&value)
            && self.fields.terms().iter().all(|term| holds(term, &text(&term.field)))
    }
}

fn holds(term: &FieldTerm, value: &str) -> bool {
    (value == term.value) == term.equals
}

fn check_fields(resource: &Resource, fields: &FieldSelector) -> Result<(), Status> {
    let known = |label: &str| {
        matches!(label, "metadata.name" | "metadata.namespace")
            || resource.selectable_fields.iter().any(|field| field.label == label)
    };
    match fields.terms().iter().find(|term| !known(&term.field)) {
        Some(term) => Err(Status::bad_request(format!("field label not supported: {}", term.field))),
        None => Ok(()),
    }
}

/// As narrow as possible: a selector for one name reads one key.
fn range(resource: &Resource, namespace: Option<&str>, fields: &FieldSelector) -> KeyRange {
    let namespace = namespace.filter(|_| resource.namespaced).or_else(|| {
        fields
            .exact("metadata.namespace")
            .filter(|ns| resource.namespaced && !ns.is_empty() && !ns.contains('/'))
    });
    let name = fields.exact("metadata.name").filter(|name| !name.is_empty() && !name.contains('/'));
    match (namespace, name) {
        (Some(namespace), Some(name)) => Key::Object(resource, namespace, name).range(),
        (None, Some(name)) if !resource.namespaced => Key::Object(resource, "", name).range(),
        (Some(namespace), None) => Key::Namespace(resource, namespace).range(),
        _ => Key::Resource(resource).range(),
    }
}
