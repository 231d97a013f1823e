//! Messages to JSON, field by field, by the table.
//!
//! Go writes every scalar that isn't a pointer, zero or not, and leaves most zeros out of JSON; which fields are
//! pointers isn't on the wire. So the table says where zero means "not given" (`apiserver/data/derive.py`).

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::wire::{Item, Items, bytes_of, integer_of};

static TABLE: &str = include_str!("../../data/protobuf_fields.txt");

/// No message of the API nests deeper; a body that does is made to exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Why a body can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It isn't in Kubernetes' envelope.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// It ends early, or has lengths that can't be.
    #[error("the protobuf message is broken")]
    Broken,
    /// There is no protobuf form of the kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// Group and version.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// A JSON text inside isn't JSON.
    #[error("an embedded object is no JSON: {0}")]
    Embedded(String),
}

/// One line of the table.
type Fields = HashMap<u32, Field>;

struct Field {
    name: &'static str,
    kind: Kind,
    shape: Shape,
    /// Zero or empty means that it wasn't given.
    absent_when_zero: bool,
    /// Its fields belong to the message around it.
    inline: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Boolean,
    Integer,
    Double,
    Bytes,
    Message(&'static str),
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Single,
    Repeated,
    Map,
}

/// A message of this name as JSON; always an object, or what the special types are in JSON.
pub(super) fn decode(name: &str, message: &[u8]) -> Result<Value, ProtobufError> {
    decode_at(name, message, 0)
}

fn decode_at(name: &str, message: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Broken);
    }
    if let Some(special) = special(name, message)? {
        return Ok(special);
    }
    let fields = fields(name);
    let mut object = Map::new();
    for item in Items(message) {
        let (number, item) = item?;
        if let Some(field) = fields.get(&number) {
            put(&mut object, field, item, depth)?;
        }
    }
    Ok(alternative(name, object))
}

/// The types of which Go's JSON has one field only, without its name.
fn alternative(name: &str, mut object: Map<String, Value>) -> Value {
    let (first, second) = match name.rsplit_once('.').map(|(_, short)| short) {
        Some("JSONSchemaPropsOrArray") => ("jSONSchemas", "schema"),
        Some("JSONSchemaPropsOrStringArray") => ("property", "schema"),
        Some("JSONSchemaPropsOrBool") => ("schema", "allows"),
        _ => return Value::Object(object),
    };
    object.remove(first).or_else(|| object.remove(second)).unwrap_or_default()
}

fn put(
    object: &mut Map<String, Value>,
    field: &Field,
    item: Item<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match field.shape {
        Shape::Map => return put_entry(object, field, item, depth),
        Shape::Repeated => return put_repeated(object, field, item, depth),
        Shape::Single => {}
    }
    let value = scalar(field.kind, item, depth)?;
    match value {
        Value::Object(inner) if field.inline => object.extend(inner),
        value if !means_absent(field, &value) => drop(object.insert(field.name.to_owned(), value)),
        _ => {}
    }
    Ok(())
}

fn put_repeated(
    object: &mut Map<String, Value>,
    field: &Field,
    item: Item<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let value = scalar(field.kind, item, depth)?;
    let list = object.entry(field.name).or_insert_with(|| json!([]));
    list.as_array_mut().expect("a repeated field is only ever a list").push(value);
    Ok(())
}

/// A map is a list of messages with the key as field 1 and the value as field 2.
fn put_entry(
    object: &mut Map<String, Value>,
    field: &Field,
    item: Item<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let Item::Bytes(entry) = item else { return Err(ProtobufError::Broken) };
    let key = text(bytes_of(entry, 1)?.unwrap_or_default())?;
    let value = scalar(field.kind, Item::Bytes(bytes_of(entry, 2)?.unwrap_or_default()), depth)?;
    let map = object.entry(field.name).or_insert_with(|| json!({}));
    map.as_object_mut().expect("a map field is only ever a map").insert(key, value);
    Ok(())
}

fn scalar(kind: Kind, item: Item<'_>, depth: usize) -> Result<Value, ProtobufError> {
    match (kind, item) {
        (Kind::Text, Item::Bytes(bytes)) => Ok(text(bytes)?.into()),
        (Kind::Bytes, Item::Bytes(bytes)) => Ok(BASE64.encode(bytes).into()),
        (Kind::Message(name), Item::Bytes(bytes)) => decode_at(name, bytes, depth + 1),
        (Kind::Boolean, Item::Varint(value)) => Ok((value != 0).into()),
        (Kind::Integer, Item::Varint(value)) => Ok(value.cast_signed().into()),
        (Kind::Double, Item::Fixed64(bits)) => Ok(f64::from_bits(bits).into()),
        _ => Err(ProtobufError::Broken),
    }
}

fn means_absent(field: &Field, value: &Value) -> bool {
    let zero = match value {
        Value::Null => return true,
        Value::String(text) => text.is_empty(),
        Value::Bool(given) => !given,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    };
    zero && field.absent_when_zero
}

/// The types whose JSON isn't an object of their fields.
fn special(name: &str, message: &[u8]) -> Result<Option<Value>, ProtobufError> {
    let (_, short) = name.rsplit_once('.').unwrap_or(("", name));
    let value = match short {
        "Time" => time(message, api::time::rfc3339)?,
        "MicroTime" => time(message, api::time::rfc3339_micros)?,
        "Quantity" => text(bytes_of(message, 1)?.unwrap_or_default())?.into(),
        "IntOrString" => int_or_string(message)?,
        "RawExtension" | "FieldsV1" | "JSON" => embedded(bytes_of(message, 1)?.unwrap_or_default())?,
        "Verbs" | "ExtraValue" => texts(message)?,
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn time(message: &[u8], write: fn(Timestamp) -> String) -> Result<Value, ProtobufError> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = (integer_of(message, 1)?, integer_of(message, 2)?);
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::Broken)?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Broken)?;
    Ok(write(time).into())
}

fn int_or_string(message: &[u8]) -> Result<Value, ProtobufError> {
    match integer_of(message, 1)? {
        0 => Ok(integer_of(message, 2)?.into()),
        _ => Ok(text(bytes_of(message, 3)?.unwrap_or_default())?.into()),
    }
}

fn embedded(json: &[u8]) -> Result<Value, ProtobufError> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(json).map_err(|error| ProtobufError::Embedded(error.to_string()))
}

fn texts(message: &[u8]) -> Result<Value, ProtobufError> {
    let mut list = Vec::new();
    for item in Items(message) {
        if let (1, Item::Bytes(bytes)) = item? {
            list.push(Value::from(text(bytes)?));
        }
    }
    Ok(list.into())
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Broken)
}

/// The fields of a message; none if the table doesn't have it. Lines are parsed once, all at the first use.
fn fields(name: &str) -> &'static Fields {
    static MESSAGES: OnceLock<HashMap<&'static str, Fields>> = OnceLock::new();
    static NONE: OnceLock<Fields> = OnceLock::new();
    let messages = MESSAGES.get_or_init(|| TABLE.lines().map(parse_line).collect());
    messages.get(name).unwrap_or_else(|| NONE.get_or_init(Fields::new))
}

fn parse_line(line: &'static str) -> (&'static str, Fields) {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    (name, words.filter(|word| !word.is_empty()).map(parse_field).collect())
}

fn parse_field(text: &'static str) -> (u32, Field) {
    let mut parts = text.split(':');
    let mut next = || parts.next().unwrap_or_default();
    let number = next().parse().expect("the embedded table numbers its fields");
    let (name, kind, message, inline) = (next(), next(), next(), next());
    let (absent_when_zero, kind) = kind.strip_prefix('?').map_or((false, kind), |kind| (true, kind));
    let (shape, kind) = match kind.split_at(kind.len() - 1) {
        ("*", kind) => (Shape::Repeated, kind),
        ("%", kind) => (Shape::Map, kind),
        (_, kind) => (Shape::Single, kind),
    };
    let kind = match kind {
        "s" => Kind::Text,
        "b" => Kind::Boolean,
        "d" => Kind::Double,
        "y" => Kind::Bytes,
        "m" => Kind::Message(message),
        _ => Kind::Integer,
    };
    (number, Field { name, kind, shape, absent_when_zero, inline: inline == "inline" })
}
