//! What a schema in a CustomResourceDefinition may not say, beyond being structural.

use serde_json::Value;

use super::default::default;
use super::format;
use super::prune;
use super::structural::Structural;
use super::structural_rules::{entries, flag, items, text};
use super::validate::validate;
use crate::status::FieldError;

type Errors = Vec<FieldError>;

/// Keywords of JSON Schema that are no part of the dialect.
const FORBIDDEN: [&str; 6] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// Calls `visit` with every schema node and its path.
pub(super) fn walk<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&'a Value, &str)) {
    visit(schema, path);
    for (name, property) in entries(schema, "properties") {
        walk(property, &format!("{path}.properties[{name}]"), visit);
    }
    for key in ["items", "additionalProperties", "not"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            walk(inner, &format!("{path}.{key}"), visit);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in items(schema, key).enumerate() {
            walk(inner, &format!("{path}.{key}[{index}]"), visit);
        }
    }
}

/// Everything that is wrong with one node.
pub(super) fn node(schema: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    for key in FORBIDDEN {
        if schema.get(key).is_some_and(|value| !value.is_null()) {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), format!("{key} is not supported")));
        }
    }
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), why));
    }
    errors.extend(additional(schema, path));
    errors.extend(type_of(schema, path));
    errors.extend(list_type(schema, path));
    errors
}

fn additional(schema: &Value, path: &str) -> Errors {
    let at = format!("{path}.additionalProperties");
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => {
            vec![FieldError::forbidden(at, "additionalProperties cannot be set to false")]
        }
        Some(Value::Object(_)) if entries(schema, "properties").next().is_some() => {
            vec![FieldError::forbidden(at, "additionalProperties and properties are mutual exclusive")]
        }
        _ => Errors::new(),
    }
}

fn type_of(schema: &Value, path: &str) -> Errors {
    let at = format!("{path}.type");
    match text(schema, "type") {
        "" | "object" | "array" | "string" | "integer" | "number" | "boolean" => Errors::new(),
        "null" => {
            vec![FieldError::forbidden(at, "type cannot be set to null, use nullable as an alternative")]
        }
        other => {
            let supported = ["array", "boolean", "integer", "number", "object", "string"];
            vec![FieldError::not_supported(at, other, &supported)]
        }
    }
}

fn list_type(schema: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    let (kind, list, map) =
        (text(schema, "type"), text(schema, "x-kubernetes-list-type"), text(schema, "x-kubernetes-map-type"));
    let at = format!("{path}.x-kubernetes-list-type");
    if !list.is_empty() && kind != "array" {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            kind,
            "must be array if x-kubernetes-list-type is specified",
        ));
    }
    if !matches!(list, "" | "atomic" | "set" | "map") {
        errors.push(FieldError::not_supported(&at, list, &["atomic", "set", "map"]));
    }
    if !map.is_empty() && kind != "object" {
        let why = "must be object if x-kubernetes-map-type is specified";
        errors.push(FieldError::invalid(format!("{path}.type"), kind, why));
    }
    if !matches!(map, "" | "atomic" | "granular") {
        let at = format!("{path}.x-kubernetes-map-type");
        errors.push(FieldError::not_supported(at, map, &["atomic", "granular"]));
    }
    errors.extend(map_keys(schema, list, path));
    if list == "set" && !is_scalar_or_atomic(&schema["items"]) {
        let why = "items must be atomic or scalar if x-kubernetes-list-type is set";
        errors.push(FieldError::invalid(format!("{path}.items"), schema["items"].clone(), why));
    }
    errors
}

fn is_scalar_or_atomic(items: &Value) -> bool {
    match text(items, "type") {
        "object" => text(items, "x-kubernetes-map-type") == "atomic",
        "array" => matches!(text(items, "x-kubernetes-list-type"), "" | "atomic"),
        _ => true,
    }
}

fn map_keys(schema: &Value, list: &str, path: &str) -> Errors {
    let mut errors = Errors::new();
    let at = format!("{path}.x-kubernetes-list-map-keys");
    let keys: Vec<&str> = items(schema, "x-kubernetes-list-map-keys").filter_map(Value::as_str).collect();
    match (list == "map", keys.is_empty()) {
        (true, true) => {
            errors.push(FieldError::required(&at, "must not be empty if x-kubernetes-list-type is map"));
        }
        (false, false) => {
            let why = "must be empty if x-kubernetes-list-type is not map";
            errors.push(FieldError::forbidden(&at, why));
        }
        _ => {}
    }
    for (index, key) in keys.iter().enumerate().filter(|_| list == "map") {
        let at = format!("{at}[{index}]");
        if keys[..index].contains(key) {
            errors.push(FieldError::duplicate(&at, *key));
        }
        errors.extend(map_key(&schema["items"], key, &at, path));
    }
    errors
}

fn map_key(items_schema: &Value, key: &str, at: &str, path: &str) -> Errors {
    let Some(property) = items_schema["properties"].get(key) else {
        return vec![FieldError::invalid(at, key, "entries must all be names of item properties")];
    };
    let mut errors = Errors::new();
    if matches!(text(property, "type"), "object" | "array") {
        errors.push(FieldError::invalid(at, key, "entries must all be of scalar type"));
    }
    let required = items(items_schema, "required").any(|name| name == key);
    if !required && property.get("default").is_none() {
        let at = format!("{path}.items.properties[{key}].default");
        let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                   property";
        errors.push(FieldError::required(at, why));
    }
    errors
}

/// Defaults are values of their own schema.
pub(super) fn defaults(schema: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    walk(schema, path, &mut |node, at| {
        let Some(given) = node.get("default").filter(|value| !value.is_null()) else { return };
        let structural = Structural::compile(node);
        let at = format!("{at}.default");
        let mut pruned = given.clone();
        if !prune::prune_value(&structural, &mut pruned).is_empty() {
            errors.push(FieldError::invalid(&at, given.clone(), "must not have unknown fields"));
        }
        default(&structural, &mut pruned);
        errors.extend(validate(&structural, &pruned, None).into_iter().map(|error| error.under(&at)));
    });
    errors
}

/// Formats in a schema that nobody knows, each once.
pub(super) fn unrecognized(schema: &Value) -> Vec<String> {
    let mut formats = Vec::new();
    walk(schema, "", &mut |node, _| {
        let given = text(node, "format");
        if !given.is_empty() && !format::is_known(given) {
            formats.push(given.to_owned());
        }
    });
    formats
}
