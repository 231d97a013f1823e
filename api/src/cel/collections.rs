//! Lists and maps, in JSON or made by an expression.

use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use super::types::Type;
use super::value::{DYN, Value};

/// A list.
#[derive(Clone, Debug)]
pub enum List<'v> {
    /// In JSON, with the type of the items.
    Json(&'v [Json], &'v Type),
    /// Made by an expression.
    Own(Arc<Vec<Value<'v>>>),
}

/// A map or an object.
#[derive(Clone, Debug)]
pub enum Map<'v> {
    /// In JSON, with its type.
    Json(&'v JsonMap<String, Json>, &'v Type),
    /// Made by an expression.
    Own(Arc<Vec<(Value<'v>, Value<'v>)>>),
}

impl<'v> List<'v> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Own(items) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at a place.
    pub fn get(&self, index: usize) -> Option<Value<'v>> {
        match self {
            Self::Json(items, kind) => items.get(index).map(|item| Value::of(item, kind)),
            Self::Own(items) => items.get(index).cloned(),
        }
    }

    /// The items.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Value<'v>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'v> Map<'v> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Own(entries) => entries.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'v>> {
        match (self, key) {
            (Self::Json(map, kind), Value::String(key)) => json_field(map, kind, key),
            (Self::Json(..), _) => None,
            (Self::Own(entries), key) => {
                entries.iter().find(|(own, _)| same_key(own, key)).map(|(_, value)| value.clone())
            }
        }
    }

    /// The value of a field as an expression names it.
    pub fn field(&self, name: &str) -> Option<Value<'v>> {
        match self {
            Self::Json(map, Type::Object(object)) => {
                let field = object.fields.get(name)?;
                map.get(&field.json).map(|value| Value::of(value, &field.kind))
            }
            _ => self.get(&Value::String(name.into())),
        }
    }

    /// The entries.
    pub fn entries(&self) -> Box<dyn Iterator<Item = (Value<'v>, Value<'v>)> + '_> {
        match self {
            Self::Json(map, kind) => Box::new(map.iter().filter_map(move |(key, _)| {
                Some((Value::String(key.as_str().into()), json_field(map, kind, key)?))
            })),
            Self::Own(entries) => Box::new(entries.iter().cloned()),
        }
    }
}

fn json_field<'v>(map: &'v JsonMap<String, Json>, kind: &'v Type, key: &str) -> Option<Value<'v>> {
    let value = map.get(key)?;
    let kind = match kind {
        Type::Map(_, value, _) => value,
        Type::Object(object) => {
            object.fields.values().find(|field| field.json == key).map_or(&DYN, |field| &field.kind)
        }
        _ => &DYN,
    };
    Some(Value::of(value, kind))
}

fn same_key(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Uint(a), Value::Uint(b)) => a == b,
        (Value::Int(a), Value::Uint(b)) | (Value::Uint(b), Value::Int(a)) => i128::from(*a) == i128::from(*b),
        (Value::Double(a), Value::Double(b)) => a == b,
        (Value::Double(a), Value::Int(b)) | (Value::Int(b), Value::Double(a)) => *a == *b as f64,
        _ => false,
    }
}
