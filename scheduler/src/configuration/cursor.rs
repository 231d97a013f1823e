//! A value of a configuration with the way to it, so that every complaint names its field.

use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

/// What is wrong with a configuration: the field, and what is wrong with it, in upstream's words where it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    field: String,
    problem: String,
}

impl Invalid {
    /// This field is wrong.
    pub fn new(field: &str, problem: String) -> Self {
        Invalid { field: field.to_owned(), problem }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "{}", self.problem),
            field => write!(f, "{field}: {}", self.problem),
        }
    }
}

impl std::error::Error for Invalid {}

/// A value and its field.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    field: String,
    value: &'a Value,
}

impl<'a> Cursor<'a> {
    /// The whole file.
    pub fn root(value: &'a Value) -> Self {
        Cursor { field: String::new(), value }
    }

    /// A field of this object; absent and null are one.
    pub fn get(&self, name: &str) -> Option<Cursor<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Cursor { field: self.child(name), value })
    }

    /// The items of a list; none if it is absent.
    pub fn items(&self, name: &str) -> Result<Vec<Cursor<'a>>, Invalid> {
        let Some(list) = self.get(name) else { return Ok(Vec::new()) };
        let Value::Array(items) = list.value else { return Err(list.wrong("must be a list")) };
        let item = |(at, value)| Cursor { field: format!("{}[{at}]", list.field), value };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// Refuses everything but an object (or nothing) with these fields.
    pub fn has_only(&self, known: &[&str]) -> Result<(), Invalid> {
        let fields = match self.value {
            Value::Null => return Ok(()),
            Value::Object(fields) => fields,
            _ => return Err(self.wrong("must be an object")),
        };
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let known = known.join(", ");
                Err(Invalid::new(&self.child(name), format!("unknown field: remove it; there are {known}")))
            }
            None => Ok(()),
        }
    }

    /// Refuses every value of a field but this one.
    pub fn must_be(&self, name: &str, value: &str) -> Result<(), Invalid> {
        let Some(field) = self.get(name) else { return Err(self.required(name)) };
        if field.value.as_str() == Some(value) { Ok(()) } else { Err(field.unsupported(&[value])) }
    }

    /// A text.
    pub fn text(&self) -> Result<&'a str, Invalid> {
        self.value.as_str().ok_or_else(|| self.wrong("must be a string"))
    }

    /// The field that is a text.
    pub fn text_of(&self, name: &str) -> Result<&'a str, Invalid> {
        self.get(name).ok_or_else(|| self.required(name))?.text()
    }

    /// A whole number of this range.
    pub fn integer(&self, range: impl RangeBounds<i64>, otherwise: &str) -> Result<i64, Invalid> {
        let number = self.value.as_i64().ok_or_else(|| self.wrong("must be a whole number"))?;
        if range.contains(&number) { Ok(number) } else { Err(self.wrong(otherwise)) }
    }

    /// The field that is a whole number of this range, or what it is if it is absent.
    pub fn integer_of(&self, name: &str, range: impl RangeBounds<i64>, absent: i64) -> Result<i64, Invalid> {
        let bound = |bound: Bound<&i64>| match bound {
            Bound::Included(number) => number.to_string(),
            _ => "inf".to_owned(),
        };
        let [from, to] = [range.start_bound(), range.end_bound()].map(bound);
        let otherwise = format!("not in valid range [{from}, {to}]");
        self.get(name).map_or(Ok(absent), |field| field.integer(range, &otherwise))
    }

    /// The field that is true or false, or what it is if it is absent.
    pub fn boolean(&self, name: &str, absent: bool) -> Result<bool, Invalid> {
        let Some(field) = self.get(name) else { return Ok(absent) };
        field.value.as_bool().ok_or_else(|| field.wrong("must be true or false"))
    }

    /// A duration as Go writes it: `15s`, `1m30s`.
    pub fn duration(&self) -> Result<Duration, Invalid> {
        let nanos =
            self.value.as_str().and_then(api::time::go_duration).and_then(|one| u64::try_from(one).ok());
        let positive = nanos.filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        positive.ok_or_else(|| self.wrong("must be a duration above zero such as \"15s\""))
    }

    /// An object of the API.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        T::deserialize(self.value).map_err(|error| self.wrong(&error.to_string()))
    }

    /// Upstream's complaint about a value that may not be.
    pub fn wrong(&self, why: &str) -> Invalid {
        Invalid::new(&self.field, format!("Invalid value: {}: {why}", self.value))
    }

    /// Upstream's complaint about a word that isn't one of these.
    pub fn unsupported(&self, supported: &[&str]) -> Invalid {
        let supported: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let supported = supported.join(", ");
        Invalid::new(&self.field, format!("Unsupported value: {}: supported values: {supported}", self.value))
    }

    /// Upstream's complaint about a field that must be there.
    pub fn required(&self, name: &str) -> Invalid {
        Invalid::new(&self.child(name), "Required value".to_owned())
    }

    /// Upstream's complaint about a field that says what another one says.
    pub fn duplicate(&self, name: &str, value: &str) -> Invalid {
        Invalid::new(&self.child(name), format!("Duplicate value: {value:?}"))
    }

    /// Upstream's complaint about a field that may not be there.
    pub fn forbidden(&self, name: &str, why: &str) -> Invalid {
        Invalid::new(&self.child(name), format!("Forbidden: {why}"))
    }

    /// The name of the field.
    pub fn field(&self) -> &str {
        &self.field
    }

    fn child(&self, name: &str) -> String {
        if self.field.is_empty() { name.to_owned() } else { format!("{}.{name}", self.field) }
    }
}
