//! kubectl's JSONPath templates: text with `{…}` actions.
//!
//! The dialect is kubectl's, not RFC 9535: `{range …}{end}`, quoted texts, several expressions in one
//! template, `[?(@.a=="b")]` filters, slices with steps, unions, `..` descent, and keys with escaped dots.

mod eval;
mod lexer;
mod parse;

use serde_json::Value;

/// Why a template can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// The grammar is violated.
    #[error("error parsing jsonpath {template}, {why}")]
    Syntax {
        /// The template.
        template: String,
        /// What is wrong.
        why: String,
    },
    /// The value doesn't have the key that the template asks for.
    #[error("{0} is not found")]
    NotFound(String),
    /// A list is too short, or what is indexed is no list. Never allowed, as in kubectl.
    #[error("{0}")]
    Index(String),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
    /// Missing keys are skipped rather than reported.
    allow_missing: bool,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Printed as it stands.
    Text(String),
    /// An expression whose results are printed, separated by spaces.
    Path(Path),
    /// The body is printed once for each result of the path.
    Range(Path, Vec<Node>),
}

/// The steps of an expression, from the current value (or from the root, after `$`).
#[derive(Clone, Debug, PartialEq)]
struct Path {
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `.name` or `['name']`
    Field(String),
    /// `.*` or `[*]`
    Wildcard,
    /// `..`: every value below, and the value itself
    Descend,
    /// `[1]`, `[-1]`
    Index(i64),
    /// `[start:end:step]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `[a,b]`
    Union(Vec<Path>),
    /// `[?(left op right)]`
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// `None` asks only whether the left side exists.
    compare: Option<(Comparison, Operand)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

impl Template {
    /// Reads a template such as `{.items[*].metadata.name}`. Errors: [`JsonPathError::Syntax`].
    pub fn parse(source: &str) -> Result<Self, JsonPathError> {
        let nodes = parse::template(source)
            .map_err(|why| JsonPathError::Syntax { template: source.to_string(), why })?;
        Ok(Self { nodes, allow_missing: false })
    }

    /// Reads what `-o jsonpath=` takes: the braces (and the first dot) may be missing.
    /// Errors: [`JsonPathError::Syntax`].
    pub fn parse_relaxed(source: &str) -> Result<Self, JsonPathError> {
        let path = source.trim();
        match path {
            _ if path.contains('{') => Self::parse(source),
            _ if path.starts_with(['.', '[', '$', '@']) => Self::parse(&format!("{{{path}}}")),
            _ => Self::parse(&format!("{{.{path}}}")),
        }
    }

    /// Reads a bare path as in printer columns: `.spec.replicas`. Errors: [`JsonPathError::Syntax`].
    pub fn parse_path(path: &str) -> Result<Self, JsonPathError> {
        Self::parse_relaxed(path)
    }

    /// The same template, to which missing keys are nothing rather than errors.
    #[must_use]
    pub fn allow_missing_keys(mut self) -> Self {
        self.allow_missing = true;
        self
    }

    /// The text that the template makes of a value. Errors: [`JsonPathError::NotFound`] (unless missing keys
    /// are allowed) and [`JsonPathError::Index`].
    pub fn render(&self, value: &Value) -> Result<String, JsonPathError> {
        let mut out = String::new();
        self.evaluator(value).render(&self.nodes, value, &mut out)?;
        Ok(out)
    }

    /// The values that the template's expressions find, in order; what is missing finds nothing.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let evaluator = eval::Evaluator { root: value, allow_missing: true };
        let paths = self.nodes.iter().filter_map(|node| match node {
            Node::Path(path) | Node::Range(path, _) => Some(path),
            Node::Text(_) => None,
        });
        paths.flat_map(|path| evaluator.find(path, value).unwrap_or_default()).collect()
    }

    fn evaluator<'v>(&self, root: &'v Value) -> eval::Evaluator<'v> {
        eval::Evaluator { root, allow_missing: self.allow_missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{golden, oracle};
    use proptest::prelude::*;

    #[test]
    fn cases() {
        let data = include_str!("../../testdata/jsonpath/data.json");
        let data: Value = serde_json::from_str(data).expect("JSON");
        golden("jsonpath/cases.txt", |case| {
            let render = |template: &str| Template::parse(template)?.render(&data);
            match render(case.get("template")) {
                Ok(text) => text,
                Err(error) => format!("error: {error}"),
            }
        });
    }

    #[test]
    fn templates_print_what_kubectl_prints() {
        let pod = include_str!("../../testdata/jsonpath/pod.json");
        let pod: Value = serde_json::from_str(pod).expect("JSON");
        oracle("jsonpath/kubectl.txt", |case| {
            let template = Template::parse(case.get("template")).expect("a template").allow_missing_keys();
            template.render(&pod).expect("all that is missing is allowed")
        });
    }

    #[test]
    fn a_relaxed_template_needs_no_braces() {
        let value = serde_json::json!({"spec": {"replicas": 3}});
        for template in ["spec.replicas", ".spec.replicas", "{.spec.replicas}", "$.spec.replicas"] {
            let template = Template::parse_relaxed(template).expect(template);
            assert_eq!(template.render(&value), Ok("3".into()));
            assert_eq!(template.find(&value), [&Value::from(3)]);
        }
    }

    #[test]
    fn missing_keys_may_be_allowed() {
        let template = Template::parse("{.a.b}").expect("a template");
        assert!(template.render(&Value::default()).is_err());
        assert_eq!(template.allow_missing_keys().render(&Value::default()), Ok(String::new()));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in r#"[{}\[\]().@$*?'"=<>!:, a-c0-9\\-]{0,24}"#) {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.render(&serde_json::json!({"a": [{"b": 1}, {"b": "x"}], "c": null}));
            }
        }
    }
}
