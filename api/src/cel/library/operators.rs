//! Operators, conversions and optionals.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};

use super::Answer;
use crate::cel::collections::List;
use crate::cel::value::Value;
use crate::time;

use Value::{Bool, Bytes, Double, Duration, Int, Optional, String as Text, Uint};

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    match (name, args) {
        ("==", [a, b]) => Some(Ok(Bool(a.equals(b)))),
        ("!=", [a, b]) => Some(Ok(Bool(!a.equals(b)))),
        ("<" | "<=" | ">" | ">=", [a, b]) => order(name, a, b),
        ("in", [a, Value::List(list)]) => Some(Ok(Bool(list.iter().any(|item| item.equals(a))))),
        ("in", [a, Value::Map(map)]) => Some(Ok(Bool(map.get(a).is_some()))),
        ("+" | "-" | "*" | "/" | "%", [a, b]) => arithmetic(name, a, b),
        ("!_", [Bool(a)]) => Some(Ok(Bool(!a))),
        ("-_", [Int(a)]) => Some(checked(a.checked_neg().map(Int))),
        ("-_", [Double(a)]) => Some(Ok(Double(-a))),
        ("size", [a @ (Text(_) | Bytes(_) | Value::List(_) | Value::Map(_))]) => {
            Some(Ok(Int(a.size() as i64)))
        }
        ("type", [a]) => Some(Ok(Value::Type(a.type_name().to_owned().into()))),
        ("dyn", [a]) => Some(Ok(a.clone())),
        (_, [a]) if is_conversion(name) => convert(name, a),
        ("base64.encode", [Bytes(bytes)]) => Some(Ok(Value::text(STANDARD.encode(bytes)))),
        ("base64.decode", [Text(text)]) => {
            Some(STANDARD.decode(&**text).map(|bytes| Bytes(bytes.into())).map_err(|error| error.to_string()))
        }
        _ => math(name, args).or_else(|| optional(name, args)),
    }
}

fn order<'v>(name: &str, a: &Value<'v>, b: &Value<'v>) -> Option<Answer<'v>> {
    let order = match a.compare(b) {
        Some(order) => order,
        // NaN is before and after nothing.
        None if matches!((a, b), (Double(_), _) | (_, Double(_))) => return Some(Ok(Bool(false))),
        None => return None,
    };
    Some(Ok(Bool(match name {
        "<" => order == Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })))
}

fn checked<'v>(value: Option<Value<'v>>) -> Answer<'v> {
    value.ok_or_else(|| "integer overflow".to_owned())
}

fn arithmetic<'v>(name: &str, a: &Value<'v>, b: &Value<'v>) -> Option<Answer<'v>> {
    Some(match (name, a, b) {
        ("/", _, Int(0) | Uint(0)) => Err("division by zero".to_owned()),
        ("%", _, Int(0) | Uint(0)) => Err("modulus by zero".to_owned()),
        ("+", Int(a), Int(b)) => checked(a.checked_add(*b).map(Int)),
        ("-", Int(a), Int(b)) => checked(a.checked_sub(*b).map(Int)),
        ("*", Int(a), Int(b)) => checked(a.checked_mul(*b).map(Int)),
        ("/", Int(a), Int(b)) => checked(a.checked_div(*b).map(Int)),
        ("%", Int(a), Int(b)) => checked(a.checked_rem(*b).map(Int)),
        ("+", Uint(a), Uint(b)) => checked(a.checked_add(*b).map(Uint)),
        ("-", Uint(a), Uint(b)) => checked(a.checked_sub(*b).map(Uint)),
        ("*", Uint(a), Uint(b)) => checked(a.checked_mul(*b).map(Uint)),
        ("/", Uint(a), Uint(b)) => checked(a.checked_div(*b).map(Uint)),
        ("%", Uint(a), Uint(b)) => checked(a.checked_rem(*b).map(Uint)),
        ("+", Double(a), Double(b)) => Ok(Double(a + b)),
        ("-", Double(a), Double(b)) => Ok(Double(a - b)),
        ("*", Double(a), Double(b)) => Ok(Double(a * b)),
        ("/", Double(a), Double(b)) => Ok(Double(a / b)),
        ("+", Text(a), Text(b)) => Ok(Value::text(format!("{a}{b}"))),
        ("+", Bytes(a), Bytes(b)) => Ok(Bytes([&a[..], &b[..]].concat().into())),
        ("+", Value::List(a), Value::List(b)) => Ok(Value::list(a.iter().chain(b.iter()).collect())),
        ("+", Duration(a), Duration(b)) => checked(a.checked_add(*b).map(Duration)),
        ("-", Duration(a), Duration(b)) => checked(a.checked_sub(*b).map(Duration)),
        ("+", Value::Timestamp(a), Duration(b)) | ("+", Duration(b), Value::Timestamp(a)) => later(*a, *b),
        ("-", Value::Timestamp(a), Duration(b)) => later(*a, b.saturating_neg()),
        ("-", Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            checked(i64::try_from(nanos).ok().map(Duration))
        }
        _ => return None,
    })
}

fn later<'v>(time: Timestamp, nanos: i64) -> Answer<'v> {
    let moved = time.checked_add(SignedDuration::from_nanos(nanos));
    moved.map(Value::Timestamp).map_err(|_| "timestamp overflow".to_owned())
}

fn is_conversion(name: &str) -> bool {
    matches!(name, "int" | "uint" | "double" | "string" | "bytes" | "bool" | "duration" | "timestamp")
}

fn convert<'v>(name: &str, value: &Value<'v>) -> Option<Answer<'v>> {
    let failed = || format!("type conversion error from '{}' to '{name}'", value.type_name());
    let converted = match (name, value) {
        ("int", Int(_)) | ("uint", Uint(_)) | ("double", Double(_)) | ("string", Text(_)) => {
            Some(value.clone())
        }
        ("bytes", Bytes(_)) | ("bool", Bool(_)) | ("duration", Duration(_)) => Some(value.clone()),
        ("timestamp", Value::Timestamp(_)) => Some(value.clone()),
        ("int", Uint(a)) => i64::try_from(*a).ok().map(Int),
        ("int", Double(a)) => (a.abs() < 9.2e18).then_some(Int(*a as i64)),
        ("int", Text(a)) => a.parse().ok().map(Int),
        ("int", Value::Timestamp(a)) => Some(Int(a.as_second())),
        ("uint", Int(a)) => u64::try_from(*a).ok().map(Uint),
        ("uint", Double(a)) => (*a >= 0.0 && *a < 1.8e19).then_some(Uint(*a as u64)),
        ("uint", Text(a)) => a.parse().ok().map(Uint),
        ("double", Int(a)) => Some(Double(*a as f64)),
        ("double", Uint(a)) => Some(Double(*a as f64)),
        ("double", Text(a)) => a.parse().ok().map(Double),
        ("string", Bytes(a)) => std::str::from_utf8(a).ok().map(|text| Value::text(text.to_owned())),
        ("string", Value::List(_) | Value::Map(_) | Value::Null | Optional(_)) => return None,
        ("string", other) => Some(Value::text(other.to_text())),
        ("bytes", Text(a)) => Some(Bytes(a.as_bytes().into())),
        ("bool", Text(a)) => match &**a {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(Bool(false)),
            _ => None,
        },
        ("duration", Text(a)) => time::go_duration(a).map(Duration),
        ("timestamp", Text(a)) => time::parse(a).map(Value::Timestamp),
        ("timestamp", Int(a)) => Timestamp::from_second(*a).ok().map(Value::Timestamp),
        _ => return None,
    };
    Some(converted.ok_or_else(failed))
}

fn math<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    Some(match (name, args) {
        ("math.greatest" | "math.least", [Value::List(list)]) => {
            extreme(name, &list.iter().collect::<Vec<_>>())
        }
        ("math.greatest" | "math.least", [_, ..]) => extreme(name, args),
        ("math.abs", [Int(a)]) => checked(a.checked_abs().map(Int)),
        ("math.abs", [Double(a)]) => Ok(Double(a.abs())),
        ("math.abs", [Uint(a)]) => Ok(Uint(*a)),
        ("math.ceil", [Double(a)]) => Ok(Double(a.ceil())),
        ("math.floor", [Double(a)]) => Ok(Double(a.floor())),
        ("math.round", [Double(a)]) => Ok(Double(a.round())),
        ("math.trunc", [Double(a)]) => Ok(Double(a.trunc())),
        _ => return None,
    })
}

fn extreme<'v>(name: &str, values: &[Value<'v>]) -> Answer<'v> {
    let wanted = if name == "math.greatest" { Ordering::Greater } else { Ordering::Less };
    let mut best = values.first().cloned().ok_or("the list is empty")?;
    for value in values {
        match value.compare(&best) {
            Some(order) if order == wanted => best = value.clone(),
            Some(_) => {}
            None => return Err(super::NO_OVERLOAD.to_owned()),
        }
    }
    Ok(best)
}

fn optional<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    Some(match (name, args) {
        ("optional.of", [value]) => Ok(Value::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) if is_zero(value) => Ok(Optional(None)),
        ("optional.ofNonZeroValue", [value]) => Ok(Value::some(value.clone())),
        ("optional.none", []) => Ok(Optional(None)),
        ("hasValue", [Optional(value)]) => Ok(Bool(value.is_some())),
        ("value", [Optional(Some(value))]) => Ok((**value).clone()),
        ("value", [Optional(None)]) => Err("optional.none() dereference".to_owned()),
        ("or", [Optional(Some(_)), _]) => Ok(args[0].clone()),
        ("or", [Optional(None), other]) => Ok(other.clone()),
        ("orValue", [Optional(Some(value)), _]) => Ok((**value).clone()),
        ("orValue", [Optional(None), other]) => Ok(other.clone()),
        ("unwrapOpt" | "optional.unwrap", [Value::List(list)]) => Ok(unwrapped(list)),
        _ => return None,
    })
}

fn unwrapped<'v>(list: &List<'v>) -> Value<'v> {
    let present = list.iter().filter_map(|item| match item {
        Optional(value) => value.map(|value| (*value).clone()),
        other => Some(other),
    });
    Value::list(present.collect())
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Bool(false) | Int(0) | Uint(0) | Duration(0) => true,
        Double(value) => *value == 0.0,
        Text(text) => text.is_empty(),
        Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        _ => false,
    }
}
