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
    let mut reader = Reader { path: None, duplicates: Vec::new() };
    let value = reader.read(body)?;
    if !reader.duplicates.is_empty() {
        // Almost no body has duplicates, so only those that do pay for keeping track of where they are.
        reader = Reader { path: Some(Vec::new()), duplicates: Vec::new() };
        reader.read(body)?;
    }
    Ok(Parsed { value, duplicates: reader.duplicates })
}

/// One step of a path.
enum Step {
    Key(String),
    Index(usize),
}

/// Builds a value and notices which keys came twice.
struct Reader {
    /// Where the reader is, if it keeps track.
    path: Option<Vec<Step>>,
    duplicates: Vec<Duplicate>,
}

impl Reader {
    fn read(&mut self, body: &[u8]) -> Result<Value, ParseError> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let value = self.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        value.map_err(|error| ParseError::Json { message: error.to_string(), line: error.line() })
    }

    fn enter(&mut self, step: impl FnOnce() -> Step) {
        if let Some(path) = &mut self.path {
            path.push(step());
        }
    }

    fn leave(&mut self) {
        if let Some(path) = &mut self.path {
            path.pop();
        }
    }

    fn note_duplicate(&mut self, key: &str) {
        let mut path = String::new();
        for step in self.path.iter().flatten() {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.extend([".", key]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        let separator = if path.is_empty() { "" } else { "." };
        path.extend([separator, key]);
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
        loop {
            self.enter(|| Step::Index(list.len()));
            let item = items.next_element_seed(&mut *self)?;
            self.leave();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                self.note_duplicate(&key);
            }
            self.enter(|| Step::Key(key.clone()));
            let value = entries.next_value_seed(&mut *self)?;
            self.leave();
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
