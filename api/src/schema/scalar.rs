//! Scalars: which JSON they are written as, and their canonical form.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::Value;

use super::Shape;
use crate::quantity::Quantity;
use crate::time;

/// Why a scalar is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The JSON type is wrong, or the number doesn't fit.
    Type,
    /// The text isn't what it should be; the words say why.
    Text(String),
}

/// The canonical form of `raw` as a scalar of this shape.
pub(super) fn canonical(shape: &Shape, raw: Value) -> Result<Value, Refused> {
    match (shape, &raw) {
        (Shape::String, Value::String(_)) | (Shape::Boolean, Value::Bool(_)) => Ok(raw),
        (Shape::Number, Value::Number(_)) => Ok(raw),
        (Shape::Integer(bits), Value::Number(number)) => fits(number.as_i64(), *bits).map(|()| raw),
        (Shape::IntOrString, Value::String(_)) => Ok(raw),
        (Shape::IntOrString, Value::Number(number)) => fits(number.as_i64(), 32).map(|()| raw),
        (Shape::Quantity, Value::String(text)) => quantity(text.trim()),
        (Shape::Quantity, Value::Number(number)) => quantity(&number.to_string()),
        (Shape::Time, Value::String(text)) => timestamp(text, time::rfc3339),
        (Shape::MicroTime, Value::String(text)) => timestamp(text, time::rfc3339_micros),
        (Shape::Bytes, Value::String(text)) => bytes(text),
        _ => Err(Refused::Type),
    }
}

/// What an absent scalar counts as; `None` for shapes whose absence differs from every value.
pub(super) fn zero(shape: &Shape) -> Option<Value> {
    match shape {
        Shape::String | Shape::Bytes => Some("".into()),
        Shape::Integer(_) | Shape::Number | Shape::IntOrString => Some(0.into()),
        Shape::Boolean => Some(false.into()),
        Shape::Quantity => Some("0".into()),
        Shape::List(_) => Some(Value::Array(Vec::new())),
        Shape::Time | Shape::MicroTime | Shape::Any | Shape::Object(_) | Shape::Map(_) => None,
    }
}

fn fits(number: Option<i64>, bits: u8) -> Result<(), Refused> {
    let number = number.ok_or(Refused::Type)?;
    if bits == 32 && i32::try_from(number).is_err() { Err(Refused::Type) } else { Ok(()) }
}

fn quantity(text: &str) -> Result<Value, Refused> {
    let quantity = Quantity::parse(text).map_err(|error| Refused::Text(error.to_string()))?;
    Ok(quantity.to_string().into())
}

fn timestamp(text: &str, write: fn(jiff::Timestamp) -> String) -> Result<Value, Refused> {
    let why = || format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": not a time in RFC 3339");
    time::parse(text).map(|time| write(time).into()).ok_or_else(|| Refused::Text(why()))
}

/// Accepts line breaks inside, as Go does, and writes without them.
fn bytes(text: &str) -> Result<Value, Refused> {
    const STRICT: GeneralPurpose =
        GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STRICT.decode(&joined) {
        Ok(bytes) => Ok(STANDARD.encode(bytes).into()),
        Err(error) => {
            Err(Refused::Text(format!("illegal base64 data at input byte {}", position(&joined, &error))))
        }
    }
}

fn position(text: &str, error: &base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) => *at,
        // Cut off, badly padded, or with a last symbol that can't be one: it is in the last group.
        _ => text.len() / 4 * 4,
    }
}
