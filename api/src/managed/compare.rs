//! What changed between two states of an object.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ApplyError;
use super::element::Element;
use super::extract::fields_of;
use super::node::Node;
use super::set::{FieldSet, step};
use crate::schema::Schema;

/// The parts by which a new state differs from an old one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Parts that only the new state has.
    pub added: FieldSet,
    /// Parts that only the old state has.
    pub removed: FieldSet,
    /// Parts with another value.
    pub modified: FieldSet,
}

impl Changes {
    /// Whether the states are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty()
    }

    fn absorb(&mut self, element: &Element, inner: Changes) {
        self.added.insert_below(element.clone(), inner.added);
        self.removed.insert_below(element.clone(), inner.removed);
        self.modified.insert_below(element.clone(), inner.modified);
    }
}

/// Compares two values of a type.
///
/// # Errors
/// If an item of a list can't be told apart.
pub fn compare(old: &Value, new: &Value, schema: Option<&Schema>) -> Result<Changes, ApplyError> {
    let mut changes = Changes::default();
    for (element, old, new) in pairs(Node::of(old, schema)?, Node::of(new, schema)?) {
        let inner = step(schema, &element);
        match (old, new) {
            (Some(old), Some(new)) => both(&mut changes, &element, old, new, inner)?,
            (Some(old), None) => one(&mut changes.removed, element, old, inner)?,
            (None, Some(new)) => one(&mut changes.added, element, new, inner)?,
            (None, None) => {}
        }
    }
    Ok(changes)
}

fn both(
    changes: &mut Changes,
    element: &Element,
    old: &Value,
    new: &Value,
    schema: Option<&Schema>,
) -> Result<(), ApplyError> {
    if old == new {
        return Ok(());
    }
    match (Node::of(old, schema)?, Node::of(new, schema)?) {
        (Node::Map(_), Node::Map(_)) | (Node::List(_), Node::List(_)) => {
            changes.absorb(element, compare(old, new, schema)?);
        }
        _ => changes.modified.insert(element.clone()),
    }
    Ok(())
}

/// A part that is on one side only goes with all that is inside.
fn one(
    set: &mut FieldSet,
    element: Element,
    value: &Value,
    schema: Option<&Schema>,
) -> Result<(), ApplyError> {
    set.insert(element.clone());
    set.insert_below(element, fields_of(value, schema)?);
    Ok(())
}

type Pair<'a> = (Element, Option<&'a Value>, Option<&'a Value>);

/// The parts of both, matched. Of items with the same name the first counts.
fn pairs<'a>(old: Node<'a>, new: Node<'a>) -> Vec<Pair<'a>> {
    let mut by_name: BTreeMap<Element, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
    for (element, value) in parts(old) {
        by_name.entry(element).or_default().0.get_or_insert(value);
    }
    for (element, value) in parts(new) {
        by_name.entry(element).or_default().1.get_or_insert(value);
    }
    by_name.into_iter().map(|(element, (old, new))| (element, old, new)).collect()
}

fn parts(node: Node<'_>) -> Vec<(Element, &Value)> {
    match node {
        Node::Whole => Vec::new(),
        Node::Map(map) => map.iter().map(|(name, value)| (Element::field(name), value)).collect(),
        Node::List(items) => items,
    }
}
