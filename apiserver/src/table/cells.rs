//! The parts that columns are made of.

use std::sync::Arc;

use api::jsonpath::Template;
use api::selector::LabelSelector;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cell, Column};

/// How kubectl shows that there is nothing.
pub(super) const NONE: &str = "<none>";
/// How kubectl shows what isn't known.
pub(super) const UNKNOWN: &str = "<unknown>";
/// How kubectl shows a field that nobody set.
pub(super) const UNSET: &str = "<unset>";
const CREATION: &str = "/metadata/creationTimestamp";

/// A column as a constant.
pub(super) struct Spec {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
    source: Source,
}

/// A [`Cell`] as a constant.
pub(super) enum Source {
    Pointer(&'static str),
    Text(&'static str),
    Age(&'static str),
    Computed(fn(&Value, Timestamp) -> Value),
}

pub(super) const NAME: Spec = Spec {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Unique within its namespace for objects of this kind.",
    priority: 0,
    source: Source::Pointer("/metadata/name"),
};
pub(super) const AGE: Spec = age("Age", "Time since the object was created.", CREATION);
pub(super) const CREATED_AT: Spec = Spec {
    name: "Created At",
    kind: "date",
    format: "",
    description: "When the object was created.",
    priority: 0,
    source: Source::Pointer(CREATION),
};
pub(super) const DEFAULT: &[Spec] = &[NAME, CREATED_AT];

/// A text column that is always shown.
pub(super) const fn text(
    name: &'static str,
    description: &'static str,
    compute: fn(&Value, Timestamp) -> Value,
) -> Spec {
    Spec { name, kind: "string", format: "", description, priority: 0, source: Source::Computed(compute) }
}

/// A column of whole numbers that is always shown.
pub(super) const fn number(
    name: &'static str,
    description: &'static str,
    compute: fn(&Value, Timestamp) -> Value,
) -> Spec {
    Spec { name, kind: "integer", format: "", description, priority: 0, source: Source::Computed(compute) }
}

/// A text column that shows a field as it is.
pub(super) const fn field(name: &'static str, description: &'static str, pointer: &'static str) -> Spec {
    Spec { name, kind: "string", format: "", description, priority: 0, source: Source::Text(pointer) }
}

/// A column that shows how long ago something was.
pub(super) const fn age(name: &'static str, description: &'static str, pointer: &'static str) -> Spec {
    Spec { name, kind: "string", format: "", description, priority: 0, source: Source::Age(pointer) }
}

impl Spec {
    /// The same column, shown by `-o wide` only.
    pub(super) const fn wide(self) -> Self {
        Self {
            name: self.name,
            kind: self.kind,
            format: self.format,
            description: self.description,
            priority: 1,
            source: self.source,
        }
    }

    /// The same column, which names the object.
    pub(super) const fn naming(self) -> Self {
        Self { format: "name", ..self }
    }

    pub(super) fn column(&self) -> Column {
        Column {
            name: self.name.to_owned(),
            kind: self.kind.to_owned(),
            format: self.format.to_owned(),
            description: self.description.to_owned(),
            priority: self.priority,
            cell: self.source.cell(),
        }
    }
}

impl Source {
    fn cell(&self) -> Cell {
        match self {
            Self::Pointer(pointer) => Cell::Pointer((*pointer).to_owned()),
            Self::Text(pointer) => Cell::Text((*pointer).to_owned()),
            Self::Age(pointer) => Cell::Age((*pointer).to_owned()),
            Self::Computed(compute) => Cell::Computed(*compute),
        }
    }
}

/// The column that names a custom object.
pub fn custom_name() -> Column {
    NAME.column()
}

/// The column of a custom kind that asks for none.
pub fn custom_age() -> Column {
    let path = Template::parse_path(".metadata.creationTimestamp").map(Template::allow_missing_keys);
    let cell = path.map(|path| Cell::Path { path: Arc::new(path), kind: "date".into() });
    Column { kind: "date".to_owned(), cell: cell.unwrap_or(Cell::Age(CREATION.into())), ..AGE.column() }
}

/// What a path finds in an object, if it has the column's type (upstream's `cellForJSONValue`).
pub(super) fn custom_cell(path: &Template, kind: &str, item: &Value, now: Timestamp) -> Value {
    let found = path.find(item);
    let Some(value) = found.first().filter(|value| !value.is_null()) else { return Value::Null };
    match (kind, *value) {
        ("string", Value::String(text)) => json!(text),
        ("string", other) => json!(other.to_string()),
        ("integer", Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|number| number as i64))
            .map_or(Value::Null, Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
        ("date", Value::String(text)) => api::time::parse(text)
            .map_or_else(|| json!("<invalid>"), |since| json!(api::time::age(since, now))),
        _ => Value::Null,
    }
}

/// How long ago a time was, in kubectl's short form.
pub fn age_cell(time: Option<&Value>, now: Timestamp) -> Value {
    match api::time::from_value(time) {
        Some(since) => json!(api::time::age(since, now)),
        None => json!(UNKNOWN),
    }
}

/// The items of a list; none if there is no list.
pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A whole number; 0 if there is none.
pub(super) fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// A text; empty if there is none.
pub(super) fn str_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The text, or `instead` if it is empty.
pub(super) fn or(text: impl Into<String>, instead: &str) -> Value {
    let text = text.into();
    json!(if text.is_empty() { instead.to_owned() } else { text })
}

/// Number of entries in a map.
pub(super) fn entries(object: &Value, pointer: &str) -> usize {
    object.pointer(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// The names of a pod template's containers.
pub(super) fn container_names(object: &Value, _now: Timestamp) -> Value {
    json!(join_of(items(object, "/spec/template/spec/containers"), "/name"))
}

/// The images of a pod template's containers.
pub(super) fn container_images(object: &Value, _now: Timestamp) -> Value {
    json!(join_of(items(object, "/spec/template/spec/containers"), "/image"))
}

/// `spec.selector` as a label selector's text.
pub(super) fn selector(object: &Value, _now: Timestamp) -> Value {
    json!(selector_at(object, "/spec/selector"))
}

/// A label selector's text, or that there is none.
pub(super) fn selector_at(object: &Value, pointer: &str) -> String {
    let text = match object.pointer(pointer).map(LabelSelector::from_value) {
        None => String::new(),
        Some(Ok(selector)) => selector.to_string(),
        Some(Err(_)) => "<error>".to_owned(),
    };
    if text.is_empty() { NONE.to_owned() } else { text }
}

pub(super) fn join_of(list: &[Value], pointer: &str) -> String {
    list.iter().map(|item| str_at(item, pointer)).collect::<Vec<_>>().join(",")
}

/// A map of labels as a selector writes it, or that there is none.
pub(super) fn labels_at(object: &Value, pointer: &str) -> String {
    let labels = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}
