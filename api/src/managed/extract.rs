//! Which parts a value has.

use serde_json::Value;

use super::ApplyError;
use super::element::Element;
use super::node::Node;
use super::set::{FieldSet, step};
use crate::schema::Schema;

/// All parts of `value` that can have an owner: scalars and atomic values, items of lists, keys of maps,
/// empty maps.
///
/// # Errors
/// If an item of a list can't be told apart.
pub fn fields_of(value: &Value, schema: Option<&Schema>) -> Result<FieldSet, ApplyError> {
    let mut set = FieldSet::default();
    match Node::of(value, schema)? {
        Node::Whole => {}
        Node::Map(map) => {
            for (name, inner) in map {
                let element = Element::field(name);
                let named = schema.is_some_and(|schema| schema.field(name).is_some());
                add(&mut set, element, inner, schema, !named)?;
            }
        }
        Node::List(items) => {
            for (element, item) in items {
                add(&mut set, element, item, schema, true)?;
            }
        }
    }
    Ok(set)
}

/// Adds the part at `element`: by itself if it is whole or empty or `always`, and what is inside.
fn add(
    set: &mut FieldSet,
    element: Element,
    value: &Value,
    schema: Option<&Schema>,
    always: bool,
) -> Result<(), ApplyError> {
    let inner = step(schema, &element);
    let itself = match Node::of(value, inner)? {
        Node::Whole => true,
        Node::Map(map) => map.is_empty(),
        Node::List(_) => false,
    };
    if itself || always {
        set.insert(element.clone());
    }
    set.insert_below(element, fields_of(value, inner)?);
    Ok(())
}
