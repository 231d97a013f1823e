//! Validation of values against a structural schema, with the texts of kube-openapi.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::format;
use super::go;
use super::rules::validate_rules;
use super::structural::{Structural, Type, Values};
use crate::schema::ListKind;
use crate::status::FieldError;

/// Checks an object: types, restrictions, unique items of sets and maps. Empty if all is well.
///
/// Values that are the same in `old`, which the object replaces, are tolerated whatever they are: a schema
/// that became stricter doesn't lock up the objects that it finds (upstream's ratcheting).
pub fn validate(schema: &Structural, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = at(schema, object, old, "");
    if old != Some(object) {
        lists(schema, object, "", &mut errors);
    }
    errors
}

/// Checks an object as [`validate`], and if that finds nothing worse than a wrong value, by its rules.
pub fn validate_object(schema: &Structural, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    use crate::status::FieldErrorKind::{Required, TooLong, TooMany, TypeInvalid};
    let mut errors = validate(schema, object, old);
    if errors.iter().any(|error| matches!(error.kind, Required | TooLong | TooMany | TypeInvalid)) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing \
                   errors to complete validation";
        errors.extend(schema.has_rules().then(|| FieldError::invalid("<nil>", "null", why)));
    } else {
        errors.extend(validate_rules(schema, object, old));
    }
    errors
}

/// The old value of a list's item: maps have keys to find it by.
pub(super) fn old_item<'a>(schema: &Structural, old: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
    let ListKind::Map(keys) = &schema.list else { return None };
    old?.as_array()?.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}

fn at(schema: &Structural, value: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
    if value.is_null() && schema.nullable || old == Some(value) {
        return Vec::new();
    }
    if let Some(error) = wrong_type(schema, value, path) {
        return vec![error];
    }
    let mut errors = match value {
        Value::Object(map) => object(schema, map, old, path),
        Value::Array(items) => list(schema, items, old, path),
        Value::String(text) => string(&schema.values, text, path),
        Value::Number(_) => number(&schema.values, value, path),
        Value::Bool(_) | Value::Null => Vec::new(),
    };
    errors.extend(choice(&schema.values, value, path));
    errors.extend(combined(&schema.values, value, path));
    errors
}

fn wrong_type(schema: &Structural, value: &Value, path: &str) -> Option<FieldError> {
    let (fits, wanted) = match (schema.kind, schema.int_or_string) {
        (_, true) => (value.is_string() || is_integer(value), "integer,string"),
        (None, _) => return None,
        (Some(kind), _) => (has_type(kind, value), kind.as_str()),
    };
    let found = go::type_name(value);
    let why = || format!("{} in body must be of type {wanted}: {found:?}", path);
    (!fits).then(|| FieldError::type_invalid(path, found, why()))
}

fn has_type(kind: Type, value: &Value) -> bool {
    match kind {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.as_number().is_some_and(|n| !n.is_f64() || n.as_f64().is_some_and(|f| f.fract() == 0.0))
}

fn object(schema: &Structural, map: &Map<String, Value>, old: Option<&Value>, path: &str) -> Vec<FieldError> {
    let values = &schema.values;
    let mut errors = Vec::new();
    if let Some(most) = values.max_properties.filter(|most| map.len() as u64 > *most) {
        errors.push(too_many(path, map.len(), most));
    }
    if let Some(least) = values.min_properties.filter(|least| (map.len() as u64) < *least) {
        let why = format!("{} in body should have at least {least} properties", path);
        errors.push(FieldError::invalid(path, map.len(), why));
    }
    for field in &values.required {
        if !map.contains_key(field) {
            errors.push(FieldError::required(join(path, field), ""));
        }
    }
    for (key, value) in map {
        if let Some(child) = schema.child(key) {
            let old = old.and_then(|old| old.get(key));
            errors.extend(at(child, value, old, &join(path, key)));
        }
    }
    errors
}

fn list(schema: &Structural, items: &[Value], old: Option<&Value>, path: &str) -> Vec<FieldError> {
    let values = &schema.values;
    let mut errors = Vec::new();
    if let Some(most) = values.max_items.filter(|most| items.len() as u64 > *most) {
        errors.push(too_many(path, items.len(), most));
    }
    if let Some(least) = values.min_items.filter(|least| (items.len() as u64) < *least) {
        let why = format!("{} in body should have at least {least} items", path);
        errors.push(FieldError::invalid(path, items.len(), why));
    }
    if values.unique_items && has_duplicates(items) {
        errors.push(FieldError::invalid(path, "", format!("{} in body shouldn't contain duplicates", path)));
    }
    if let Some(child) = &schema.items {
        let each = items.iter().enumerate();
        errors.extend(each.flat_map(|(index, item)| {
            at(child, item, old_item(schema, old, item), &format!("{path}[{index}]"))
        }));
    }
    errors
}

fn too_many(path: &str, count: usize, most: u64) -> FieldError {
    FieldError::too_many(path, count, usize::try_from(most).unwrap_or(usize::MAX))
}

fn has_duplicates(items: &[Value]) -> bool {
    let mut seen = HashSet::new();
    items.iter().any(|item| !seen.insert(item.to_string()))
}

fn string(values: &Values, text: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let length = text.chars().count() as u64;
    if let Some(most) = values.max_length.filter(|most| length > *most) {
        errors.push(FieldError::too_long(path, usize::try_from(most).unwrap_or(usize::MAX)));
    }
    if let Some(least) = values.min_length.filter(|least| length < *least) {
        let why = format!("{} in body should be at least {least} chars long", path);
        errors.push(FieldError::invalid(path, text, why));
    }
    if let Some(pattern) = values.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        let why = format!("{} in body should match '{pattern}'", path);
        errors.push(FieldError::invalid(path, text, why));
    }
    if let Some(wanted) = values.format.as_deref().filter(|wanted| !format::holds(wanted, text)) {
        let why = format!("{} in body must be of type {wanted}: {text:?}", path);
        errors.push(FieldError::type_invalid(path, text, why));
    }
    errors
}

fn number(values: &Values, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let actual = value.as_f64().unwrap_or_default();
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, value.clone(), why));
    if let Some((bound, excluded)) = &values.maximum {
        let limit = bound.as_f64().unwrap_or(f64::MAX);
        if actual > limit || (*excluded && actual >= limit) {
            let or_equal = if *excluded { "" } else { " or equal to" };
            refuse(format!("{} in body should be less than{or_equal} {}", path, go::number(bound)));
        }
    }
    if let Some((bound, excluded)) = &values.minimum {
        let limit = bound.as_f64().unwrap_or(f64::MIN);
        if actual < limit || (*excluded && actual <= limit) {
            let or_equal = if *excluded { "" } else { " or equal to" };
            refuse(format!("{} in body should be greater than{or_equal} {}", path, go::number(bound)));
        }
    }
    if let Some(factor) = &values.multiple_of
        && let Some(by) = factor.as_f64().filter(|by| *by != 0.0)
        && (actual / by).fract() != 0.0
    {
        refuse(format!("{} in body should be a multiple of {}", path, go::number(factor)));
    }
    errors
}

fn choice(values: &Values, value: &Value, path: &str) -> Option<FieldError> {
    if values.choices.is_empty() || values.choices.iter().any(|choice| same(choice, value)) {
        return None;
    }
    let text = |choice: &Value| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned);
    let texts: Vec<String> = values.choices.iter().map(text).collect();
    let supported: Vec<&str> = texts.iter().map(String::as_str).collect();
    Some(FieldError::not_supported(path, value.clone(), &supported))
}

/// 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && b.is_number() && a.as_f64() == b.as_f64()
}

/// What is said about a value by other schemas. Upstream can't say at which path such a schema failed.
fn combined(values: &Values, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !values.any_of.is_empty() {
        let (passed, best) = alternatives(&values.any_of, value, path);
        if passed == 0 {
            errors.push(nowhere(format!("{:?} must validate at least one schema (anyOf)", path)));
            errors.extend(best);
        }
    }
    if !values.one_of.is_empty() {
        let (passed, best) = alternatives(&values.one_of, value, path);
        let found = match passed {
            1 => None,
            0 => Some("Found none valid".to_owned()),
            passed => Some(format!("Found {passed} valid alternatives")),
        };
        if let Some(found) = found {
            let text = format!("{:?} must validate one and only one schema (oneOf). {found}", path);
            errors.push(nowhere(text));
            errors.extend(best.into_iter().filter(|_| passed == 0));
        }
    }
    errors.extend(all_of(&values.all_of, value, path));
    if values.not.as_ref().is_some_and(|not| at(not, value, None, path).is_empty()) {
        errors.push(nowhere(format!("{:?} must not validate the schema (not)", path)));
    }
    errors
}

fn all_of(schemas: &[Structural], value: &Value, path: &str) -> Vec<FieldError> {
    let results: Vec<Vec<FieldError>> = schemas.iter().map(|schema| at(schema, value, None, path)).collect();
    let passed = results.iter().filter(|errors| errors.is_empty()).count();
    let mut errors = Vec::new();
    if passed < schemas.len() {
        let none = if passed == 0 { " None validated" } else { "" };
        errors.push(nowhere(format!("{:?} must validate all the schemas (allOf).{none}", path)));
    }
    errors.extend(results.into_iter().flatten());
    errors
}

/// How many of the schemas take the value, and the errors of the one that came nearest.
fn alternatives(schemas: &[Structural], value: &Value, path: &str) -> (usize, Vec<FieldError>) {
    let results: Vec<Vec<FieldError>> = schemas.iter().map(|schema| at(schema, value, None, path)).collect();
    let passed = results.iter().filter(|errors| errors.is_empty()).count();
    let best = results.into_iter().min_by_key(Vec::len).unwrap_or_default();
    (passed, best)
}

fn nowhere(text: String) -> FieldError {
    FieldError::invalid("<nil>", "", text)
}

/// Sets and maps hold no item twice.
fn lists(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(child) = schema.child(key) {
                    lists(child, value, &join(path, key), errors);
                }
            }
        }
        Value::Array(items) => {
            let mut seen = HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some(identity) = identity(&schema.list, item)
                    && !seen.insert(identity.to_string())
                {
                    errors.push(FieldError::duplicate(&path, identity));
                }
                if let Some(child) = &schema.items {
                    lists(child, item, &path, errors);
                }
            }
        }
        _ => {}
    }
}

fn identity(kind: &ListKind, item: &Value) -> Option<Value> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(item.clone()),
        ListKind::Map(keys) => {
            let present = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Some(Value::Object(present.collect()))
        }
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests;
