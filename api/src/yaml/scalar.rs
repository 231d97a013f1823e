//! What a plain (unquoted) YAML scalar means, by the rules of YAML 1.1 that Kubernetes keeps.

use serde_json::{Number, Value};

/// The value of a plain scalar; `None` for `.inf` and `.nan`, which JSON can't say.
pub(super) fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Some(true.into());
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Some(false.into());
        }
        ".nan" | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    if matches!(text.trim_start_matches(['+', '-']), ".inf" | ".Inf" | ".INF") {
        return None;
    }
    Some(number(text).map_or_else(|| Value::String(text.into()), Value::Number))
}

fn number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    integer(&plain).or_else(|| float(&plain))
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = radix(digits);
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match negative {
        true => Some(0i64.checked_sub_unsigned(magnitude)?.into()),
        false => Some(magnitude.into()),
    }
}

/// Splits the prefix off: `0644` is octal, which file modes in manifests rely on.
fn radix(digits: &str) -> (u32, &str) {
    let prefixes = [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8), ("0", 8)];
    for (prefix, radix) in prefixes {
        if let Some(rest) = digits.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
            return (radix, rest);
        }
    }
    (10, digits)
}

/// A float as in YAML 1.1: digits are needed, exponents and a missing fraction are fine.
fn float(text: &str) -> Option<Number> {
    let digits = text.trim_start_matches(['+', '-']);
    let shaped = digits.len() + 1 >= text.len()
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !shaped {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_mean_what_yaml_1_1_says() {
        let table = [
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("web", json!("web")),
            ("1", json!(1)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("1_000", json!(1000)),
            ("0", json!(0)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("1.", json!(1.0)),
            ("1.2.3", json!("1.2.3")),
            ("10m", json!("10m")),
            ("0899", json!(899.0)),
            ("-", json!("-")),
            ("1-2", json!("1-2")),
            ("--1", json!("--1")),
            ("2024-05-01", json!("2024-05-01")),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("e3", json!("e3")),
            ("+", json!("+")),
        ];
        for (text, value) in table {
            assert_eq!(resolve(text), Some(value), "{text:?}");
        }
        assert_eq!((resolve(".nan"), resolve("-.inf")), (None, None));
    }
}
