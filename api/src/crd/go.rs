//! Values as Go prints them, where upstream's texts hold some.

use serde_json::{Number, Value};

/// A number as `%v` prints a float64.
pub(super) fn number(number: &Number) -> String {
    number.as_f64().map_or_else(|| number.to_string(), float)
}

/// A float64 as `%v` prints it: the shortest form, with an exponent from 1e+21 on and below 1e-04.
pub(crate) fn float(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN".into()
        } else if value > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value}"),
    }
}

/// The JSON type of a value, as messages name it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_does() {
        let cases =
            [(10.0, "10"), (0.5, "0.5"), (-3.25, "-3.25"), (1e21, "1e+21"), (1e-7, "1e-07"), (0.0, "0")];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
    }
}
