//! Taking parts out of an object.

use serde_json::{Map, Value};

use super::ApplyError;
use super::element::Element;
use super::node::Node;
use super::set::{FieldSet, step};
use crate::schema::Schema;

/// The value without the parts in `set`; what becomes empty goes too. `None` if nothing is left.
///
/// # Errors
/// If an item of a list can't be told apart.
pub fn remove(value: &Value, set: &FieldSet, schema: Option<&Schema>) -> Result<Option<Value>, ApplyError> {
    match Node::of(value, schema)? {
        Node::Whole => Ok(Some(value.clone())),
        Node::Map(map) if map.is_empty() => Ok(Some(value.clone())),
        Node::Map(map) => {
            let mut out = Map::new();
            for (name, inner) in map {
                if let Some(kept) = keep(&Element::field(name), inner, set, schema)? {
                    out.insert(name.clone(), kept);
                }
            }
            Ok((!out.is_empty()).then_some(Value::Object(out)))
        }
        Node::List(items) if items.is_empty() => Ok(Some(value.clone())),
        Node::List(items) => {
            let kept: Result<Vec<_>, _> = items
                .into_iter()
                .filter_map(|(element, item)| keep(&element, item, set, schema).transpose())
                .collect();
            let kept = kept?;
            Ok((!kept.is_empty()).then_some(Value::Array(kept)))
        }
    }
}

fn keep(
    element: &Element,
    value: &Value,
    set: &FieldSet,
    schema: Option<&Schema>,
) -> Result<Option<Value>, ApplyError> {
    if set.has(element) {
        return Ok(None);
    }
    match set.below(element) {
        Some(below) => remove(value, below, step(schema, element)),
        None => Ok(Some(value.clone())),
    }
}
