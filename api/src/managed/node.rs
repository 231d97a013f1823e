//! How server-side apply sees a value: as a whole, or as parts that can have different owners.

use serde_json::{Map, Value};

use super::ApplyError;
use super::element::Element;
use crate::schema::{ListKind, Schema, Shape};

/// The keys of list items that upstream's types fill in when they are absent. Only ports have one.
const KEY_DEFAULTS: [(&str, &str); 1] = [("protocol", "TCP")];

/// A value together with how it is divided.
pub(super) enum Node<'a> {
    /// One value: a scalar, an atomic list or an atomic map.
    Whole,
    /// Named parts.
    Map(&'a Map<String, Value>),
    /// Items that are told apart by what they say.
    List(Vec<(Element, &'a Value)>),
}

impl<'a> Node<'a> {
    /// Looks at `value` as a value of the type; without a type maps are divided and lists are not.
    ///
    /// # Errors
    /// If an item of a list lacks a key or two items have the same and `path` must be free of that.
    pub(super) fn of(value: &'a Value, schema: Option<&Schema>) -> Result<Self, ApplyError> {
        match value {
            Value::Object(map) if !schema.is_some_and(|schema| schema.atomic) => Ok(Self::Map(map)),
            Value::Array(items) => match schema.map(|schema| (&schema.shape, schema.atomic)) {
                Some((Shape::List(list), false)) if list.kind != ListKind::Atomic => {
                    let tell = |item| Ok((identify(item, &list.kind)?, item));
                    Ok(Self::List(items.iter().map(tell).collect::<Result<_, ApplyError>>()?))
                }
                _ => Ok(Self::Whole),
            },
            _ => Ok(Self::Whole),
        }
    }
}

/// What an item is called.
fn identify(item: &Value, kind: &ListKind) -> Result<Element, ApplyError> {
    let ListKind::Map(keys) = kind else { return Ok(Element::item(item)) };
    let default =
        |key: &str| KEY_DEFAULTS.iter().find(|(name, _)| *name == key).map(|(_, value)| Value::from(*value));
    let mut found = Map::new();
    for key in keys {
        if let Some(value) = item.get(key).cloned().or_else(|| default(key)) {
            found.insert(key.clone(), value);
        }
    }
    if found.is_empty() {
        let key = keys.first().map_or("", String::as_str);
        return Err(ApplyError::Invalid(format!(
            "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
        )));
    }
    Ok(Element::Key(Value::Object(found).to_string()))
}
