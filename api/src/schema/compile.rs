//! Makes a [`Schema`] from the JSON of an OpenAPI v3 schema (of a definition or of a CRD).

use serde_json::Value;

use super::{Field, Link, List, ListKind, Object, PatchStrategy, Schema, Shape};

/// Why a JSON value is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// `type` has a value that OpenAPI doesn't know.
    #[error("{path}: unknown type {found:?}")]
    UnknownType {
        /// Where.
        path: String,
        /// What stands there.
        found: String,
    },
    /// A list without `items`.
    #[error("{path}: an array needs items")]
    NoItems {
        /// Where.
        path: String,
    },
}

impl Schema {
    /// Compiles the JSON of a schema. `go_type` names it in messages.
    ///
    /// `$ref` holds the bare name of a built-in definition. Errors: [`CompileError`].
    pub fn compile(go_type: &str, json: &Value) -> Result<Schema, CompileError> {
        compile_at(go_type, json, "")
    }
}

fn compile_at(go_type: &str, json: &Value, path: &str) -> Result<Schema, CompileError> {
    let shape = shape(json, path)?;
    let go_type = if go_type.is_empty() { go_type_of(&shape) } else { go_type.to_string() };
    Ok(Schema { go_type, shape, atomic: text(json, "x-kubernetes-map-type") == "atomic" })
}

fn link(json: &Value, path: &str) -> Result<Link, CompileError> {
    match json.get("$ref").and_then(Value::as_str) {
        Some(name) => Ok(Link::builtin(name)),
        None => Ok(Link::inline(compile_at("", json, path)?)),
    }
}

fn shape(json: &Value, path: &str) -> Result<Shape, CompileError> {
    let format = text(json, "format");
    if flag(json, "x-kubernetes-int-or-string") || format == "int-or-string" {
        return Ok(Shape::IntOrString);
    }
    match (text(json, "type"), format) {
        (_, "quantity") => Ok(Shape::Quantity),
        (_, "date-time-micro") => Ok(Shape::MicroTime),
        // A custom resource's date-time is a text that is checked, not rewritten.
        ("", "date-time") => Ok(Shape::Time),
        ("string", "byte") => Ok(Shape::Bytes),
        ("string", _) => Ok(Shape::String),
        ("integer", "int32") => Ok(Shape::Integer(32)),
        ("integer", _) => Ok(Shape::Integer(64)),
        ("number", _) => Ok(Shape::Number),
        ("boolean", _) => Ok(Shape::Boolean),
        ("array", _) => list(json, path),
        ("object" | "", _) => object_or_map(json, path),
        (found, _) => Err(CompileError::UnknownType { path: path.into(), found: found.into() }),
    }
}

fn list(json: &Value, path: &str) -> Result<Shape, CompileError> {
    let items = json.get("items").ok_or_else(|| CompileError::NoItems { path: path.into() })?;
    Ok(Shape::List(List { items: link(items, &format!("{path}[]"))?, kind: list_kind(json) }))
}

fn list_kind(json: &Value) -> ListKind {
    match text(json, "x-kubernetes-list-type") {
        "set" => ListKind::Set,
        "map" => ListKind::Map(texts(json, "x-kubernetes-list-map-keys")),
        _ => ListKind::Atomic,
    }
}

fn object_or_map(json: &Value, path: &str) -> Result<Shape, CompileError> {
    let preserve_unknown = flag(json, "x-kubernetes-preserve-unknown-fields");
    match (json.get("properties").and_then(Value::as_object), json.get("additionalProperties")) {
        (None, Some(values @ Value::Object(_))) => Ok(Shape::Map(link(values, &format!("{path}.*"))?)),
        (None, _) if preserve_unknown => Ok(Shape::Any),
        (None, Some(Value::Bool(true))) => Ok(Shape::Any),
        (properties, _) => {
            let each = properties.into_iter().flatten().map(|(name, field)| {
                let schema = link(field, &format!("{path}.{name}"))?;
                Ok((name.clone(), Field { schema, patch: patch_strategy(field) }))
            });
            let fields = each.collect::<Result<_, _>>()?;
            Ok(Shape::Object(Object {
                fields,
                required: texts(json, "required"),
                zeroed: Vec::new(),
                preserve_unknown,
            }))
        }
    }
}

fn patch_strategy(field: &Value) -> PatchStrategy {
    let strategies: Vec<&str> = text(field, "x-kubernetes-patch-strategy").split(',').collect();
    PatchStrategy {
        merge: strategies.contains(&"merge"),
        retain_keys: strategies.contains(&"retainKeys"),
        replace: strategies.contains(&"replace"),
        merge_key: field.get("x-kubernetes-patch-merge-key").and_then(Value::as_str).map(String::from),
    }
}

/// The name of a type without one of its own.
fn go_type_of(shape: &Shape) -> String {
    match shape {
        Shape::List(list) => format!("[]{}", name_of(&list.items)),
        Shape::Map(values) => format!("map[string]{}", name_of(values)),
        Shape::String => "string".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Integer(bits) => format!("int{bits}"),
        Shape::Number => "float64".into(),
        Shape::Boolean => "bool".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Object(_) | Shape::Any => "object".into(),
    }
}

/// The name of a linked type, without following the link.
fn name_of(link: &Link) -> String {
    match &link.0 {
        super::LinkTo::Inline(schema) => schema.go_type.clone(),
        super::LinkTo::Builtin { name, .. } => super::definitions::go_type(name),
    }
}

fn text<'a>(json: &'a Value, key: &str) -> &'a str {
    json.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn texts(json: &Value, key: &str) -> Vec<String> {
    let list = json.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|value| value.as_str().map(String::from)).collect()
}

fn flag(json: &Value, key: &str) -> bool {
    json.get(key).and_then(Value::as_bool).unwrap_or_default()
}
