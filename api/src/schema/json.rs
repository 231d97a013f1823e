//! Reads a request body into a value, noticing what plain parsers swallow: keys that stand twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// One YAML document.
    Yaml,
}

/// A key that stood twice in a map; the last value counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Path of the field, e.g. `spec.replicas`.
    pub path: String,
    /// The key alone.
    pub key: String,
    /// The line of the second occurrence, from 1; JSON has none.
    pub line: Option<usize>,
}

/// A body that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The value.
    pub value: Value,
    /// Keys that stood twice, in the order of the body.
    pub duplicates: Vec<Duplicate>,
}

impl From<Value> for Parsed {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

/// Why a body can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body is no JSON.
    #[error("{message}")]
    Json {
        /// What is wrong, with line and column.
        message: String,
        /// The line, from 1.
        line: usize,
    },
    /// The body is no YAML.
    #[error("error converting YAML to JSON: yaml: line {line}: {message}")]
    Yaml {
        /// What is wrong.
        message: String,
        /// The line, from 1.
        line: usize,
    },
    /// The body is no UTF-8.
    #[error("the body is no valid UTF-8 at byte {0}")]
    Encoding(usize),
}

impl ParseError {
    /// The line of the error, from 1, if it is known.
    pub fn line(&self) -> Option<usize> {
        match self {
            ParseError::Json { line, .. } | ParseError::Yaml { line, .. } => Some(*line),
            ParseError::Encoding(_) => None,
        }
    }
}

/// Reads a body. Errors: [`ParseError`] with the line.
pub fn parse(body: &[u8], format: Format) -> Result<Parsed, ParseError> {
    match format {
        Format::Json => parse_json(body),
        Format::Yaml => {
            let text =
                std::str::from_utf8(body).map_err(|error| ParseError::Encoding(error.valid_up_to()))?;
            crate::yaml::parse_one(text)
        }
    }
}

fn parse_json(body: &[u8]) -> Result<Parsed, ParseError> {
    let mut reader = Reader::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value =
        (&mut reader).deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let value = value.map_err(|error| ParseError::Json { message: error.to_string(), line: error.line() })?;
    Ok(Parsed { value, duplicates: reader.duplicates })
}

/// One step of a path.
enum Step {
    Key(String),
    Index(usize),
}

/// Builds a value, remembering where it is and which keys came twice.
#[derive(Default)]
struct Reader {
    path: Vec<Step>,
    duplicates: Vec<Duplicate>,
}

impl Reader {
    fn note_duplicate(&mut self, key: &str) {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path = format!("{path}.{key}"),
                Step::Index(index) => path = format!("{path}[{index}]"),
            }
        }
        let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        self.duplicates.push(Duplicate { path, key: key.into(), line: None });
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        self.path.push(Step::Index(0));
        while let Some(value) = items.next_element_seed(&mut *self)? {
            list.push(value);
            self.path.pop();
            self.path.push(Step::Index(list.len()));
        }
        self.path.pop();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                self.note_duplicate(&key);
            }
            self.path.push(Step::Key(key.clone()));
            let value = entries.next_value_seed(&mut *self)?;
            self.path.pop();
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_noticed_and_the_last_value_counts() {
        let body = br#"{"spec": {"a": [{"x": 1, "x": 2}], "b": 1, "b": 3}, "spec2": {}}"#;
        let parsed = parse(body, Format::Json).expect("JSON");
        let paths: Vec<&str> = parsed.duplicates.iter().map(|duplicate| duplicate.path.as_str()).collect();
        assert_eq!(paths, ["spec.a[0].x", "spec.b"]);
        assert_eq!(parsed.value["spec"]["b"], 3);
    }

    #[test]
    fn errors_have_their_line() {
        let error = parse(b"{\n \"a\": }", Format::Json).expect_err("no JSON");
        assert_eq!(error.line(), Some(2));
        assert!(parse(b"{} x", Format::Json).is_err());
        assert!(matches!(parse(b"a: \xff", Format::Yaml), Err(ParseError::Encoding(3))));
    }
}
