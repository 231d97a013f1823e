//! kubectl's JSONPath templates.

use serde_json::Value;

/// Why a template can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing jsonpath {template}, {why}")]
pub struct JsonPathError {
    /// The template.
    pub template: String,
    /// What is wrong.
    pub why: String,
}

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
}

impl Template {
    /// Reads a template such as `{.items[*].metadata.name}`.
    pub fn parse(source: &str) -> Result<Self, JsonPathError> {
        Ok(Self { source: source.into() })
    }

    /// Reads a bare path as in printer columns: `.spec.replicas`.
    pub fn parse_path(path: &str) -> Result<Self, JsonPathError> {
        Self::parse(&format!("{{{path}}}"))
    }

    /// The text that the template makes of a value.
    pub fn render(&self, value: &Value) -> Result<String, JsonPathError> {
        let _ = value;
        Ok(self.source.clone())
    }

    /// The values that the template's expressions find, in order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let _ = value;
        Vec::new()
    }
}
