//! `"%s".format([…])`.

use crate::cel::collections::Map;
use crate::cel::value::Value;

/// Fills the clauses of a format. Errors: a text.
pub(super) fn format(template: &str, args: &[Value<'_>]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = args.iter();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = Some(
                digits.parse::<usize>().map_err(|_| "could not find end of precision specifier")?.min(1000),
            );
        }
        let clause = chars.next().ok_or("unexpected end of string")?;
        let index = args.len() - rest.len();
        let value = rest.next().ok_or_else(|| format!("index {index} out of range"))?;
        out.push_str(&filled(clause, precision, value)?);
    }
    Ok(out)
}

fn filled(clause: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, String> {
    let wrong = |wanted: &str| {
        format!(
            "error during formatting: {wanted} clause can only be used on numbers, was given {}",
            value.type_name()
        )
    };
    Ok(match (clause, value) {
        ('s', value) => shown(value),
        ('d', Value::Int(number)) => number.to_string(),
        ('d', Value::Uint(number)) => number.to_string(),
        ('d', Value::Double(number)) if number.fract() == 0.0 => format!("{number:.0}"),
        ('f', number) => {
            format!("{:.*}", precision.unwrap_or(6), double(number).ok_or_else(|| wrong("fixed-point"))?)
        }
        ('e', number) => {
            scientific(double(number).ok_or_else(|| wrong("scientific"))?, precision.unwrap_or(6))
        }
        ('b', Value::Int(number)) => signed(*number, |n| format!("{n:b}")),
        ('b', Value::Uint(number)) => format!("{number:b}"),
        ('b', Value::Bool(flag)) => u8::from(*flag).to_string(),
        ('o', Value::Int(number)) => signed(*number, |n| format!("{n:o}")),
        ('o', Value::Uint(number)) => format!("{number:o}"),
        ('x', value) => hex(value).ok_or_else(|| wrong("hex"))?,
        ('X', value) => hex(value).ok_or_else(|| wrong("hex"))?.to_uppercase(),
        ('d', _) => return Err(wrong("decimal")),
        ('b' | 'o', _) => return Err(wrong("binary or octal")),
        (other, _) => {
            return Err(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            ));
        }
    })
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        Value::Uint(number) => Some(*number as f64),
        _ => None,
    }
}

fn signed(number: i64, write: impl Fn(u64) -> String) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, write(number.unsigned_abs()))
}

fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn hex(value: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(match value {
        Value::Int(number) => signed(*number, |n| format!("{n:x}")),
        Value::Uint(number) => format!("{number:x}"),
        Value::String(text) => bytes(text.as_bytes()),
        Value::Bytes(given) => bytes(given),
        _ => return None,
    })
}

/// A value in words: lists and maps with what is in them.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::List(list) => {
            format!("[{}]", list.iter().map(|item| shown(&item)).collect::<Vec<_>>().join(", "))
        }
        Value::Map(map) => {
            let pair = |(key, value): (Value<'_>, Value<'_>)| format!("{}: {}", shown(&key), shown(&value));
            let mut pairs: Vec<String> = entries(map).into_iter().map(pair).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_text(),
    }
}

fn entries<'v>(map: &Map<'v>) -> Vec<(Value<'v>, Value<'v>)> {
    map.entries().collect()
}
