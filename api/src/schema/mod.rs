//! Kinds as data: what fields a kind has, of which types, and how its lists merge.
//!
//! One description serves the built-in kinds (derived from the OpenAPI definitions of Kubernetes 1.37, see
//! `data/derive.py`) and custom resources. A built-in definition is compiled when it is first needed, so a
//! server that starts pays for nothing. Decoding, patching and OpenAPI read from here; what values *mean*
//! (defaults, validation) is not known here.

mod compile;
mod declared;
mod decode;
mod definitions;
mod json;
mod scalar;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

pub use compile::CompileError;
pub use declared::declared;
pub use decode::{DecodeError, Decoded, decode, decode_custom, decode_partial};
pub use definitions::Definitions;
pub use json::{Duplicate, Format, ParseError, Parsed, parse};

/// What to do about unknown and duplicate fields (`fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refuse the object.
    Strict,
    /// Drop them and say so in warnings.
    #[default]
    Warn,
    /// Drop them silently.
    Ignore,
}

impl FromStr for FieldValidation {
    type Err = String;

    /// Reads the query parameter; empty is the default.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Strict" => Ok(Self::Strict),
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            _ => Err(format!(
                "fieldValidation: Unsupported value: {text:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
            )),
        }
    }
}

/// The compiled description of one type.
#[derive(Debug)]
pub struct Schema {
    /// The type as Go prints it, e.g. `v1.PodSpec`; for messages.
    pub go_type: String,
    /// What values look like.
    pub shape: Shape,
    /// Server-side apply and patches take this map or struct as one value.
    pub atomic: bool,
}

/// What the values of a type look like.
#[derive(Debug)]
pub enum Shape {
    /// Named fields.
    Object(Object),
    /// Any keys, all values of one type.
    Map(Link),
    /// A list.
    List(List),
    /// A text.
    String,
    /// Base64.
    Bytes,
    /// An integer of this many bits.
    Integer(u8),
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An integer or a text, e.g. a port or its name.
    IntOrString,
    /// A resource quantity; stored in its canonical form.
    Quantity,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// Any JSON.
    Any,
}

/// A type with named fields.
#[derive(Debug, Default)]
pub struct Object {
    /// The fields by name.
    pub fields: BTreeMap<String, Field>,
    /// Names of fields that must be present.
    pub required: Vec<String>,
    /// Names of fields that are filled with their zero when absent, as Go does with required fields of
    /// built-in kinds. Lists and scalars only; empty for custom resources.
    pub zeroed: Vec<String>,
    /// Unknown fields are kept rather than dropped.
    pub preserve_unknown: bool,
}

/// One field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its type.
    pub schema: Link,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged rather than replaced.
    pub merge: bool,
    /// The patch may say which keys to retain.
    pub retain_keys: bool,
    /// The value is replaced as a whole, although it is a map.
    pub replace: bool,
    /// The key by which the items of a merged list are told apart; `None` merges a list of scalars.
    pub merge_key: Option<String>,
}

/// A list type.
#[derive(Debug)]
pub struct List {
    /// The type of the items.
    pub items: Link,
    /// How items are told apart by server-side apply.
    pub kind: ListKind,
}

/// How the items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By the values of these keys.
    Map(Vec<String>),
}

/// A type that stands in place, or is a built-in definition that is compiled when first followed.
pub struct Link(LinkTo);

enum LinkTo {
    Inline(Box<Schema>),
    Builtin { name: String, schema: OnceLock<&'static Schema> },
}

impl Link {
    /// A type that stands in place.
    pub fn inline(schema: Schema) -> Self {
        Self(LinkTo::Inline(Box::new(schema)))
    }

    /// A built-in definition by name.
    pub fn builtin(name: &str) -> Self {
        Self(LinkTo::Builtin { name: name.into(), schema: OnceLock::new() })
    }

    /// The type.
    pub fn get(&self) -> &Schema {
        match &self.0 {
            LinkTo::Inline(schema) => schema,
            LinkTo::Builtin { name, schema } => schema.get_or_init(|| {
                // A test follows every link of the embedded definitions; CRDs can't contain links.
                Definitions::builtin()
                    .schema(name)
                    .expect("links of embedded definitions lead to definitions")
            }),
        }
    }
}

impl fmt::Debug for Link {
    /// Doesn't follow the link: definitions are recursive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            LinkTo::Inline(schema) => schema.fmt(f),
            LinkTo::Builtin { name, .. } => f.write_str(name),
        }
    }
}

impl Schema {
    /// The field of this name, if this is an object that has it.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.shape {
            Shape::Object(object) => object.fields.get(name),
            _ => None,
        }
    }

    /// The type of the value below `name`, in an object or a map.
    pub fn child(&self, name: &str) -> Option<&Schema> {
        match &self.shape {
            Shape::Object(object) => object.fields.get(name).map(|field| field.schema.get()),
            Shape::Map(values) => Some(values.get()),
            _ => None,
        }
    }

    /// The type of the items, if this is a list.
    pub fn items(&self) -> Option<&Schema> {
        match &self.shape {
            Shape::List(list) => Some(list.items.get()),
            _ => None,
        }
    }
}
