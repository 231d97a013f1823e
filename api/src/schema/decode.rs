//! From raw JSON to an object of its kind: types are checked, unknown fields dropped or refused, nulls
//! dropped, scalars made canonical, and fields that are always present filled with their zero.
//!
//! The result is what Go's decoding into a struct and encoding again would give, with the same messages.

use serde_json::{Map, Value};

use super::scalar::{self, Refused};
use super::{FieldValidation, Link, Object, Parsed, Schema, Shape};
use crate::crd::{Structural, envelope, prune};
use crate::status::Status;

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with known fields only.
    pub object: Value,
    /// What was dropped, for `Warning` headers.
    pub warnings: Vec<String>,
}

/// Why a body is no object of the kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field has a value of the wrong type.
    #[error("{0}")]
    Type(String),
    /// Strict validation found unknown or duplicate fields.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

impl DecodeError {
    /// The answer to the client that sent an object of this kind.
    pub fn to_status(&self, kind: &str, version: &str) -> Status {
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {self}"))
    }
}

/// Decodes a value as an object of the schema. Errors: [`DecodeError`].
pub fn decode(
    schema: &Schema,
    raw: impl Into<Parsed>,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    decode_with(Decoder::default(), schema, raw.into(), validation)
}

/// Decodes a configuration for server-side apply: as [`decode`], strictly, but what isn't named isn't filled
/// in, because naming a field means owning it. Errors: [`DecodeError`].
pub fn decode_partial(schema: &Schema, raw: impl Into<Parsed>) -> Result<Decoded, DecodeError> {
    let decoder = Decoder { partial: true, ..Decoder::default() };
    decode_with(decoder, schema, raw.into(), FieldValidation::Strict)
}

/// Decodes an object of a custom kind: its metadata as everywhere, and of the rest what the schema knows,
/// whatever its type, which validation judges. Errors: [`DecodeError`].
pub fn decode_custom(
    schema: &Structural,
    raw: impl Into<Parsed>,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let Parsed { value, duplicates } = raw.into();
    let mut decoder = Decoder::default();
    let mut object = decoder.value(envelope(), value)?;
    let mut unknown = decoder.unknown;
    unknown.extend(prune(schema, &mut object).into_iter().map(|path| format!("unknown field {path:?}")));
    judge(object, unknown, &duplicates, validation)
}

fn decode_with<'s>(
    mut decoder: Decoder<'s>,
    schema: &'s Schema,
    raw: Parsed,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let Parsed { value, duplicates } = raw;
    let object = decoder.value(schema, value)?;
    judge(object, decoder.unknown, &duplicates, validation)
}

/// Refuses the object or warns of it, for what it has unknown or twice.
fn judge(
    object: Value,
    unknown: Vec<String>,
    duplicates: &[super::Duplicate],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if validation == FieldValidation::Ignore {
        return Ok(Decoded { object, warnings: Vec::new() });
    }
    let mut problems = unknown;
    let strict = validation == FieldValidation::Strict;
    problems.splice(..0, duplicate_problems(duplicates, strict));
    match problems.is_empty() || !strict {
        true => Ok(Decoded { object, warnings: problems }),
        false => Err(DecodeError::Strict(problems)),
    }
}

/// JSON duplicates are fields, YAML duplicates are lines; upstream joins the latter into one error.
fn duplicate_problems(duplicates: &[super::Duplicate], join_lines: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let mut lines = Vec::new();
    for duplicate in duplicates {
        match duplicate.line {
            Some(line) => lines.push(format!("line {line}: key {:?} already set in map", duplicate.key)),
            None => problems.push(format!("duplicate field {:?}", duplicate.path)),
        }
    }
    if join_lines && !lines.is_empty() {
        problems.push(format!("yaml: unmarshal errors:\n  {}", lines.join("\n  ")));
    } else {
        problems.extend(lines);
    }
    problems
}

/// One step from the root to the value at hand.
enum Step {
    /// A field of a struct.
    Field(String),
    /// A key of a map.
    Key(String),
    /// An item of a list.
    Index(usize),
}

#[derive(Default)]
struct Decoder<'s> {
    path: Vec<Step>,
    /// Names of the structs around the value at hand.
    structs: Vec<&'s str>,
    unknown: Vec<String>,
    /// Fields that aren't named stay absent.
    partial: bool,
}

impl<'s> Decoder<'s> {
    fn value(&mut self, schema: &'s Schema, raw: Value) -> Result<Value, DecodeError> {
        match (&schema.shape, raw) {
            (Shape::Any, raw) => Ok(raw),
            (Shape::Object(object), Value::Object(map)) => {
                self.structs.push(struct_name(&schema.go_type));
                let result = self.object(object, map);
                self.structs.pop();
                result
            }
            (Shape::Map(values), Value::Object(map)) => self.map(values, map),
            (Shape::List(list), Value::Array(items)) => self.list(&list.items, items),
            (shape, raw) => self.scalar(shape, &schema.go_type, raw),
        }
    }

    fn object(&mut self, object: &'s Object, raw: Map<String, Value>) -> Result<Value, DecodeError> {
        let mut result = Map::new();
        for (name, value) in raw {
            match object.fields.get(&name) {
                Some(_) if value.is_null() => {}
                Some(field) => {
                    self.path.push(Step::Field(name));
                    let schema = field.schema.get();
                    let value = self.value(schema, value)?;
                    if let Some(Step::Field(name)) = self.path.pop()
                        && !is_omitted(schema, &value)
                    {
                        result.insert(name, value);
                    }
                }
                None if object.preserve_unknown => drop(result.insert(name, value)),
                None => self.note_unknown(name),
            }
        }
        if !self.partial {
            fill_required(object, &mut result);
        }
        Ok(Value::Object(result))
    }

    fn map(&mut self, values: &'s Link, raw: Map<String, Value>) -> Result<Value, DecodeError> {
        let mut result = Map::new();
        for (key, value) in raw {
            self.path.push(Step::Key(key.clone()));
            result.insert(key, self.item(values, value)?);
            self.path.pop();
        }
        Ok(Value::Object(result))
    }

    fn list(&mut self, items: &'s Link, raw: Vec<Value>) -> Result<Value, DecodeError> {
        let mut result = Vec::with_capacity(raw.len());
        for (index, value) in raw.into_iter().enumerate() {
            self.path.push(Step::Index(index));
            result.push(self.item(items, value)?);
            self.path.pop();
        }
        Ok(Value::Array(result))
    }

    /// An item of a list or map can't be dropped, so a null becomes the zero of the type.
    fn item(&mut self, schema: &'s Link, raw: Value) -> Result<Value, DecodeError> {
        let schema = schema.get();
        match (raw, scalar::zero(&schema.shape)) {
            (Value::Null, Some(zero)) => Ok(zero),
            (Value::Null, None) if matches!(schema.shape, Shape::Object(_) | Shape::Map(_)) => {
                self.value(schema, Value::Object(Map::new()))
            }
            (raw, _) => self.value(schema, raw),
        }
    }

    fn scalar(&mut self, shape: &Shape, go_type: &str, raw: Value) -> Result<Value, DecodeError> {
        let found = json_type(shape, &raw);
        scalar::canonical(shape, raw).map_err(|refused| match refused {
            Refused::Type => DecodeError::Type(self.type_error(&found, go_type)),
            Refused::Text(why) => DecodeError::Type(format!("{}: {why}", self.full_path())),
        })
    }

    fn type_error(&self, found: &str, go_type: &str) -> String {
        let fields = self.path.iter().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            _ => None,
        });
        let fields: Vec<&str> = fields.collect();
        match self.structs.last() {
            Some(structure) if !fields.is_empty() => {
                let path = fields.join(".");
                format!(
                    "json: cannot unmarshal {found} into Go struct field {structure}.{path} of type {go_type}"
                )
            }
            _ => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
        }
    }

    fn note_unknown(&mut self, name: String) {
        self.path.push(Step::Field(name));
        self.unknown.push(format!("unknown field {:?}", self.full_path()));
        self.path.pop();
    }

    fn full_path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) | Step::Key(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) | Step::Key(name) => path.extend([".", name]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}

/// Go's `omitempty`: an optional list or map without anything in it is not there. (Where it is required,
/// [`fill_required`] brings it back; an empty struct, such as `emptyDir: {}`, says something and stays.)
fn is_omitted(schema: &Schema, value: &Value) -> bool {
    match schema.shape {
        Shape::List(_) => value.as_array().is_some_and(Vec::is_empty),
        Shape::Map(_) => value.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

fn fill_required(object: &Object, result: &mut Map<String, Value>) {
    for name in &object.zeroed {
        if result.contains_key(name) {
            continue;
        }
        if let Some(zero) = object.fields.get(name).and_then(|field| scalar::zero(&field.schema.get().shape))
        {
            result.insert(name.clone(), zero);
        }
    }
}

/// The word for a JSON value in Go's messages; a number that doesn't fit is shown.
fn json_type(shape: &Shape, raw: &Value) -> String {
    match raw {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
        Value::Number(number) if matches!(shape, Shape::Integer(_) | Shape::IntOrString) => {
            format!("number {number}")
        }
        Value::Number(_) => "number".into(),
    }
}

fn struct_name(go_type: &str) -> &str {
    go_type.rsplit('.').next().unwrap_or(go_type)
}

#[cfg(test)]
mod tests {
    use super::super::{Definitions, Format, parse};
    use super::*;
    use crate::testing::{Case, Random, golden};

    fn run(case: &Case) -> Result<String, String> {
        let (format, body) = match case.find("json") {
            Some(body) => (Format::Json, body),
            None => (Format::Yaml, case.get("yaml")),
        };
        let body = body.replace("\\n", "\n").replace("\\t", "\t");
        let parsed = parse(body.as_bytes(), format).map_err(|error| error.to_string())?;
        let parts: Vec<&str> = case.get("kind").split('/').collect();
        let schema = Definitions::builtin().of_kind(parts[0], parts[1], parts[2]).expect("a built-in kind");
        let validation = case.get("validation").parse().expect("a validation");
        let decoded = decode(schema, parsed, validation)
            .map_err(|error| error.to_status(parts[2], parts[1]).message)?;
        let warnings: Vec<String> =
            decoded.warnings.iter().map(|text| format!("warning: {text}\n")).collect();
        Ok(format!("{}{}", warnings.concat(), decoded.object))
    }

    #[test]
    fn cases() {
        golden("decode/cases.txt", |case| run(case).unwrap_or_else(|error| format!("error: {error}")));
    }

    /// What was decoded once is canonical: decoding it again, even strictly, changes nothing.
    #[test]
    fn decoding_again_changes_nothing_for_any_kind() {
        let definitions = Definitions::builtin();
        let mut decoded = 0;
        for (index, (_, _, kind, definition)) in definitions.kinds().enumerate() {
            let schema = definitions.schema(definition).expect("a built-in definition");
            for seed in 1..20 {
                let object = Random(seed * 1000 + index as u64).value(schema, 0);
                let Ok(once) = decode(schema, object, FieldValidation::Ignore) else { continue };
                let again = decode(schema, once.object.clone(), FieldValidation::Strict);
                assert_eq!(again.map(|again| again.object), Ok(once.object), "{kind}, seed {seed}");
                decoded += 1;
            }
        }
        assert!(decoded > 1000, "the generator makes objects that decode; {decoded} did");
    }
}
