//! OpenAPI v2: all resources and definitions in one document, made from what version 3 is made from.
//!
//! Version 2 has no alternatives and no null; what a schema says with them is left out, as upstream does.

use std::collections::BTreeMap;

use api::schema::Definitions;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Row, custom, definitions_of, paths};
use crate::version::KUBERNETES_VERSION;

/// The document of these resources.
pub(super) fn document(resources: &[Row]) -> Value {
    let names = definitions_of(resources);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut schemas: BTreeMap<String, Box<RawValue>> = Definitions::builtin().openapi_v3(&names);
    schemas.extend(resources.iter().flat_map(|resource| custom::definitions(resource)));
    let definitions: Map<String, Value> = schemas
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), schema(&serde_json::from_str(text.get()).ok()?))))
        .collect();
    let paths: Map<String, Value> =
        resources.iter().flat_map(paths::of_resource).map(|(path, item)| (path, self::item(&item))).collect();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": KUBERNETES_VERSION },
        "paths": paths,
        "definitions": definitions,
    })
}

/// What a definition says in version 2.
fn schema(given: &Value) -> Value {
    let Some(map) = given.as_object() else { return given.clone() };
    let mut made = Map::new();
    if map.get("nullable") == Some(&Value::Bool(true)) {
        made.extend(map.get("description").map(|text| ("description".to_owned(), text.clone())));
        return Value::Object(made);
    }
    for (key, value) in map {
        let inner = match key.as_str() {
            "oneOf" | "anyOf" | "not" | "nullable" => continue,
            "allOf" => {
                // A reference with words of its own; other uses are conditions.
                made.extend(value[0].get("$ref").map(|name| ("$ref".to_owned(), reference(name))));
                continue;
            }
            "$ref" => reference(value),
            "items" | "additionalProperties" => schema(value),
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                fields.map(|(name, field)| (name.clone(), schema(field))).collect::<Map<_, _>>().into()
            }
            _ => value.clone(),
        };
        made.insert(key.clone(), inner);
    }
    // Texts that may also be numbers are texts.
    if map.contains_key("oneOf") && !map.contains_key("type") {
        made.insert("type".to_owned(), json!("string"));
    }
    // kubectl takes what is listed for all that there is.
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        made.remove("items");
        made.remove("properties");
    }
    Value::Object(made)
}

fn reference(name: &Value) -> Value {
    json!(name.as_str().unwrap_or_default().replace("#/components/schemas/", "#/definitions/"))
}

/// A path item: its operations, and the parameters in the path itself.
fn item(given: &Value) -> Value {
    let mut made = Map::new();
    for (key, value) in given.as_object().into_iter().flatten() {
        let value = match key.as_str() {
            "parameters" => parameters(value).into(),
            _ => operation(value),
        };
        made.insert(key.clone(), value);
    }
    Value::Object(made)
}

fn operation(given: &Value) -> Value {
    let mut made = given.clone();
    let mut parameters = parameters(&given["parameters"]);
    let body = &given["requestBody"];
    if let Some(content) = body["content"].as_object() {
        let types: Vec<&String> = content.keys().collect();
        let first = content.values().next().map(|content| schema(&content["schema"])).unwrap_or_default();
        parameters.push(json!({"name": "body", "in": "body", "required": body["required"], "schema": first}));
        made["consumes"] = json!(types);
    }
    made["parameters"] = parameters.into();
    made["produces"] = json!(["application/json", "application/yaml"]);
    for response in made["responses"].as_object_mut().into_iter().flatten().map(|(_, response)| response) {
        let content = response["content"].take();
        let first = content.as_object().and_then(|content| content.values().next()).cloned();
        *response = json!({"description": response["description"]});
        if let Some(content) = first {
            response["schema"] = schema(&content["schema"]);
        }
    }
    if let Some(map) = made.as_object_mut() {
        map.remove("requestBody");
    }
    made
}

/// A parameter's type stands in it, not in a schema.
fn parameters(given: &Value) -> Vec<Value> {
    let flat = |parameter: &Value| {
        let mut made = parameter.as_object().cloned().unwrap_or_default();
        if let Some(Value::Object(schema)) = made.remove("schema") {
            made.extend(schema);
        }
        Value::Object(made)
    };
    given.as_array().into_iter().flatten().map(flat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_lose_what_version_2_cannot_say() {
        let cases = [
            (
                json!({"description": "d", "allOf": [{"$ref": "#/components/schemas/a.B"}]}),
                json!({"description": "d", "$ref": "#/definitions/a.B"}),
            ),
            (
                json!({"format": "int-or-string", "oneOf": [{"type": "string"}, {"type": "integer"}]}),
                json!({"format": "int-or-string", "type": "string"}),
            ),
            (
                json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string", "nullable": true}}}}),
                json!({"type": "array", "items": {"type": "object", "properties": {"a": {}}}}),
            ),
            (
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {}}}),
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(schema(&given), expected, "{given}");
        }
    }
}
