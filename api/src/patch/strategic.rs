//! Kubernetes' strategic merge patch: a merge patch that knows which lists are sets or maps.
//!
//! The schema says which lists merge and by which key. Directives inside the patch: `$patch`
//! (`replace`, `delete`, `merge`), `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD` and
//! `$retainKeys`. A null deletes. No directive ever reaches the result.

use serde_json::{Map, Value};

use super::PatchError;
use super::order;
use crate::schema::{PatchStrategy, Schema};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of this schema. Errors: [`PatchError::Strategic`].
pub fn strategic_merge(current: &Value, patch: &Value, schema: &Schema) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".into()));
    };
    let current = current.as_object().cloned().unwrap_or_default();
    merge_maps(current, patch.clone(), Some(schema)).map(Value::Object)
}

fn merge_maps(
    mut current: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.remove(PATCH).as_ref().map(directive).transpose()? {
        Some(Directive::Replace) => return Ok(without_directives(patch)),
        Some(Directive::Delete) => return Ok(Map::new()),
        Some(Directive::Merge) | None => {}
    }
    retain(&mut current, &mut patch)?;
    let orders = take_prefixed(&mut patch, SET_ORDER)?;
    let deletions = take_prefixed(&mut patch, DELETE_FROM)?;
    for (field, gone) in deletions {
        delete_from(&mut current, &field, &gone);
    }
    let mut ordered: Vec<(String, Vec<Value>)> = orders;
    for (key, value) in patch {
        let order = take_order(&mut ordered, &key);
        merge_field(&mut current, key, value, order.as_deref(), schema)?;
    }
    // An order without a change of the list itself still sorts what is there.
    for (field, order) in ordered {
        reorder_field(&mut current, &field, &order, schema)?;
    }
    Ok(current)
}

fn merge_field(
    current: &mut Map<String, Value>,
    key: String,
    value: Value,
    order: Option<&[Value]>,
    schema: Option<&Schema>,
) -> Result<(), PatchError> {
    let strategy = strategy(schema, &key);
    let child = schema.and_then(|schema| schema.child(&key));
    let merged = match (current.remove(&key), value) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(old)), Value::Object(new)) if !strategy.replace || has_directive(&new) => {
            Value::Object(merge_maps(old, new, child)?)
        }
        (_, Value::Object(new)) => Value::Object(merge_maps(Map::new(), new, child)?),
        (Some(Value::Array(old)), Value::Array(new)) if strategy.merge => {
            merge_lists(&key, old, new, order, &strategy, child)?
        }
        (_, Value::Array(new)) if strategy.merge => {
            merge_lists(&key, Vec::new(), new, order, &strategy, child)?
        }
        (_, Value::Array(new)) => Value::Array(new.into_iter().map(clean).collect()),
        (_, scalar) => scalar,
    };
    current.insert(key, merged);
    Ok(())
}

fn strategy(schema: Option<&Schema>, key: &str) -> PatchStrategy {
    schema.and_then(|schema| schema.field(key)).map(|field| field.patch.clone()).unwrap_or_default()
}

fn has_directive(patch: &Map<String, Value>) -> bool {
    patch.contains_key(PATCH)
}

fn merge_lists(
    field: &str,
    old: Vec<Value>,
    new: Vec<Value>,
    order: Option<&[Value]>,
    strategy: &PatchStrategy,
    schema: Option<&Schema>,
) -> Result<Value, PatchError> {
    let items = schema.and_then(Schema::items);
    let merged = match &strategy.merge_key {
        Some(key) => List { field, key, items }.merge(&old, new, order)?,
        None => {
            let merged = merge_primitives(&old, &new);
            order::sort(&old, merged, order.unwrap_or(&new), |item| Some(item.clone()))
        }
    };
    Ok(Value::Array(merged))
}

fn merge_primitives(old: &[Value], new: &[Value]) -> Vec<Value> {
    let mut merged = old.to_vec();
    for item in new {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    merged
}

/// A list of maps that are told apart by the value of `key`.
struct List<'a> {
    field: &'a str,
    key: &'a str,
    items: Option<&'a Schema>,
}

impl List<'_> {
    fn merge(
        &self,
        old: &[Value],
        new: Vec<Value>,
        order: Option<&[Value]>,
    ) -> Result<Vec<Value>, PatchError> {
        if let Some(rest) = self.replacement(&new)? {
            return Ok(rest);
        }
        let order: Vec<Value> = order.unwrap_or(&new).iter().filter_map(|item| self.id(item)).collect();
        let mut merged = old.to_vec();
        for item in new {
            self.merge_item(&mut merged, item)?;
        }
        Ok(order::sort(old, merged, &order, |item| self.id(item)))
    }

    /// `- $patch: replace` among the items makes the others the whole list.
    fn replacement(&self, new: &[Value]) -> Result<Option<Vec<Value>>, PatchError> {
        let mut replace = false;
        let mut rest = Vec::new();
        for item in new {
            match item.get(PATCH).map(directive).transpose()? {
                Some(Directive::Replace) => replace = true,
                _ => rest.push(clean(item.clone())),
            }
        }
        Ok(replace.then_some(rest))
    }

    fn merge_item(&self, merged: &mut Vec<Value>, item: Value) -> Result<(), PatchError> {
        let id = self.id(&item).ok_or_else(|| self.no_key(&item))?;
        let place = merged.iter().position(|old| self.id(old).as_ref() == Some(&id));
        let Value::Object(mut item) = item else { return Err(self.no_key(&item)) };
        match (item.get(PATCH).map(directive).transpose()?, place) {
            (Some(Directive::Delete), _) => merged.retain(|old| self.id(old).as_ref() != Some(&id)),
            (_, Some(place)) => {
                let old = merged[place].as_object().cloned().unwrap_or_default();
                merged[place] = Value::Object(merge_maps(old, item, self.items)?);
            }
            (_, None) => {
                item.remove(PATCH);
                merged.push(Value::Object(merge_maps(Map::new(), item, self.items)?));
            }
        }
        Ok(())
    }

    fn id(&self, item: &Value) -> Option<Value> {
        item.get(self.key).cloned()
    }

    fn no_key(&self, item: &Value) -> PatchError {
        let (field, key) = (self.field, self.key);
        PatchError::Strategic(format!("map: {item} does not contain declared merge key: {key} (in {field})"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Replace,
    Delete,
    Merge,
}

fn directive(value: &Value) -> Result<Directive, PatchError> {
    match value.as_str() {
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some("merge") => Ok(Directive::Merge),
        _ => Err(PatchError::Strategic(format!("invalid value for special key {PATCH}: {value}"))),
    }
}

/// `$retainKeys: [a, b]`: all other keys of the current map go first.
fn retain(current: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else {
        return Err(PatchError::Strategic(format!("{RETAIN_KEYS} must be a list")));
    };
    let listed = |key: &str| keys.iter().any(|each| each == key);
    if let Some(other) = patch.keys().find(|key| !key.starts_with('$') && !listed(key)) {
        let missing = (!patch[other].is_null()).then_some(other);
        if let Some(key) = missing {
            return Err(PatchError::Strategic(format!(
                "{RETAIN_KEYS} directive does not list the patched key {key:?}"
            )));
        }
    }
    current.retain(|key, _| listed(key));
    Ok(())
}

fn take_prefixed(
    patch: &mut Map<String, Value>,
    prefix: &str,
) -> Result<Vec<(String, Vec<Value>)>, PatchError> {
    let keys: Vec<String> = patch.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
    let take = |key: String| match patch.remove(&key) {
        Some(Value::Array(items)) => Ok((key[prefix.len()..].to_string(), items)),
        _ => Err(PatchError::Strategic(format!("{key} must be a list"))),
    };
    keys.into_iter().map(take).collect()
}

fn take_order(orders: &mut Vec<(String, Vec<Value>)>, field: &str) -> Option<Vec<Value>> {
    let place = orders.iter().position(|(name, _)| name == field)?;
    Some(orders.swap_remove(place).1)
}

fn delete_from(current: &mut Map<String, Value>, field: &str, gone: &[Value]) {
    if let Some(Value::Array(items)) = current.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
}

fn reorder_field(
    current: &mut Map<String, Value>,
    field: &str,
    order: &[Value],
    schema: Option<&Schema>,
) -> Result<(), PatchError> {
    match current.get(field) {
        Some(Value::Array(_)) => {
            merge_field(current, field.to_string(), Value::Array(Vec::new()), Some(order), schema)
        }
        _ => Ok(()),
    }
}

/// A value of the patch that stands for itself: its directives and nulls have nothing to act on.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => Value::Array(items.into_iter().map(clean).collect()),
        scalar => scalar,
    }
}

fn without_directives(map: Map<String, Value>) -> Map<String, Value> {
    let keep = |key: &str, value: &Value| {
        !(value.is_null()
            || key == PATCH
            || key == RETAIN_KEYS
            || key.starts_with(DELETE_FROM)
            || key.starts_with(SET_ORDER))
    };
    map.into_iter().filter(|(key, value)| keep(key, value)).map(|(key, value)| (key, clean(value))).collect()
}

#[cfg(test)]
mod tests;
