//! What ValidatingAdmissionPolicies have against a write, and what becomes of that: it is refused, warned of
//! or noted in the audit log.

use std::collections::BTreeMap;

use api::cel::admission::Purpose;
use api::cel::{self, OBJECT_LIMIT};
use api::status::{Reason, Status};
use serde_json::{Value, json};

use super::super::expressions::{Broken, Evaluation, Seen};
use super::super::question::Question;
use super::{Bound, VALIDATING, bound, seen};
use crate::error::Outcome;

/// Longest note in the audit log, in bytes.
const MAX_NOTE: usize = 10 << 10;
/// Longest message that an expression can make, in bytes.
const MAX_MESSAGE: usize = 5 << 10;

/// What a policy has against a write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    /// Which validation.
    index: usize,
    message: String,
    reason: String,
}

/// The notes of one policy: by key, the values that its bindings give.
type Notes = BTreeMap<String, Vec<String>>;

/// Judges a write; for a deletion the object is null.
///
/// # Errors
/// The first refusal.
pub(in super::super) async fn validate(question: Question<'_>) -> Outcome<()> {
    let (mut refusals, mut notes) = (Vec::new(), BTreeMap::<String, Notes>::new());
    for bound in &bound(question, VALIDATING).await? {
        let params = match &bound.params {
            Ok(params) => params,
            Err(_) if bound.ignores_failures() => continue,
            Err(why) => {
                refusals.push(refusal(question, bound, &why.to_string(), ""));
                continue;
            }
        };
        let shown = bound.shown(question).await?;
        let seen = seen(shown.question(question)).await?;
        for params in params {
            let failures = judge(&seen, bound, params, notes.entry(bound.policy_name().into()).or_default());
            for failure in failures {
                refusals.extend(act(question, bound, &failure));
            }
        }
    }
    publish(question, notes);
    refusals.into_iter().next().map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// What the policy has against the write, with one set of parameters.
fn judge(seen: &Seen<'_>, bound: &Bound, params: &Value, notes: &mut Notes) -> Vec<Failure> {
    let bindings = seen.bindings(params);
    match bound.conditions_hold(seen.question, bindings.clone()) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return broken(bound, 0, why).into_iter().collect(),
    }
    let programs = &seen.question.call.server.programs;
    let mut evaluation = Evaluation::new(programs, bindings.clone(), OBJECT_LIMIT);
    evaluation.bind_variables(&bound.spec()["variables"]);
    let mut failures = Vec::new();
    for (index, validation) in items(&bound.spec()["validations"]).iter().enumerate() {
        match evaluation.evaluate(Purpose::Validation, text(validation, "expression")) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(_) => {
                let reason = text(validation, "reason").to_owned();
                failures.push(Failure { index, message: message(validation, &mut evaluation), reason });
            }
            // Nothing that was found before counts any more, as upstream has it.
            Err(why @ Broken::Exhausted) => {
                return broken(bound, index, why.to_string()).into_iter().collect();
            }
            Err(why) => failures.extend(broken(bound, index, why.to_string())),
        }
    }
    let mut evaluation = Evaluation::new(programs, bindings, OBJECT_LIMIT);
    evaluation.bind_variables(&bound.spec()["variables"]);
    failures.extend(note(bound, &mut evaluation, notes));
    failures
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What can't be evaluated is a failure, unless the policy says otherwise.
fn broken(bound: &Bound, index: usize, message: String) -> Option<Failure> {
    (!bound.ignores_failures()).then(|| Failure { index, message, reason: String::new() })
}

/// What the message expression makes, if it is one line; else the message; else the expression.
fn message(validation: &Value, evaluation: &mut Evaluation<'_, '_>) -> String {
    let made = match text(validation, "messageExpression") {
        "" => None,
        source => evaluation.evaluate(Purpose::Message, source).ok(),
    };
    let made = made.and_then(|value| match value {
        cel::Value::String(text) => Some(text.trim().to_owned()),
        _ => None,
    });
    let usable = made.filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE);
    usable.unwrap_or_else(|| match text(validation, "message").trim() {
        "" => format!("failed expression: {}", text(validation, "expression").trim()),
        message => message.to_owned(),
    })
}

/// Collects audit annotations; those that can't be made are failures.
fn note(bound: &Bound, evaluation: &mut Evaluation<'_, '_>, notes: &mut Notes) -> Vec<Failure> {
    let mut failures = Vec::new();
    for annotation in items(&bound.spec()["auditAnnotations"]) {
        match evaluation.evaluate(Purpose::AuditAnnotation, text(annotation, "valueExpression")) {
            Ok(cel::Value::String(value)) if !value.trim().is_empty() => {
                let value = shortened(value.trim());
                let values = notes.entry(text(annotation, "key").to_owned()).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Ok(_) => {}
            Err(why) => failures.extend(broken(bound, 0, why.to_string())),
        }
    }
    failures
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(MAX_NOTE)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}

fn publish(question: Question<'_>, notes: BTreeMap<String, Notes>) {
    for (policy, notes) in notes {
        for (key, values) in notes {
            question.call.info.annotations.add(format!("{policy}/{key}"), values.join(", "));
        }
    }
}

/// What the binding wants to happen; the refusal, if that is what.
fn act(question: Question<'_>, bound: &Bound, failure: &Failure) -> Option<Status> {
    let actions = &bound.binding["spec"]["validationActions"];
    let (policy, binding) = (bound.policy_name(), api::object::name(&bound.binding));
    let mut refused = None;
    for action in items(actions).iter().filter_map(Value::as_str) {
        match action {
            "Deny" => refused = Some(refusal(question, bound, &failure.message, &failure.reason)),
            "Warn" => question.call.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                failure.message
            )),
            _ => {
                let value = json!([{
                    "message": failure.message, "policy": policy, "binding": binding,
                    "expressionIndex": failure.index, "validationActions": actions,
                }]);
                let key = "validation.policy.admission.k8s.io/validation_failure";
                question.call.info.annotations.add(key, value.to_string());
            }
        }
    }
    refused
}

/// A refusal with the reason that the policy gives; the words are the same for all.
fn refusal(question: Question<'_>, bound: &Bound, why: &str, reason: &str) -> Status {
    let policy = bound.policy_name();
    let by = bound.binding_name().map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
    let why = format!("ValidatingAdmissionPolicy '{policy}'{by} denied request: {why}");
    let resource = question.call.resource;
    let mut status =
        Status::forbidden(&resource.plural, &resource.group, question.name(), &why).with_cause("", &why, "");
    let (reason, code) = match reason {
        "Forbidden" => (Reason::Forbidden, 403),
        "Unauthorized" => (Reason::Unauthorized, 401),
        "RequestEntityTooLarge" => (Reason::RequestEntityTooLarge, 413),
        _ => (Reason::Invalid, 422),
    };
    status.reason = reason;
    status.with_code(code)
}
