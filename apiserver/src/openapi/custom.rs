//! The definitions of custom kinds: their own schema, and what every kind has.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::registry::resource::Resource;
use crate::request::Verb;
use crate::{resource_metrics, transaction};

pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object.";
const KIND: &str = "Kind is a string value representing the REST resource this object represents.";
const METADATA: &str = "Standard object's metadata.";

/// Whether upstream's definitions don't have the kind.
pub(super) fn is_defined_here(resource: &Resource) -> bool {
    resource.custom.is_some() || resource_metrics::is_measured(resource) || transaction::is_row(resource)
}

/// The kind and its list, by the names of their definitions; nothing for kinds that upstream's definitions have.
pub(super) fn definitions(resource: &Resource) -> Vec<(String, Box<RawValue>)> {
    if !is_defined_here(resource) {
        return Vec::new();
    }
    let schema = match &resource.custom {
        Some(custom) => custom.openapi.clone(),
        None if transaction::is_row(resource) => transaction::schema(),
        None => resource_metrics::schema(&resource.kind),
    };
    let mut all = vec![(resource.definition.clone(), object(resource, &schema))];
    if resource.verbs.contains(Verb::List) {
        all.push((format!("{}List", resource.definition), list(resource)));
    }
    all.into_iter().filter_map(|(name, schema)| Some((name, to_raw_value(&schema).ok()?))).collect()
}

fn object(resource: &Resource, schema: &Value) -> Value {
    let mut definition = schema.clone();
    if definition["properties"].is_null() {
        definition["properties"] = json!({});
    }
    envelope(&mut definition);
    // Who is only sent, and never an object that is there, has no metadata.
    if resource.verbs.contains(Verb::Get) {
        metadata(&mut definition, OBJECT_META);
    }
    definition["x-kubernetes-group-version-kind"] = kind(resource, &resource.kind);
    definition
}

fn list(resource: &Resource) -> Value {
    let items = json!({
        "type": "array",
        "description": format!("List of {}.", resource.plural),
        "items": {"$ref": format!("#/components/schemas/{}", resource.definition)},
    });
    let mut definition = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {"items": items},
    });
    envelope(&mut definition);
    metadata(&mut definition, LIST_META);
    definition["x-kubernetes-group-version-kind"] = kind(resource, &resource.list_kind);
    definition
}

fn envelope(definition: &mut Value) {
    let properties = &mut definition["properties"];
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
}

fn metadata(definition: &mut Value, kind: &str) {
    definition["properties"]["metadata"] = json!({
        "description": METADATA,
        "allOf": [{"$ref": format!("#/components/schemas/{kind}")}],
    });
}

fn kind(resource: &Resource, kind: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}
