//! The rules by which a schema is structural: every value has one type, and only restrictions stand below
//! logical connectives.

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::status::FieldError;

type Errors = Vec<FieldError>;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Why the schema at `path` isn't structural, sorted by text as upstream has it.
pub(super) fn check(schema: &Value, path: &str) -> Errors {
    let mut errors = invariants(schema, Level::Root, path);
    errors.extend(complete(schema, path));
    errors.sort_by_key(FieldError::to_string);
    errors
}

fn invariants(schema: &Value, level: Level, path: &str) -> Errors {
    let mut errors = below(schema, path);
    let kind = text(schema, "type");
    if kind == "array" && schema.get("items").is_none() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    errors.extend(extensions(schema, path));
    errors.extend(values(schema, path, int_or_string_pattern(schema)));
    errors.extend(types(schema, level, kind, path));
    if level == Level::Root || flag(schema, "x-kubernetes-embedded-resource") {
        errors.extend(envelope(schema, level, path));
    }
    errors
}

fn below(schema: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    if let Some(items) = schema.get("items") {
        errors.extend(invariants(items, Level::Item, &format!("{path}.items")));
    }
    for (name, property) in entries(schema, "properties") {
        errors.extend(invariants(property, Level::Field, &format!("{path}.properties[{name}]")));
    }
    if let Some(additional @ Value::Object(_)) = schema.get("additionalProperties") {
        errors.extend(invariants(additional, Level::Field, &format!("{path}.additionalProperties")));
    }
    errors
}

fn types(schema: &Value, level: Level, kind: &str, path: &str) -> Errors {
    let mut errors = Errors::new();
    let at = format!("{path}.type");
    let untyped =
        flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    let additional = schema.get("additionalProperties").is_some_and(|value| !value.is_null());
    if flag(schema, "x-kubernetes-embedded-resource") {
        errors.extend(embedded(schema, kind, path));
    } else if kind.is_empty() && !untyped {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&at, why));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&at, kind, "must be object at the root"));
    }
    if level == Level::Root && additional {
        errors.push(FieldError::forbidden(
            format!("{path}.additionalProperties"),
            "must not be used at the root",
        ));
    }
    errors
}

fn embedded(schema: &Value, kind: &str, path: &str) -> Errors {
    let mut errors = Errors::new();
    let why = "must be object if x-kubernetes-embedded-resource is true";
    match kind {
        "object" => {}
        "" => errors.push(FieldError::required(format!("{path}.type"), why)),
        _ => errors.push(FieldError::invalid(format!("{path}.type"), kind, why)),
    }
    if schema.get("additionalProperties").is_some() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), why));
    }
    if !flag(schema, "x-kubernetes-preserve-unknown-fields") && entries(schema, "properties").next().is_none()
    {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{path}.properties"), why));
    }
    errors
}

fn extensions(schema: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    if flag(schema, "x-kubernetes-int-or-string") {
        for extension in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if flag(schema, extension) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                errors.push(FieldError::invalid(format!("{path}.{extension}"), true, why));
            }
        }
    }
    errors
}

/// `apiVersion`, `kind` and `metadata` are what they are everywhere.
fn envelope(schema: &Value, level: Level, path: &str) -> Errors {
    let mut errors = Errors::new();
    for name in ["apiVersion", "kind"] {
        if let Some(field) = schema["properties"].get(name)
            && text(field, "type") != "string"
        {
            let at = format!("{path}.properties[{name}].type");
            errors.push(FieldError::invalid(at, text(field, "type"), "must be string"));
        }
    }
    let Some(metadata) = schema["properties"].get("metadata") else { return errors };
    let at = format!("{path}.properties[metadata]");
    if text(metadata, "type") != "object" {
        errors.push(FieldError::invalid(format!("{at}.type"), text(metadata, "type"), "must be object"));
    }
    if level == Level::Root && !names_only(metadata) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(at, why));
    }
    errors
}

fn names_only(metadata: &Value) -> bool {
    let known = |key: &str| matches!(key, "type" | "properties" | "description" | "default");
    let names = |key: &str| matches!(key, "name" | "generateName");
    metadata.as_object().is_some_and(|map| map.keys().all(|key| known(key)))
        && entries(metadata, "properties").all(|(name, _)| names(name))
}

/// Which of the two ways to say "integer or string" the schema uses, where nested types are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IntOrString {
    No,
    AnyOf,
    FirstAllOf,
}

fn int_or_string_pattern(schema: &Value) -> IntOrString {
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    if !flag(schema, "x-kubernetes-int-or-string") {
        IntOrString::No
    } else if schema.get("anyOf") == Some(&pattern) {
        IntOrString::AnyOf
    } else if schema["allOf"][0].get("anyOf") == Some(&pattern) {
        IntOrString::FirstAllOf
    } else {
        IntOrString::No
    }
}

fn values(schema: &Value, path: &str, except: IntOrString) -> Errors {
    let mut errors = Errors::new();
    for connective in ["anyOf", "allOf", "oneOf"] {
        if connective == "anyOf" && except == IntOrString::AnyOf {
            continue;
        }
        for (index, nested) in items(schema, connective).enumerate() {
            let first = connective == "allOf" && index == 0 && except == IntOrString::FirstAllOf;
            let inner = if first { IntOrString::AnyOf } else { IntOrString::No };
            errors.extend(restriction(nested, &format!("{path}.{connective}[{index}]"), inner));
        }
    }
    if let Some(not) = schema.get("not") {
        errors.extend(restriction(not, &format!("{path}.not"), IntOrString::No));
    }
    let pattern = text(schema, "pattern");
    if let Err(error) = Regex::new(pattern) {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, why));
    }
    errors
}

/// What may not stand below a connective, and what is said of it.
const NOT_NESTED: [(&str, &str); 13] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn restriction(schema: &Value, path: &str, except: IntOrString) -> Errors {
    let mut errors = values(schema, path, except);
    if let Some(items) = schema.get("items") {
        errors.extend(restriction(items, &format!("{path}.items"), IntOrString::No));
    }
    for (name, property) in entries(schema, "properties") {
        errors.extend(restriction(property, &format!("{path}.properties[{name}]"), IntOrString::No));
    }
    for (key, why) in NOT_NESTED {
        let given = schema.get(key).is_some_and(|value| !is_zero(value));
        if given {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), why));
        }
    }
    if schema["properties"].get("metadata").is_some() {
        let why = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(format!("{path}.properties[metadata]"), why));
    }
    errors
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Every field that is restricted is also specified outside of the restriction.
fn complete(schema: &Value, path: &str) -> Errors {
    let mut errors = nested_of(schema, path)
        .flat_map(|(nested, at)| specified(nested, schema, &at, path))
        .collect::<Errors>();
    if let Some(items) = schema.get("items") {
        errors.extend(complete(items, &format!("{path}.items")));
    }
    for (name, property) in entries(schema, "properties") {
        errors.extend(complete(property, &format!("{path}.properties[{name}]")));
    }
    if let Some(additional @ Value::Object(_)) = schema.get("additionalProperties") {
        errors.extend(complete(additional, &format!("{path}.additionalProperties")));
    }
    errors
}

fn nested_of<'a>(schema: &'a Value, path: &str) -> impl Iterator<Item = (&'a Value, String)> {
    let path = path.to_owned();
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(move |connective| {
        let path = path.clone();
        items(schema, connective)
            .enumerate()
            .map(move |(index, nested)| (nested, format!("{path}.{connective}[{index}]")))
    });
    lists.chain(schema.get("not").map(|not| (not, "not".to_owned())))
}

fn specified(nested: &Value, schema: &Value, at: &str, path: &str) -> Errors {
    let mut errors =
        nested_of(nested, at).flat_map(|(inner, at)| specified(inner, schema, &at, path)).collect::<Errors>();
    let why = |missing: &str| format!("because it is defined in {}.{missing}", at);
    if let Some(items) = nested.get("items") {
        match schema.get("items") {
            Some(outer) => {
                errors.extend(specified(items, outer, &format!("{at}.items"), &format!("{path}.items")))
            }
            None => errors.push(FieldError::required(format!("{path}.items"), why("items"))),
        }
    }
    for (name, property) in entries(nested, "properties") {
        let (inner, outer) = (format!("{at}.properties[{name}]"), format!("{path}.properties[{name}]"));
        match schema["properties"].get(name) {
            Some(schema) => errors.extend(specified(property, schema, &inner, &outer)),
            None => errors.push(FieldError::required(outer, format!("because it is defined in {inner}"))),
        }
    }
    errors
}

pub(super) fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or_default()
}

pub(super) fn entries<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(key).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

pub(super) fn items<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_structural_is_told() {
        let cases = [
            (json!({}), "s.type: Required value: must not be empty at the root"),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                r#"s.type: Invalid value: "array": must be object at the root"#,
            ),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                "s.properties[a].type: Required value: must not be empty for specified object fields",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
                "s.properties[a].items.type: Required value: must not be empty for specified array items",
            ),
            (
                json!({"type": "object", "anyOf": [{"type": "object"}]}),
                "s.anyOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"a": {"minimum": 1}}}]}),
                "s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]",
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ),
        ];
        for (schema, text) in cases {
            let texts: Vec<String> = check(&schema, "s").iter().map(FieldError::to_string).collect();
            assert_eq!(texts, [text]);
        }
    }

    #[test]
    fn an_integer_or_a_string_may_say_so_twice() {
        let both = json!([{"type": "integer"}, {"type": "string"}]);
        let schema = json!({"type": "object", "properties": {
            "a": {"x-kubernetes-int-or-string": true, "anyOf": both},
            "b": {"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": both}, {"pattern": "x"}]},
        }});
        assert_eq!(check(&schema, "s"), []);
    }
}
