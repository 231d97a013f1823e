//! The Common Expression Language as Kubernetes has it: rules of custom resources and of admission policies.
//!
//! [`compile`] parses, checks types against an [`Environment`] and estimates the greatest cost;
//! [`Program::evaluate`] runs over JSON in place and pays for every step from a [`Budget`]. Written here
//! rather than taken from a crate because neither costs nor types are part of the existing ones. The
//! libraries are upstream's 1.37; `library/signatures.txt` lists them.

pub mod admission;
mod ast;
mod check;
mod collections;
mod eval;
mod lexer;
pub mod library;
mod parser;
mod signatures;
#[cfg(test)]
mod tests;
mod types;
mod unify;
mod value;

use std::collections::BTreeMap;
use std::fmt;

pub use collections::{List, Map};
pub use types::{FieldType, ObjectType, Type, UNBOUNDED, escape};
pub use value::{Extension, Value};

/// What one evaluation may cost (upstream's limit for a single call of an expression).
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all rules together may cost for one object, and one expression at most by estimate.
pub const OBJECT_LIMIT: u64 = 10_000_000;

/// Why an expression isn't one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Where, in characters from the start.
    pub at: usize,
    /// What is wrong.
    pub text: String,
}

impl CompileError {
    /// The error with the line it is in, as cel-go shows it.
    pub fn show(&self, source: &str) -> String {
        let before: String = source.chars().take(self.at).collect();
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let text = source.lines().nth(line).unwrap_or_default();
        let (text, dots) = (text.replace('\t', " "), ".".repeat(column));
        format!("ERROR: <input>:{}:{}: {}\n | {text}\n | {dots}^", line + 1, column + 1, self.text)
    }
}

/// Why an evaluation came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct EvalError {
    /// What went wrong.
    pub text: String,
    exhausted: bool,
}

impl EvalError {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), exhausted: false }
    }

    fn overload() -> Self {
        Self::text(library::NO_OVERLOAD)
    }

    /// The budget ran out; no other part of the expression can make up for it.
    pub fn is_fatal(&self) -> bool {
        self.exhausted
    }
}

/// The names that an expression may use, and their types.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, Type>,
    structures: BTreeMap<&'static str, &'static [&'static str]>,
}

impl Environment {
    /// With these variables.
    pub fn new<'n>(variables: impl IntoIterator<Item = (&'n str, Type)>) -> Self {
        let variables = variables.into_iter().map(|(name, kind)| (name.to_owned(), kind));
        Self { variables: variables.collect(), ..Self::default() }
    }

    /// The same with one variable more.
    pub fn with(mut self, name: &str, kind: Type) -> Self {
        self.variables.insert(name.to_owned(), kind);
        self
    }

    /// The same where `NAME{…}` makes a value with some of these fields; without fields `NAME.anything{…}` does too,
    /// with whatever fields.
    pub fn with_structure(mut self, name: &'static str, fields: &'static [&'static str]) -> Self {
        self.structures.insert(name, fields);
        self
    }

    fn get(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    /// The fields of a structure, none if it takes any; `None` if there is no structure of the name.
    fn structure(&self, name: &str) -> Option<&'static [&'static str]> {
        let root = name.split('.').next().unwrap_or_default();
        let fields = self.structures.get(root)?;
        (fields.is_empty() || root == name).then_some(fields)
    }
}

/// The values of variables.
#[derive(Clone, Debug, Default)]
pub struct Bindings<'v>(BTreeMap<String, Value<'v>>);

impl<'v> Bindings<'v> {
    /// These variables.
    pub fn new<'n>(values: impl IntoIterator<Item = (&'n str, Value<'v>)>) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: Value<'v>) {
        self.0.insert(name.to_owned(), value);
    }

    fn get(&self, name: &str) -> Option<&Value<'v>> {
        self.0.get(name)
    }
}

/// What may still be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(u64);

impl Budget {
    /// So much.
    pub fn new(limit: u64) -> Self {
        Self(limit)
    }

    /// What is left.
    pub fn left(self) -> u64 {
        self.0
    }

    fn pay(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.0.checked_sub(cost) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                self.0 = 0;
                let text = "operation cancelled: actual cost limit exceeded".to_owned();
                Err(EvalError { text, exhausted: true })
            }
        }
    }
}

/// A compiled expression.
#[derive(Clone)]
pub struct Program {
    expr: ast::Expr,
    result: Type,
    cost: u64,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({})", self.result)
    }
}

/// Compiles an expression. Errors: the first thing that is wrong with it.
pub fn compile(expression: &str, environment: &Environment) -> Result<Program, CompileError> {
    let expr = parser::parse(expression)?;
    let checked = check::check(&expr, environment)?;
    Ok(Program { expr, result: checked.kind, cost: checked.cost })
}

impl Program {
    /// The type of the result.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// The most that an evaluation can cost, as far as sizes are known; [`UNBOUNDED`] otherwise.
    pub fn estimated_cost(&self) -> u64 {
        self.cost
    }

    /// Evaluates; what it costs is taken from the budget.
    ///
    /// # Errors
    /// What went wrong, or that the budget is exhausted.
    pub fn evaluate<'v>(&self, bindings: &Bindings<'v>, budget: &mut Budget) -> Result<Value<'v>, EvalError> {
        eval::Scope { bindings, locals: Vec::new(), budget }.value(&self.expr)
    }

    /// Whether the expression uses a variable of this name.
    pub fn uses(&self, name: &str) -> bool {
        ast::uses(&self.expr, name)
    }
}
