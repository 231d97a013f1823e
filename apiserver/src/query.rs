//! The query string: parsed once, read by name.

/// The parameters of a request, in order; names and values are decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what stands after the `?`.
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of `name`, if it isn't empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is given and true, as Go reads booleans: a bare name counts as true.
    pub fn flag(&self, name: &str) -> bool {
        self.tristate(name).unwrap_or(false)
    }

    /// Like [`Query::flag`], telling "not given" from "false".
    pub fn tristate(&self, name: &str) -> Option<bool> {
        self.all(name).next().map(|value| !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F"))
    }
}
