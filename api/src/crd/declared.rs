//! Schemas as types of expressions, with the largest sizes that a request leaves room for.

use std::sync::Arc;

use super::structural::{Additional, Structural, Type as Json};
use crate::cel::Type;

/// Largest request in bytes, which bounds everything that has no limit of its own (upstream's figure).
const REQUEST_BYTES: u64 = 3 << 20;

/// The type of a node's values. `resource`: an object with `apiVersion`, `kind` and `metadata`.
pub(super) fn declared(schema: &Structural, resource: bool) -> Type {
    if schema.int_or_string {
        return Type::Dyn;
    }
    match schema.kind {
        None => Type::Dyn,
        Some(Json::Boolean) => Type::Bool,
        Some(Json::Integer) => Type::Int,
        Some(Json::Number) => Type::Double,
        Some(Json::String) => text(schema),
        Some(Json::Array) => {
            let item = schema.items.as_ref().map_or(Type::Dyn, |items| declared(items, items.embedded));
            Type::List(Arc::new(item), most_elements(schema))
        }
        Some(Json::Object) => object(schema, resource),
    }
}

fn object(schema: &Structural, resource: bool) -> Type {
    if let Some(Additional::Schema(values)) = &schema.additional {
        let value = declared(values, values.embedded);
        return Type::Map(Arc::new(Type::STRING), Arc::new(value), most_elements(schema));
    }
    if matches!(schema.additional, Some(Additional::Any)) {
        return Type::map(Type::STRING, Type::Dyn);
    }
    let own = schema.properties.iter().map(|(name, child)| (name.clone(), declared(child, child.embedded)));
    let envelope = ["apiVersion", "kind"].map(|name| (name.to_owned(), Type::String(REQUEST_BYTES)));
    let metadata = [("metadata".to_owned(), metadata())];
    let implied = envelope.into_iter().chain(metadata).filter(|_| resource);
    Type::object("object", own.chain(implied))
}

/// Of metadata, expressions see the names.
fn metadata() -> Type {
    Type::object("metadata", ["name", "generateName"].map(|name| (name.to_owned(), Type::String(253))))
}

fn text(schema: &Structural) -> Type {
    let longest_choice =
        schema.values.choices.iter().filter_map(|choice| choice.as_str()).map(str::len).max();
    match schema.values.format.as_deref() {
        Some("byte") => Type::Bytes(schema.values.max_length.unwrap_or(REQUEST_BYTES)),
        Some("duration") => Type::Duration,
        Some("date" | "date-time") => Type::Timestamp,
        _ => {
            let bytes = schema.values.max_length.map(|most| most.saturating_mul(4));
            let choice = longest_choice.and_then(|most| u64::try_from(most).ok());
            Type::String(choice.or(bytes).unwrap_or(REQUEST_BYTES))
        }
    }
}

/// The most items or entries that a list or map can have.
pub(super) fn most_elements(schema: &Structural) -> u64 {
    match (&schema.items, &schema.additional) {
        (Some(items), _) => schema.values.max_items.unwrap_or(REQUEST_BYTES / (least_bytes(items) + 1)),
        (None, Some(Additional::Schema(values))) => {
            schema.values.max_properties.unwrap_or(REQUEST_BYTES / (least_bytes(values) + 6))
        }
        _ => 1,
    }
}

/// The fewest bytes that a value of the node takes in JSON.
fn least_bytes(schema: &Structural) -> u64 {
    match schema.kind {
        Some(Json::Object) => {
            let required = schema.properties.iter().filter(|(name, _)| schema.values.required.contains(name));
            required.fold(2, |sum, (name, child)| sum + name.len() as u64 + 4 + least_bytes(child))
        }
        Some(Json::Boolean) => 4,
        Some(Json::Integer | Json::Number) => 1,
        _ => 2,
    }
}
