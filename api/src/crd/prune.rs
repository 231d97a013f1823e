//! Pruning: fields that the schema doesn't name go, unless it says that they are to be kept.

use serde_json::{Map, Value};

use super::structural::{Additional, Structural};

/// What every object has, whatever its schema says.
const ENVELOPE: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops from an object (with `apiVersion`, `kind` and `metadata`) what the schema doesn't know, and tells
/// the paths of what was dropped.
pub fn prune(schema: &Structural, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), dropped: Vec::new() };
    if let Value::Object(map) = object {
        pruner.object(schema, map, true);
    }
    pruner.dropped
}

/// The same for a value inside an object.
pub(super) fn prune_value(schema: &Structural, value: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), dropped: Vec::new() };
    pruner.value(schema, value);
    pruner.dropped
}

struct Pruner {
    path: String,
    dropped: Vec<String>,
}

impl Pruner {
    fn value(&mut self, schema: &Structural, value: &mut Value) {
        match value {
            Value::Object(map) => self.object(schema, map, schema.embedded),
            Value::Array(items) => self.list(schema, items),
            _ => {}
        }
    }

    fn object(&mut self, schema: &Structural, map: &mut Map<String, Value>, is_resource: bool) {
        let mut unknown = Vec::new();
        for (key, value) in map.iter_mut() {
            if is_resource && ENVELOPE.contains(&key.as_str()) {
                continue;
            }
            match schema.child(key) {
                Some(child) => self.below(&format!(".{key}"), |pruner| pruner.value(child, value)),
                None if schema.preserve_unknown || matches!(schema.additional, Some(Additional::Any)) => {}
                None => unknown.push(key.clone()),
            }
        }
        for key in unknown {
            map.remove(&key);
            self.below(&format!(".{key}"), |pruner| {
                pruner.dropped.push(pruner.path.trim_start_matches('.').to_owned());
            });
        }
    }

    fn list(&mut self, schema: &Structural, items: &mut [Value]) {
        let Some(child) = &schema.items else { return };
        for (index, item) in items.iter_mut().enumerate() {
            self.below(&format!("[{index}]"), |pruner| pruner.value(child, item));
        }
    }

    fn below(&mut self, step: &str, act: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        act(self);
        self.path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_go_and_are_told() {
        let schema = Structural::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "integer"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object"}},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                         "properties": {"known": {"type": "object"}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true},
            }},
        }}));
        let mut object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"x": 1}, "extra": 1, "spec": {
            "a": 1, "b": 2, "list": [{"x": "1"}, {"y": 2}], "map": {"k": {"z": 1}},
            "open": {"any": 1, "known": {"gone": 1}}, "pod": {"kind": "Pod", "metadata": {}, "spec": {}},
        }});
        let dropped = prune(&schema, &mut object);
        assert_eq!(
            dropped,
            ["spec.list[1].y", "spec.map.k.z", "spec.open.known.gone", "spec.pod.spec", "spec.b", "extra"]
        );
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "K", "metadata": {"x": 1}, "spec": {
                "a": 1, "list": [{"x": "1"}, {}], "map": {"k": {}}, "open": {"any": 1, "known": {}},
                "pod": {"kind": "Pod", "metadata": {}},
            }})
        );
    }
}
