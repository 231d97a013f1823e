//! The parts of a configuration that can only be replaced as a whole.

use serde_json::Value;

use super::element::Element;
use super::set::step;
use crate::schema::{ListKind, Schema, Shape};

/// The paths of all atomic lists and maps in a value, as upstream writes them: `.spec.selector`, `.a[0].b`.
pub fn atomics(value: &Value, schema: Option<&Schema>) -> Vec<String> {
    let mut found = Vec::new();
    visit(value, schema, "", &mut found);
    found
}

fn visit(value: &Value, schema: Option<&Schema>, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(schema.is_some_and(|schema| schema.atomic).then(|| path.to_owned()));
            for (name, value) in map {
                visit(value, step(schema, &Element::field(name)), &format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) => {
            found.extend(is_atomic_list(schema).then(|| path.to_owned()));
            let inner = schema.and_then(Schema::items);
            for (index, item) in items.iter().enumerate() {
                visit(item, inner, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

fn is_atomic_list(schema: Option<&Schema>) -> bool {
    match schema.map(|schema| (&schema.shape, schema.atomic)) {
        Some((Shape::List(list), false)) => list.kind == ListKind::Atomic,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Definitions;

    #[test]
    fn what_replaces_more_than_it_says_is_found() {
        let schema = Definitions::builtin().of_kind("apps", "v1", "Deployment");
        let found = |config: Value| atomics(&config, schema);
        let container = json!({"name": "c", "env": [{"name": "A", "value": "b"}], "args": ["x"]});
        assert_eq!(
            found(json!({"spec": {"template": {"spec": {"containers": [container]}}}})),
            [".spec.template.spec.containers[0].args"]
        );
        assert_eq!(found(json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}})), [".spec.selector"]);
        assert!(found(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 3}})).is_empty());
    }
}
