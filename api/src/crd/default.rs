//! Defaulting: absent fields get the schema's defaults, and nulls that mean nothing go.

use serde_json::{Map, Value};

use super::structural::Structural;

/// Completes a value. A null is a value only where the schema says so; elsewhere it is as if absent.
pub fn default(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => fields(schema, map),
        Value::Array(items) => {
            let Some(child) = &schema.items else { return };
            for item in items {
                replace_null(child, item);
                default(child, item);
            }
        }
        _ => {}
    }
}

fn fields(schema: &Structural, map: &mut Map<String, Value>) {
    for (name, child) in &schema.properties {
        if map.get(name).is_some_and(Value::is_null) && !child.nullable {
            map.remove(name);
        }
        if let Some(value) = &child.default
            && !map.contains_key(name)
        {
            map.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in map.iter_mut() {
        if let Some(child) = schema.child(name) {
            replace_null(child, value);
            default(child, value);
        }
    }
}

/// An item can't be left out, so its null is kept unless there is something better.
fn replace_null(schema: &Structural, value: &mut Value) {
    if let Some(default) = &schema.default
        && value.is_null()
        && !schema.nullable
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_fields_and_nulls() {
        let schema = Structural::compile(&json!({"type": "object", "properties": {
            "foo": {"type": "string", "default": "d"},
            "bar": {"type": "string", "nullable": true, "default": "d"},
            "baz": {"type": "string"},
            "deep": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 1}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 7}},
        }}));
        let mut object = json!({"foo": null, "bar": null, "baz": null, "map": {"a": null, "b": 2}});
        default(&schema, &mut object);
        assert_eq!(object, json!({"foo": "d", "bar": null, "deep": {"n": 1}, "map": {"a": 7, "b": 2}}));
    }
}
