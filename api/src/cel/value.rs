//! Values at run time. What comes from JSON is looked at in place; only what an expression takes from it is
//! converted.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::collections::{List, Map};
use super::types::Type;
use crate::quantity::Quantity;
use crate::time;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`
    Double(f64),
    /// `string`
    String(Cow<'v, str>),
    /// `bytes`
    Bytes(Arc<[u8]>),
    /// `list`
    List(List<'v>),
    /// `map`, or an object.
    Map(Map<'v>),
    /// Nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// A type, by its name.
    Type(Cow<'static, str>),
    /// A value or none.
    Optional(Option<Arc<Value<'v>>>),
    /// A quantity.
    Quantity(Arc<Quantity>),
    /// An IP address.
    Ip(std::net::IpAddr),
    /// A network: its address as it was written, and its bits.
    Cidr(std::net::IpAddr, u8),
    /// A URL in its parts.
    Url(Arc<super::library::url::Url>),
    /// A semantic version.
    Semver(Arc<super::library::semver::Semver>),
    /// A named format.
    Format(&'static str),
    /// A value of somebody else's library, such as an authorizer.
    Extension(Arc<dyn Extension>),
}

/// A value whose methods are not known here.
pub trait Extension: fmt::Debug + Send + Sync {
    /// The name of its type.
    fn type_name(&self) -> &'static str;
    /// Calls a method. Errors: a text.
    fn call<'v>(&self, method: &str, args: &[Value<'v>]) -> Result<Value<'v>, String>;
}

pub(super) static DYN: Type = Type::Dyn;

impl<'v> Value<'v> {
    /// The value that JSON is, given its type. What doesn't fit its type is taken for what it looks like.
    pub fn of(json: &'v Json, kind: &'v Type) -> Self {
        match (json, kind) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(value), _) => Self::Bool(*value),
            (Json::Number(number), Type::Double) => Self::Double(number.as_f64().unwrap_or_default()),
            (Json::Number(number), Type::Int) => number_of(number, true),
            (Json::Number(number), _) => number_of(number, false),
            (Json::String(text), Type::Bytes(_)) => {
                STANDARD.decode(text).map_or(Self::String(text.into()), |bytes| Self::Bytes(bytes.into()))
            }
            (Json::String(text), Type::Timestamp) => {
                timestamp(text).map_or(Self::String(text.into()), Self::Timestamp)
            }
            (Json::String(text), Type::Duration) => {
                time::go_duration(text).map_or(Self::String(text.into()), Self::Duration)
            }
            (Json::String(text), _) => Self::String(text.into()),
            (Json::Array(items), Type::List(item, _)) => Self::List(List::Json(items, item)),
            (Json::Array(items), _) => Self::List(List::Json(items, &DYN)),
            (Json::Object(map), kind) => Self::Map(Map::Json(map, kind)),
        }
    }

    /// The value that JSON is, whose type nobody knows.
    pub fn dynamic(json: &'v Json) -> Self {
        Self::of(json, &DYN)
    }

    /// A text.
    pub fn text(text: impl Into<Cow<'v, str>>) -> Self {
        Self::String(text.into())
    }

    /// A list.
    pub fn list(items: Vec<Value<'v>>) -> Self {
        Self::List(List::Own(Arc::new(items)))
    }

    /// A map; the keys must differ.
    pub fn map(entries: Vec<(Value<'v>, Value<'v>)>) -> Self {
        Self::Map(Map::Own(Arc::new(entries)))
    }

    /// An optional with a value.
    pub fn some(value: Value<'v>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(Map::Json(_, Type::Object(object))) => &object.name,
            Self::Map(_) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Extension(value) => value.type_name(),
        }
    }

    /// Length of a text in characters, of bytes, of a list or a map; 1 for anything else.
    pub fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            _ => 1,
        }
    }

    /// The value as JSON, as message expressions and mutations need it. Errors: what can't be written.
    pub fn to_json(&self) -> Result<Json, String> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value)
                .map(Json::Number)
                .ok_or("a double that JSON can't hold")?,
            Self::String(text) => text.to_string().into(),
            Self::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Self::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Self::List(List::Own(items)) => {
                Json::Array(items.iter().map(Value::to_json).collect::<Result<_, _>>()?)
            }
            Self::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
            Self::Map(Map::Own(entries)) => {
                let pair = |(key, value): &(Value<'v>, Value<'v>)| match key {
                    Value::String(key) => Ok((key.to_string(), value.to_json()?)),
                    other => Err(format!("a key of type {}", other.type_name())),
                };
                Json::Object(entries.iter().map(pair).collect::<Result<_, _>>()?)
            }
            Self::Duration(_) | Self::Timestamp(_) | Self::Quantity(_) => self.to_text().into(),
            Self::Optional(Some(value)) => value.to_json()?,
            other => return Err(format!("a value of type {}", other.type_name())),
        })
    }

    /// The value as a text, as `string()` has it, where it can be one; else how messages show it.
    pub fn to_text(&self) -> String {
        match self {
            Self::String(text) => text.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Double(value) => crate::crd::go_float(*value),
            Self::Bool(value) => value.to_string(),
            Self::Duration(nanos) => duration_text(*nanos),
            Self::Timestamp(time) => timestamp_text(*time),
            Self::Quantity(quantity) => quantity.to_string(),
            Self::Ip(address) => address.to_string(),
            Self::Cidr(address, bits) => format!("{address}/{bits}"),
            Self::Url(url) => url.text.clone(),
            Self::Semver(version) => version.to_string(),
            Self::Type(name) => name.to_string(),
            Self::Null => "null".to_owned(),
            other => other.to_json().map_or_else(|_| other.type_name().to_owned(), |json| json.to_string()),
        }
    }

    /// Whether two values are equal; numbers of different types are compared by what they are.
    pub fn equals(&self, other: &Value<'v>) -> bool {
        match (self, other) {
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Null, Self::Null) => true,
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(&b))
            }
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len()
                    && a.entries().all(|(key, value)| b.get(&key).is_some_and(|other| value.equals(&other)))
            }
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Optional(None), Self::Optional(None)) => true,
            (Self::Optional(Some(a)), Self::Optional(Some(b))) => a.equals(b),
            (Self::Quantity(a), Self::Quantity(b)) => a.cmp(b) == Ordering::Equal,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, x), Self::Cidr(b, y)) => a == b && x == y,
            (Self::Url(a), Self::Url(b)) => a.text == b.text,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => a == b,
            (a, b) => a.is_number() && b.is_number() && a.compare(b) == Some(Ordering::Equal),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    /// Which of two values comes first; `None` if they can't be compared.
    pub fn compare(&self, other: &Value<'v>) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Int(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Uint(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

fn number_of<'v>(number: &serde_json::Number, whole: bool) -> Value<'v> {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(int), ..) => Value::Int(int),
        (_, Some(uint), _) => Value::Uint(uint),
        (_, _, Some(double)) if whole && double.fract() == 0.0 => Value::Int(double as i64),
        (.., double) => Value::Double(double.unwrap_or_default()),
    }
}

/// A time, or a day, which begins at midnight.
fn timestamp(text: &str) -> Option<Timestamp> {
    time::parse(text).or_else(|| time::parse(&format!("{text}T00:00:00Z")))
}

/// As Go prints a duration for CEL: in seconds.
pub(super) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, fraction) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    match fraction {
        0 => format!("{sign}{seconds}s"),
        _ => format!("{sign}{seconds}.{}s", format!("{fraction:09}").trim_end_matches('0')),
    }
}

fn timestamp_text(time: Timestamp) -> String {
    time.to_string()
}
