//! `x-kubernetes-validations`: rules as expressions, evaluated on objects.

use serde_json::Value;

use super::declared::declared;
use super::structural::Structural;
use super::structural_rules::{flag, items, text};
use super::validate::{join, old_item};
use crate::cel::{self, Bindings, Budget, Environment, OBJECT_LIMIT, PER_CALL_LIMIT, Program, Type};
use crate::status::{FieldError, FieldErrorKind};

/// The rules of one node, compiled.
#[derive(Clone, Debug)]
pub struct Rules {
    own: Type,
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug)]
struct Rule {
    rule: String,
    message: String,
    reason: FieldErrorKind,
    field_path: String,
    /// `None`: a rule that doesn't compile any more, which is told to whoever writes an object.
    program: Result<Program, String>,
    message_program: Option<Program>,
    /// Looks at the old value too.
    is_transition: bool,
    optional_old: bool,
}

impl Rules {
    /// Compiles the rules in a node's JSON; `None` if it has none.
    pub(super) fn compile(json: &Value, node: &Structural, is_resource: bool) -> Option<Self> {
        items(json, "x-kubernetes-validations").next()?;
        let own = declared(node, is_resource);
        let rules = items(json, "x-kubernetes-validations").map(|rule| Rule::compile(rule, &own)).collect();
        Some(Self { own, rules })
    }
}

/// The names that a rule may use.
pub(super) fn environment(own: &Type, optional_old: bool) -> Environment {
    let old = if optional_old { Type::optional(own.clone()) } else { own.clone() };
    Environment::new([("self", own.clone()), ("oldSelf", old)])
}

impl Rule {
    fn compile(json: &Value, own: &Type) -> Self {
        let rule = text(json, "rule").to_owned();
        let optional_old = flag(json, "optionalOldSelf");
        let environment = environment(own, optional_old);
        let program = cel::compile(&rule, &environment).map_err(|error| error.show(&rule));
        let message_expression = text(json, "messageExpression");
        Self {
            is_transition: program.as_ref().is_ok_and(|program| program.uses("oldSelf")),
            message_program: cel::compile(message_expression, &environment).ok(),
            message: text(json, "message").trim().to_owned(),
            reason: reason(text(json, "reason")),
            field_path: field_path(text(json, "fieldPath")),
            program,
            optional_old,
            rule,
        }
    }

    fn default_message(&self) -> String {
        match self.message.is_empty() {
            true => format!("failed rule: {}", self.rule.trim()),
            false => self.message.clone(),
        }
    }

    /// How errors of the evaluation name the rule.
    fn name(&self) -> &str {
        if self.message.is_empty() { self.rule.trim() } else { &self.message }
    }
}

fn reason(name: &str) -> FieldErrorKind {
    match name {
        "FieldValueForbidden" => FieldErrorKind::Forbidden,
        "FieldValueRequired" => FieldErrorKind::Required,
        "FieldValueDuplicate" => FieldErrorKind::Duplicate,
        _ => FieldErrorKind::Invalid,
    }
}

/// `.a.b['c']` as errors write it: `a.b[c]`.
fn field_path(path: &str) -> String {
    path.trim_start_matches('.').replace("['", "[").replace("']", "]")
}

/// Evaluates all rules on an object that its schema has nothing else against. Empty if all hold.
///
/// Rules that don't look at the old value are not held against what didn't change.
pub fn validate_rules(schema: &Structural, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut run = Run { left: OBJECT_LIMIT, errors: Vec::new() };
    run.node(schema, object, old, "");
    run.errors
}

struct Run {
    left: u64,
    errors: Vec<FieldError>,
}

impl Run {
    fn node(&mut self, schema: &Structural, value: &Value, old: Option<&Value>, path: &str) {
        if value.is_null() || self.left == 0 {
            return;
        }
        if let Some(rules) = &schema.rules {
            for rule in &rules.rules {
                self.rule(rule, &rules.own, value, old, path);
            }
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let Some(child) = schema.child(key) else { continue };
                    let step = if schema.properties.contains_key(key) {
                        join(path, key)
                    } else {
                        format!("{path}[{key}]")
                    };
                    self.node(child, value, old.and_then(|old| old.get(key)), &step);
                }
            }
            Value::Array(list) => {
                let Some(child) = &schema.items else { return };
                for (index, item) in list.iter().enumerate() {
                    self.node(child, item, old_item(schema, old, item), &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, own: &Type, value: &Value, old: Option<&Value>, path: &str) {
        let applies = !rule.is_transition || rule.optional_old || old.is_some();
        let tolerated = !rule.is_transition && old == Some(value);
        if !applies || tolerated || self.left == 0 {
            return;
        }
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => {
                self.errors.push(FieldError::invalid(
                    path,
                    type_of(value),
                    format!("rule compile error: {why}"),
                ));
                return;
            }
        };
        let bindings = bindings(rule, own, value, old);
        match self.evaluate(program, &bindings) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(_) => {
                let message = self.message(rule, &bindings);
                self.errors.push(failure(rule, value, path, message));
            }
            Err(error) => {
                let why = broken(&error, rule.name());
                self.errors.push(FieldError::invalid(path, type_of(value), why));
            }
        }
        if self.left == 0 {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            self.errors.push(FieldError::invalid(path, type_of(value), why));
        }
    }

    fn evaluate<'v>(
        &mut self,
        program: &Program,
        bindings: &Bindings<'v>,
    ) -> Result<cel::Value<'v>, cel::EvalError> {
        let granted = self.left.min(PER_CALL_LIMIT);
        let mut budget = Budget::new(granted);
        let result = program.evaluate(bindings, &mut budget);
        self.left -= granted - budget.left();
        if result.as_ref().is_err_and(cel::EvalError::is_fatal) {
            self.left = 0;
        }
        result
    }

    /// The text of a message expression, if it makes one in one line; else the rule's own.
    fn message(&mut self, rule: &Rule, bindings: &Bindings<'_>) -> String {
        let made = rule.message_program.as_ref().and_then(|program| self.evaluate(program, bindings).ok());
        let made = made.and_then(|value| match value {
            cel::Value::String(text) => Some(text.trim().to_owned()),
            _ => None,
        });
        let usable = made.filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= 5 * 1024);
        usable.unwrap_or_else(|| rule.default_message())
    }
}

fn bindings<'v>(rule: &Rule, own: &'v Type, value: &'v Value, old: Option<&'v Value>) -> Bindings<'v> {
    let mut bindings = Bindings::new([("self", cel::Value::of(value, own))]);
    let old = old.map(|old| cel::Value::of(old, own));
    match (rule.optional_old, old) {
        (true, old) => bindings.set("oldSelf", cel::Value::Optional(old.map(std::sync::Arc::new))),
        (false, Some(old)) => bindings.set("oldSelf", old),
        (false, None) => {}
    }
    bindings
}

fn broken(error: &cel::EvalError, rule: &str) -> String {
    match error.text.as_str() {
        _ if error.is_fatal() => {
            format!(
                "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            )
        }
        "no such overload" => {
            format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
            )
        }
        _ => format!("{error} evaluating rule: {rule}"),
    }
}

fn type_of(value: &Value) -> &'static str {
    super::go::type_name(value)
}

fn failure(rule: &Rule, value: &Value, path: &str, message: String) -> FieldError {
    let path = match rule.field_path.as_str() {
        "" => path.to_owned(),
        below if below.starts_with('[') => format!("{path}{below}"),
        below => join(path, below),
    };
    let shown = match rule.reason {
        FieldErrorKind::Invalid | FieldErrorKind::Duplicate => {
            Some(value.clone()).filter(|value| !value.is_object() && !value.is_array())
        }
        _ => None,
    };
    FieldError { kind: rule.reason, path, value: shown, detail: message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Structural {
        Structural::compile(&json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min must not be above max"},
                {"rule": "self.max < 100", "messageExpression": "'max is ' + string(self.max)", "fieldPath": ".max",
                 "reason": "FieldValueForbidden"},
                {"rule": "!has(oldSelf.kind) || self.kind == oldSelf.kind", "message": "kind is immutable"},
                {"rule": "oldSelf.hasValue() || self.max < 50", "optionalOldSelf": true, "message": "born small"},
            ],
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"},
                "kind": {"type": "string", "x-kubernetes-validations": [{"rule": "self.startsWith('k')"}]},
                "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}},
            },
        }}}))
    }

    fn texts(object: Value, old: Option<Value>) -> Vec<String> {
        let errors = validate_rules(&schema(), &object, old.as_ref());
        errors.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn rules_are_told_where_they_fail() {
        assert!(texts(json!({"spec": {"min": 1, "max": 2, "kind": "k"}}), None).is_empty());
        assert_eq!(
            texts(json!({"spec": {"min": 3, "max": 200, "kind": "x", "list": [1, 0]}}), None),
            [
                "spec.max: Forbidden: max is 200",
                "spec: Invalid value: born small",
                r#"spec.kind: Invalid value: "x": failed rule: self.startsWith('k')"#,
                "spec.list[1]: Invalid value: 0: failed rule: self > 0",
            ]
        );
        assert_eq!(
            texts(json!({"spec": {"min": 3, "max": 2}}), None),
            ["spec: Invalid value: min must not be above max"]
        );
    }

    #[test]
    fn old_values_count_in_transitions_only() {
        let old = json!({"spec": {"min": 3, "max": 2, "kind": "k1"}});
        assert!(texts(old.clone(), Some(old.clone())).is_empty(), "what didn't change is tolerated");
        assert_eq!(
            texts(json!({"spec": {"min": 1, "max": 2, "kind": "k2"}}), Some(old)),
            ["spec: Invalid value: kind is immutable"]
        );
    }

    #[test]
    fn what_cannot_be_evaluated_is_told() {
        assert_eq!(
            texts(json!({"spec": {"max": 2}}), None),
            [r#"spec: Invalid value: "object": no such key: min evaluating rule: min must not be above max"#]
        );
    }
}
