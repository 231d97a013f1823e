//! Which rules a definition may have: they compile, and can't cost too much.

use serde_json::Value;

use super::declared::{declared, most_elements};
use super::rules::environment;
use super::structural::{Additional, Structural};
use super::structural_rules::{flag, items, text};
use crate::cel::{self, OBJECT_LIMIT, Type};
use crate::status::FieldError;

type Errors = Vec<FieldError>;

/// The most that all rules of a schema may cost by estimate.
const SCHEMA_LIMIT: u64 = 100_000_000;

/// What is wrong with the rules in a schema.
pub(super) fn check(schema: &Value, path: &str) -> Errors {
    let mut check = Check { errors: Errors::new(), total: 0 };
    check.node(schema, path, Place { cardinality: 1, uncorrelatable: None, is_root: true });
    if check.total > SCHEMA_LIMIT {
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.errors.push(FieldError::forbidden(path, too_expensive(what, check.total, SCHEMA_LIMIT)));
    }
    check.errors
}

/// How often a node's rules run at most, and whether old values can be found for it.
#[derive(Clone)]
struct Place {
    cardinality: u64,
    uncorrelatable: Option<String>,
    is_root: bool,
}

struct Check {
    errors: Errors,
    total: u64,
}

impl Check {
    fn node(&mut self, schema: &Value, path: &str, place: Place) {
        let node = Structural::compile(schema);
        if items(schema, "x-kubernetes-validations").next().is_some() {
            let own = declared(&node, place.is_root || node.embedded);
            for (index, rule) in items(schema, "x-kubernetes-validations").enumerate() {
                self.rule(rule, &own, &format!("{path}.x-kubernetes-validations[{index}]"), &place);
            }
        }
        let below = Place { is_root: false, ..place };
        for (name, property) in super::structural_rules::entries(schema, "properties") {
            self.node(property, &format!("{path}.properties[{name}]"), below.clone());
        }
        let many = Place { cardinality: below.cardinality.saturating_mul(most_elements(&node)), ..below };
        if matches!(node.additional, Some(Additional::Schema(_))) {
            self.node(&schema["additionalProperties"], &format!("{path}.additionalProperties"), many.clone());
        }
        if let Some(inner) = schema.get("items") {
            let is_map = matches!(node.list, crate::schema::ListKind::Map(_));
            let uncorrelatable = many.uncorrelatable.or_else(|| (!is_map).then(|| path.to_owned()));
            self.node(inner, &format!("{path}.items"), Place { uncorrelatable, ..many });
        }
    }

    fn rule(&mut self, rule: &Value, own: &Type, at: &str, place: &Place) {
        let source = text(rule, "rule");
        if source.trim().is_empty() {
            self.errors.push(FieldError::required(format!("{at}.rule"), "rule is not specified"));
            return;
        }
        self.errors.extend(words(rule, at));
        let environment = environment(own, flag(rule, "optionalOldSelf"));
        match cel::compile(source, &environment) {
            Err(error) => {
                let why = format!("compilation failed: {}", error.show(source));
                self.errors.push(FieldError::invalid(format!("{at}.rule"), source, why));
            }
            Ok(program) if !program.result().fits(&Type::Bool) => {
                let why = "cel expression must evaluate to a bool";
                self.errors.push(FieldError::invalid(format!("{at}.rule"), source, why));
            }
            Ok(program) => {
                if let Some(within) = place.uncorrelatable.as_ref().filter(|_| program.uses("oldSelf")) {
                    let why = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                    );
                    self.errors.push(FieldError::invalid(format!("{at}.rule"), source, why));
                }
                self.cost(program.estimated_cost(), "estimated rule cost", &format!("{at}.rule"), place);
            }
        }
        self.message_expression(text(rule, "messageExpression"), &environment, at, place);
    }

    fn message_expression(&mut self, source: &str, environment: &cel::Environment, at: &str, place: &Place) {
        if source.is_empty() {
            return;
        }
        let at = format!("{at}.messageExpression");
        match cel::compile(source, environment) {
            Err(error) => {
                let why = format!("messageExpression compilation failed: {}", error.show(source));
                self.errors.push(FieldError::invalid(at, source, why));
            }
            Ok(program) if !program.result().fits(&Type::STRING) => {
                let why = "messageExpression must evaluate to a string";
                self.errors.push(FieldError::invalid(at, source, why));
            }
            Ok(program) => {
                self.cost(program.estimated_cost(), "estimated messageExpression cost", &at, place)
            }
        }
    }

    fn cost(&mut self, cost: u64, what: &str, at: &str, place: &Place) {
        let cost = cost.saturating_mul(place.cardinality);
        self.total = self.total.saturating_add(cost);
        if cost > OBJECT_LIMIT {
            self.errors.push(FieldError::forbidden(at, too_expensive(what, cost, OBJECT_LIMIT)));
        }
    }
}

/// The texts of a rule that aren't expressions.
fn words(rule: &Value, at: &str) -> Errors {
    let mut errors = Errors::new();
    let (source, message) = (text(rule, "rule"), text(rule, "message"));
    let given = rule.get("message").is_some() && !message.is_empty();
    if given && message.trim().is_empty() {
        errors.push(FieldError::invalid(
            format!("{at}.message"),
            message,
            "message must be non-empty if specified",
        ));
    }
    if message.trim().contains('\n') {
        errors.push(FieldError::invalid(
            format!("{at}.message"),
            message,
            "message must not contain line breaks",
        ));
    }
    if source.contains('\n') && message.is_empty() {
        let why = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(format!("{at}.message"), why));
    }
    let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let reason = text(rule, "reason");
    if !reason.is_empty() && !reasons.contains(&reason) {
        errors.push(FieldError::not_supported(format!("{at}.reason"), reason, &reasons));
    }
    errors
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match () {
        _ if factor > 100.0 => "more than 100x".to_owned(),
        _ if factor < 1.5 => format!("{factor:.6}x"),
        _ => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, \
         and maxLength where arrays, maps, and strings are declared)"
    )
}
