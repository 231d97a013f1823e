//! Laying an applied configuration over the live object.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::ApplyError;
use super::element::Element;
use super::node::Node;
use super::set::step;
use crate::schema::Schema;

/// The live value with what the configuration says; lists keep the configuration's order for the items
/// that it names, and the live order for the others.
///
/// # Errors
/// If an item of a list can't be told apart, or the configuration names one twice.
pub fn merge(live: &Value, config: &Value, schema: Option<&Schema>) -> Result<Value, ApplyError> {
    match (Node::of(live, schema)?, Node::of(config, schema)?) {
        (Node::Map(live), Node::Map(config)) => merge_maps(live, config, schema).map(Value::Object),
        (Node::List(live), Node::List(config)) => merge_lists(live, config, schema).map(Value::Array),
        // Items that are named twice are found although there is nothing to merge with.
        (_, Node::List(config)) => merge_lists(Vec::new(), config, schema).map(Value::Array),
        (_, Node::Map(config)) => merge_maps(&Map::new(), config, schema).map(Value::Object),
        (_, Node::Whole) => Ok(config.clone()),
    }
}

fn merge_maps(
    live: &Map<String, Value>,
    config: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<Map<String, Value>, ApplyError> {
    let mut out = live.clone();
    for (name, value) in config {
        let inner = step(schema, &Element::field(name));
        let merged =
            merge(live.get(name).unwrap_or(&Value::Null), value, inner).map_err(|e| e.inside(name))?;
        out.insert(name.clone(), merged);
    }
    Ok(out)
}

/// Merges two lists item by item.
///
/// Items of the configuration come in its order. A live item that it doesn't name stays behind the live
/// item that it stood behind, as far as the two orders agree (structured-merge-diff v4.4).
fn merge_lists(
    live: Vec<(Element, &Value)>,
    config: Vec<(Element, &Value)>,
    schema: Option<&Schema>,
) -> Result<Vec<Value>, ApplyError> {
    let ours: BTreeMap<&Element, &Value> = config.iter().map(|(element, value)| (element, *value)).collect();
    if ours.len() < config.len() {
        let mut seen = BTreeSet::new();
        let twice = config.iter().find(|(element, _)| !seen.insert(element)).map(|(element, _)| element);
        return Err(ApplyError::Duplicate(twice.map(Element::to_string).unwrap_or_default()));
    }
    let theirs: BTreeMap<&Element, &Value> =
        live.iter().rev().map(|(element, value)| (element, *value)).collect();
    let mut shared: VecDeque<&Element> =
        config.iter().map(|(element, _)| element).filter(|element| theirs.contains_key(element)).collect();
    let mut merged: BTreeSet<&Element> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let join = |element: &Element| -> Result<Value, ApplyError> {
        let item = step(schema, element);
        merge(theirs.get(element).copied().unwrap_or(&Value::Null), ours[element], item)
    };
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if let Some((element, value)) = live.get(l) {
            let ahead = config.get(c).is_some_and(|(next, _)| next != element);
            if !ours.contains_key(element) {
                out.push((*value).clone());
                l += 1;
                continue;
            }
            // An item of both that has been placed, or will be in the configuration's order.
            if merged.contains(element) || (ahead && shared.front().is_some_and(|next| *next != element)) {
                l += 1;
                continue;
            }
        }
        let Some((element, _)) = config.get(c) else { continue };
        out.push(join(element)?);
        merged.insert(element);
        if shared.front() == Some(&element) {
            shared.pop_front();
        }
        c += 1;
    }
    Ok(out)
}
