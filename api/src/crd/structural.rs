//! A structural schema, compiled from the JSON of `openAPIV3Schema`.
//!
//! Compiling never fails: what is no schema was refused when the definition was written, and what an older
//! version of this program let through is read as if it said nothing.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Number, Value};

use super::rules::Rules;
use crate::schema::ListKind;

/// The JSON type that a schema asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

impl Type {
    /// Reads the value of `type`; `None` if there is no such type.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The name in a schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What an object may hold besides its properties.
#[derive(Clone, Debug)]
pub enum Additional {
    /// Anything.
    Any,
    /// Values of this schema.
    Schema(Box<Structural>),
}

/// A schema node.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// `None` takes any type.
    pub kind: Option<Type>,
    /// Named fields.
    pub properties: BTreeMap<String, Structural>,
    /// Other fields.
    pub additional: Option<Additional>,
    /// Items of a list.
    pub items: Option<Box<Structural>>,
    /// Whether null is a value.
    pub nullable: bool,
    /// What stands for an absent field.
    pub default: Option<Value>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-type` with its keys.
    pub list: ListKind,
    /// Restrictions on values.
    pub values: Values,
    /// `x-kubernetes-validations`
    pub(super) rules: Option<Rules>,
}

/// Restrictions on values that don't depend on the structure.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// `format`
    pub format: Option<String>,
    /// `maximum`, and whether it is excluded itself.
    pub maximum: Option<(Number, bool)>,
    /// `minimum`, and whether it is excluded itself.
    pub minimum: Option<(Number, bool)>,
    /// `multipleOf`
    pub multiple_of: Option<Number>,
    /// `maxLength` in characters.
    pub max_length: Option<u64>,
    /// `minLength` in characters.
    pub min_length: Option<u64>,
    /// `pattern`
    pub pattern: Option<Regex>,
    /// `maxItems`
    pub max_items: Option<u64>,
    /// `minItems`
    pub min_items: Option<u64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `maxProperties`
    pub max_properties: Option<u64>,
    /// `minProperties`
    pub min_properties: Option<u64>,
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub choices: Vec<Value>,
    /// `allOf`
    pub all_of: Vec<Structural>,
    /// `anyOf`
    pub any_of: Vec<Structural>,
    /// `oneOf`
    pub one_of: Vec<Structural>,
    /// `not`
    pub not: Option<Box<Structural>>,
}

impl Structural {
    /// Compiles the JSON of the schema of whole objects, which have metadata.
    pub fn root(json: &Value) -> Self {
        let mut node = Self::compile(json);
        node.rules = Rules::compile(json, &node, true);
        node
    }

    /// Compiles the JSON of a schema.
    pub fn compile(json: &Value) -> Self {
        let mut node = Self::without_rules(json);
        node.rules = Rules::compile(json, &node, node.embedded);
        node
    }

    fn without_rules(json: &Value) -> Self {
        let properties = json["properties"].as_object().into_iter().flatten();
        Self {
            kind: json["type"].as_str().and_then(Type::parse),
            properties: properties.map(|(name, schema)| (name.clone(), Self::compile(schema))).collect(),
            additional: additional(&json["additionalProperties"]),
            items: json.get("items").map(|items| Box::new(Self::compile(items))),
            nullable: flag(json, "nullable"),
            default: json.get("default").filter(|value| !value.is_null()).cloned(),
            preserve_unknown: flag(json, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(json, "x-kubernetes-embedded-resource"),
            int_or_string: flag(json, "x-kubernetes-int-or-string"),
            list: list_kind(json),
            values: Values::compile(json),
            rules: None,
        }
    }

    /// The schema of the value below a key of an object.
    pub fn child(&self, key: &str) -> Option<&Structural> {
        self.properties.get(key).or(match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    /// Whether there are rules anywhere.
    pub fn has_rules(&self) -> bool {
        let additional = match &self.additional {
            Some(Additional::Schema(schema)) => schema.has_rules(),
            _ => false,
        };
        self.rules.is_some()
            || additional
            || self.items.as_ref().is_some_and(|items| items.has_rules())
            || self.properties.values().any(Self::has_rules)
    }

    /// Whether any value below has a default.
    pub fn has_defaults(&self) -> bool {
        let additional = match &self.additional {
            Some(Additional::Schema(schema)) => schema.has_defaults(),
            _ => false,
        };
        additional
            || self.items.as_ref().is_some_and(|items| items.has_defaults())
            || self.properties.values().any(|p| p.default.is_some() || p.has_defaults())
    }
}

impl Values {
    fn compile(json: &Value) -> Self {
        let bound = |name: &str, exclusive: &str| {
            json[name].as_number().map(|number| (number.clone(), flag(json, exclusive)))
        };
        Self {
            format: json["format"].as_str().filter(|format| !format.is_empty()).map(str::to_owned),
            maximum: bound("maximum", "exclusiveMaximum"),
            minimum: bound("minimum", "exclusiveMinimum"),
            multiple_of: json["multipleOf"].as_number().cloned(),
            max_length: json["maxLength"].as_u64(),
            min_length: json["minLength"].as_u64(),
            pattern: json["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok()),
            max_items: json["maxItems"].as_u64(),
            min_items: json["minItems"].as_u64(),
            unique_items: flag(json, "uniqueItems"),
            max_properties: json["maxProperties"].as_u64(),
            min_properties: json["minProperties"].as_u64(),
            required: texts(json, "required"),
            choices: json["enum"].as_array().cloned().unwrap_or_default(),
            all_of: schemas(&json["allOf"]),
            any_of: schemas(&json["anyOf"]),
            one_of: schemas(&json["oneOf"]),
            not: json.get("not").filter(|not| not.is_object()).map(|not| Box::new(Structural::compile(not))),
        }
    }
}

fn additional(json: &Value) -> Option<Additional> {
    match json {
        Value::Bool(true) => Some(Additional::Any),
        Value::Object(_) => Some(Additional::Schema(Box::new(Structural::compile(json)))),
        _ => None,
    }
}

fn list_kind(json: &Value) -> ListKind {
    match json["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(texts(json, "x-kubernetes-list-map-keys")),
        _ => ListKind::Atomic,
    }
}

fn schemas(json: &Value) -> Vec<Structural> {
    json.as_array().into_iter().flatten().map(Structural::compile).collect()
}

fn texts(json: &Value, key: &str) -> Vec<String> {
    let list = json[key].as_array().into_iter().flatten();
    list.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

fn flag(json: &Value, key: &str) -> bool {
    json[key].as_bool().unwrap_or_default()
}
