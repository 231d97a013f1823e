//! Expressions of webhooks and policies: compiled once, evaluated on a question within a budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::cel::admission::{CONDITIONS_LIMIT, Purpose, Subject, compiled};
use api::cel::{self, Bindings, Budget, PER_CALL_LIMIT, Program};
use parking_lot::Mutex;
use serde_json::Value;

use super::authorizer::Check;
use super::question::Question;
use crate::auth::Attributes;

/// Compiled expressions that are kept; beyond, all are let go.
const MAX_KEPT: usize = 4096;

/// Expressions, compiled, by what they are for and their text.
#[derive(Debug, Default)]
pub struct Programs(Mutex<HashMap<(Purpose, String), Compiled>>);

type Compiled = Arc<Result<Program, String>>;

impl Programs {
    fn get(&self, purpose: Purpose, source: &str) -> Compiled {
        let key = (purpose, source.to_owned());
        if let Some(known) = self.0.lock().get(&key) {
            return known.clone();
        }
        // What stands behind the names is known when it is evaluated: a policy may be about many kinds.
        let program = Arc::new(compiled(source, purpose, &Subject::dynamic(true)));
        let mut kept = self.0.lock();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.entry(key).or_insert(program).clone()
    }
}

/// Why an expression came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// The budget is spent; nothing more is evaluated.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Exhausted,
    /// This one can't be evaluated.
    #[error("{0}")]
    Expression(String),
}

/// What expressions see, but for the parameters of a policy.
pub(super) struct Seen<'q> {
    pub(super) question: Question<'q>,
    pub(super) request: Value,
    pub(super) namespace: Value,
}

impl Seen<'_> {
    /// The values of all names but `variables`.
    pub(super) fn bindings<'s>(&'s self, params: &'s Value) -> Bindings<'s> {
        let call = self.question.call;
        let check = Check::of(&call.server.authorizer, call.identity);
        let own = check.clone().about(&Attributes::of(call.info));
        Bindings::new([
            ("object", cel::Value::dynamic(self.question.object)),
            ("oldObject", cel::Value::dynamic(self.question.old)),
            ("request", cel::Value::dynamic(&self.request)),
            ("namespaceObject", cel::Value::dynamic(&self.namespace)),
            ("params", cel::Value::dynamic(params)),
            ("authorizer", check.value()),
            ("authorizer.requestResource", own.value()),
        ])
    }
}

/// Evaluates expressions that share a budget.
pub(super) struct Evaluation<'p, 'v> {
    programs: &'p Programs,
    bindings: Bindings<'v>,
    left: u64,
    /// Variables that can't be had, and why.
    missing: BTreeMap<String, String>,
}

impl<'p, 'v> Evaluation<'p, 'v> {
    pub(super) fn new(programs: &'p Programs, bindings: Bindings<'v>, limit: u64) -> Self {
        Self { programs, bindings, left: limit, missing: BTreeMap::new() }
    }

    /// Binds a policy's variables, each of which may use those before it. One that can't be evaluated is missing,
    /// which matters only to who uses it.
    pub(super) fn bind_variables(&mut self, variables: &Value) {
        let mut known: Vec<(cel::Value<'v>, cel::Value<'v>)> = Vec::new();
        for variable in variables.as_array().into_iter().flatten() {
            let text = |key: &str| variable[key].as_str().unwrap_or_default().to_owned();
            self.bindings.set("variables", cel::Value::map(known.clone()));
            match self.evaluate(Purpose::Variable, &text("expression")) {
                Ok(value) => known.push((cel::Value::text(text("name")), value)),
                Err(why) => drop(self.missing.insert(text("name"), why.to_string())),
            }
        }
        self.bindings.set("variables", cel::Value::map(known));
    }

    /// # Errors
    /// Upstream's words for what is wrong with it.
    pub(super) fn evaluate(&mut self, purpose: Purpose, source: &str) -> Result<cel::Value<'v>, Broken> {
        let program = self.programs.get(purpose, source);
        let program = match program.as_ref() {
            Ok(program) => program,
            Err(why) => return Err(Broken::Expression(format!("compilation error: {why}"))),
        };
        let granted = PER_CALL_LIMIT.min(self.left);
        let mut budget = Budget::new(granted);
        let result = program.evaluate(&self.bindings, &mut budget);
        self.left -= granted - budget.left();
        result.map_err(|error| match self.left {
            0 => Broken::Exhausted,
            _ => {
                let why = self.why_missing(&error.text).unwrap_or(error.text);
                Broken::Expression(format!("expression '{source}' resulted in error: {why}"))
            }
        })
    }

    fn why_missing(&self, error: &str) -> Option<String> {
        let name = error.strip_prefix("no such key: ")?;
        let why = self.missing.get(name)?;
        Some(format!("composited variable {name:?} fails to evaluate: {why}"))
    }
}

/// Whether all conditions hold. One that is false decides, even if another can't be evaluated.
///
/// # Errors
/// What is wrong with those that can't.
pub(super) fn conditions_hold(
    programs: &Programs,
    bindings: Bindings<'_>,
    purpose: Purpose,
    conditions: &Value,
) -> Result<bool, String> {
    let mut evaluation = Evaluation::new(programs, bindings, CONDITIONS_LIMIT);
    let mut failures = Vec::new();
    for condition in conditions.as_array().into_iter().flatten() {
        match evaluation.evaluate(purpose, condition["expression"].as_str().unwrap_or_default()) {
            Ok(cel::Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(why) => failures.push(why.to_string()),
        }
    }
    match failures.len() {
        0 => Ok(true),
        1 => Err(failures.remove(0)),
        _ => Err(format!("[{}]", failures.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_build_on_each_other_and_are_missed_only_where_they_are_used() {
        let (programs, object) = (Programs::default(), json!({"n": 3}));
        let bindings = Bindings::new([("object", cel::Value::dynamic(&object))]);
        let mut evaluation = Evaluation::new(&programs, bindings, 10_000);
        evaluation.bind_variables(&json!([
            {"name": "a", "expression": "object.n"},
            {"name": "b", "expression": "variables.a * 2"},
            {"name": "bad", "expression": "object.missing"},
        ]));
        assert!(matches!(
            evaluation.evaluate(Purpose::Validation, "variables.b == 6"),
            Ok(cel::Value::Bool(true))
        ));
        let why = evaluation.evaluate(Purpose::Validation, "variables.bad == 1").expect_err("missing");
        assert_eq!(
            why.to_string(),
            "expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: \
             expression 'object.missing' resulted in error: no such key: missing"
        );
    }

    #[test]
    fn a_false_condition_decides_and_a_budget_ends() {
        let (programs, object) = (Programs::default(), json!({"list": vec![1; 2000]}));
        let bindings = || Bindings::new([("object", cel::Value::dynamic(&object))]);
        let hold = |texts: &[&str]| {
            let conditions: Vec<Value> = texts.iter().map(|text| json!({"expression": text})).collect();
            conditions_hold(&programs, bindings(), Purpose::Condition, &json!(conditions))
        };
        assert_eq!(hold(&["object.nope", "false"]), Ok(false));
        assert_eq!(hold(&["true", "object.list.size() == 2000"]), Ok(true));
        let why = hold(&["object.nope", "true"]).expect_err("broken");
        assert_eq!(why, "expression 'object.nope' resulted in error: no such key: nope");
        let dear = "object.list.all(a, object.list.all(b, a == b))";
        let mut evaluation = Evaluation::new(&programs, bindings(), 10_000);
        assert!(matches!(evaluation.evaluate(Purpose::Condition, dear), Err(Broken::Exhausted)));
    }
}
