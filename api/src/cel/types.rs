//! Types of values, and how JSON becomes values of them.
//!
//! Types carry the largest size that their schema allows, which estimates of costs go by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// No limit is known.
pub const UNBOUNDED: u64 = u64::MAX;

/// The type of a value.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; checked when it is evaluated.
    Dyn,
    /// `null`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string` of at most so many characters.
    String(u64),
    /// `bytes` of at most so many.
    Bytes(u64),
    /// `google.protobuf.Duration`
    Duration,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// A list of at most so many items.
    List(Arc<Type>, u64),
    /// A map of at most so many entries.
    Map(Arc<Type>, Arc<Type>, u64),
    /// Named fields.
    Object(Arc<ObjectType>),
    /// A value or none.
    Optional(Arc<Type>),
    /// The type of a type.
    Type,
    /// A type of a library, by its name, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A variable in a signature.
    Var(char),
}

/// A type with named fields.
#[derive(Clone, Debug, Default)]
pub struct ObjectType {
    /// Its name, for messages.
    pub name: String,
    /// Its fields by their names in expressions.
    pub fields: BTreeMap<String, FieldType>,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct FieldType {
    /// Its name in JSON.
    pub json: String,
    /// Its type.
    pub kind: Type,
}

impl Type {
    /// A text of any length.
    pub const STRING: Self = Self::String(UNBOUNDED);
    /// Bytes of any length.
    pub const BYTES: Self = Self::Bytes(UNBOUNDED);

    /// A list of any length.
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item), UNBOUNDED)
    }

    /// A map of any size.
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new(key), Arc::new(value), UNBOUNDED)
    }

    /// An optional.
    pub fn optional(value: Type) -> Self {
        Self::Optional(Arc::new(value))
    }

    /// An object; `fields` are JSON names, which are escaped as expressions need it.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Type)>) -> Self {
        let fields =
            fields.into_iter().filter_map(|(json, kind)| Some((escape(&json)?, FieldType { json, kind })));
        Self::Object(Arc::new(ObjectType { name: name.to_owned(), fields: fields.collect() }))
    }

    /// The largest size of a value, where it has one.
    pub fn size(&self) -> u64 {
        match self {
            Self::String(size) | Self::Bytes(size) | Self::List(_, size) | Self::Map(_, _, size) => *size,
            Self::Dyn => UNBOUNDED,
            _ => 1,
        }
    }

    /// The same type with another largest size.
    pub(super) fn with_size(self, size: u64) -> Self {
        match self {
            Self::String(_) => Self::String(size),
            Self::Bytes(_) => Self::Bytes(size),
            Self::List(item, _) => Self::List(item, size),
            Self::Map(key, value, _) => Self::Map(key, value, size),
            other => other,
        }
    }

    /// Whether a value of this type may stand where `wanted` is; sizes don't matter.
    pub fn fits(&self, wanted: &Type) -> bool {
        match (self, wanted) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a, _), Self::List(b, _)) | (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Map(a, x, _), Self::Map(b, y, _)) => a.fits(b) && x.fits(y),
            (Self::Object(a), Self::Object(b)) => a.name == b.name,
            // An object is a map to whoever takes any map.
            (Self::Object(_), Self::Map(..)) => {
                matches!(wanted, Self::Map(_, v, _) if matches!(**v, Self::Dyn))
            }
            (Self::Null, Self::Object(_) | Self::Duration | Self::Timestamp | Self::Optional(_)) => true,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Var(a), Self::Var(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(wanted),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String(_) => f.write_str("string"),
            Self::Bytes(_) => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::List(item, _) => write!(f, "list({item})"),
            Self::Map(key, value, _) => write!(f, "map({key}, {value})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(value) => write!(f, "optional_type({value})"),
            Self::Type => f.write_str("type"),
            Self::Opaque(name) => f.write_str(name),
            Self::Var(name) => write!(f, "{name}"),
        }
    }
}

/// Words that can't be field names as they are.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A property's name as expressions write it; `None` if it can't be written.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if !starts_well || !name.chars().all(known) {
        return None;
    }
    let doubled = name.replace("__", "__underscores__");
    Some(doubled.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let cases = [
            ("a", Some("a")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("namespace", Some("__namespace__")),
            ("1a", None),
            ("a b", None),
        ];
        for (name, escaped) in cases {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }
}
