//! Label and field selectors: which objects a list, a watch, a Service or a controller means.

mod field;
mod label;
mod lexer;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Operator, Requirement};

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The grammar is violated.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// A key, value or operator isn't allowed.
    #[error("{path}: Invalid value: {value:?}: {why}")]
    Invalid {
        /// What kind of thing is wrong: `key`, `values[0]`, `operator`.
        path: String,
        /// The thing.
        value: String,
        /// The rule that is broken.
        why: String,
    },
    /// A field selector term has no operator.
    #[error("invalid selector: '{0}'; can't understand '{1}'")]
    FieldTerm(String, String),
}
