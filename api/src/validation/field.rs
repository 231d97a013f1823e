//! A value together with its path, and the checks that many kinds share.

use serde_json::Value;

use crate::name::Checked;
use crate::status::FieldError;

pub(super) type Errors = Vec<FieldError>;

static NULL: Value = Value::Null;

/// A place in an object: its path, and what stands there (null if nothing does).
#[derive(Clone, Debug)]
pub(super) struct Field<'v> {
    pub(super) path: String,
    pub(super) value: &'v Value,
}

impl<'v> Field<'v> {
    pub(super) fn root(value: &'v Value) -> Self {
        Self { path: String::new(), value }
    }

    pub(super) fn new(path: &str, value: &'v Value) -> Self {
        Self { path: path.into(), value }
    }

    /// The field of this name.
    pub(super) fn get(&self, name: &str) -> Field<'v> {
        let separator = if self.path.is_empty() { "" } else { "." };
        Field {
            path: format!("{}{separator}{name}", self.path),
            value: self.value.get(name).unwrap_or(&NULL),
        }
    }

    /// The field at the end of a dotted path.
    pub(super) fn at(&self, path: &str) -> Field<'v> {
        path.split('.').fold(self.clone(), |field, name| field.get(name))
    }

    /// The items of a list.
    pub(super) fn items(&self) -> impl Iterator<Item = Field<'v>> {
        let items = self.value.as_array().into_iter().flatten().enumerate();
        items.map(|(index, value)| Field { path: format!("{}[{index}]", self.path), value })
    }

    /// The entries of a map, each below `path[key]`.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'v String, Field<'v>)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key, Field { path: format!("{}[{key}]", self.path), value }))
    }

    pub(super) fn exists(&self) -> bool {
        !self.value.is_null()
    }

    /// Absent, or an empty text, list or map, or zero.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Bool(_) => false,
        }
    }

    pub(super) fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    pub(super) fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub(super) fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    pub(super) fn invalid(&self, why: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path, self.value.clone(), why)
    }

    pub(super) fn required(&self, why: &str) -> FieldError {
        FieldError::required(&self.path, why)
    }

    pub(super) fn forbidden(&self, why: &str) -> FieldError {
        FieldError::forbidden(&self.path, why)
    }

    pub(super) fn duplicate(&self) -> FieldError {
        FieldError::duplicate(&self.path, self.value.clone())
    }

    /// Required if it is empty.
    pub(super) fn present(&self) -> Errors {
        if self.is_empty() { vec![self.required("")] } else { Errors::new() }
    }

    /// A text that is required and must follow a rule.
    pub(super) fn named(&self, rule: fn(&str) -> Checked) -> Errors {
        if self.is_empty() { vec![self.required("")] } else { self.checked(rule) }
    }

    /// A text that must follow a rule if it is given.
    pub(super) fn checked(&self, rule: fn(&str) -> Checked) -> Errors {
        match self.is_empty() {
            true => Errors::new(),
            false => rule(self.text()).err().map(|why| self.invalid(why)).into_iter().collect(),
        }
    }

    /// One of a few texts, if it is given.
    pub(super) fn one_of(&self, supported: &[&str]) -> Errors {
        match self.is_empty() || supported.contains(&self.text()) {
            true => Errors::new(),
            false => vec![FieldError::not_supported(&self.path, self.value.clone(), supported)],
        }
    }

    /// Not negative, if it is given.
    pub(super) fn nonnegative(&self) -> Errors {
        self.int_fits(|number| number >= 0, "must be greater than or equal to 0")
    }

    /// Greater than zero, if it is given.
    pub(super) fn positive(&self) -> Errors {
        self.int_fits(|number| number > 0, "must be greater than 0")
    }

    /// Within bounds, if it is given.
    pub(super) fn between(&self, low: i64, high: i64) -> Errors {
        self.int_fits(
            |number| (low..=high).contains(&number),
            &format!("must be between {low} and {high}, inclusive"),
        )
    }

    fn int_fits(&self, fits: impl Fn(i64) -> bool, why: &str) -> Errors {
        self.int().filter(|number| !fits(*number)).map(|_| self.invalid(why)).into_iter().collect()
    }
}

/// A value that may never change.
pub(super) fn same(new: &Field<'_>, old: &Field<'_>) -> Errors {
    if new.value == old.value { Errors::new() } else { vec![new.invalid("field is immutable")] }
}

/// A port number, or the name of a port.
pub(super) fn port_or_name(port: &Field<'_>) -> Errors {
    match port.value {
        Value::String(_) => port.checked(crate::name::port_name),
        _ => Field { path: port.path.clone(), value: port.value }.between(1, 65535),
    }
}

/// Keys and values of a map of labels.
pub(super) fn labels(labels: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for (key, value) in labels.entries() {
        if let Err(why) = crate::name::qualified_name(key) {
            errors.push(FieldError::invalid(&labels.path, key.as_str(), why));
        }
        if let Err(why) = crate::name::label_value(value.text()) {
            errors.push(FieldError::invalid(&labels.path, value.text(), why));
        }
    }
    errors
}

/// A label selector of an object.
pub(super) fn label_selector(selector: &Field<'_>) -> Errors {
    let mut errors = labels(&selector.get("matchLabels"));
    for expression in selector.get("matchExpressions").items() {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(values.forbidden(why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        errors.extend(expression.get("key").named(crate::name::qualified_name));
        errors.extend(values.items().flat_map(|value| value.checked(crate::name::label_value)));
    }
    errors
}
