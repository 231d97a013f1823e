//! What MutatingAdmissionPolicies make of an object before it is judged.

use api::cel::OBJECT_LIMIT;
use api::cel::admission::Purpose;
use api::managed;
use api::patch::{PatchError, json_patch};
use api::status::{Reason, Status};
use serde_json::Value;

use super::super::expressions::Evaluation;
use super::super::question::{Question, in_version};
use super::super::reinvocation::Round;
use super::super::settled;
use super::{Bound, MUTATING, bound, seen};
use crate::error::Outcome;

/// Changes the object of a question; each mutation sees what those before it made.
///
/// # Errors
/// What policies that must not fail could not do, all in one refusal.
pub(in super::super) async fn mutate(
    question: Question<'_>,
    object: &mut Value,
    round: &mut Round,
) -> Outcome<()> {
    let mut refusals = Vec::new();
    for bound in &bound(question, MUTATING).await? {
        let failures = match &bound.params {
            Err(why) => vec![(why.to_string(), Reason::Forbidden)],
            Ok(params) => {
                let mut failures = Vec::new();
                for params in params {
                    let failed = invoke(question, bound, params, object, round).await?;
                    failures.extend(failed.into_iter().map(|why| (why, Reason::Invalid)));
                }
                failures
            }
        };
        if !bound.ignores_failures() {
            refusals.extend(failures.into_iter().map(|(why, reason)| (refusal(bound, &why), reason)));
        }
    }
    refused(question, refusals).map_or(Ok(()), |status| Err(status.into()))
}

fn refusal(bound: &Bound, why: &str) -> String {
    let policy = bound.policy_name();
    match bound.binding_name() {
        Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
        None => format!("policy {policy:?} denied request: {why}"),
    }
}

/// One refusal with all causes; the first gives the words and the reason.
fn refused(question: Question<'_>, refusals: Vec<(String, Reason)>) -> Option<Status> {
    let (first, reason) = refusals.first()?.clone();
    let resource = question.call.resource;
    let whole = Status::forbidden(&resource.plural, &resource.group, question.name(), "").with_message(first);
    let mut whole = refusals.iter().fold(whole, |whole, (why, _)| whole.with_cause("", why, ""));
    whole.reason = reason;
    Some(whole)
}

/// All mutations of a policy with one set of parameters; what could not be done is told.
async fn invoke(
    question: Question<'_>,
    bound: &Bound,
    params: &Value,
    object: &mut Value,
    round: &mut Round,
) -> Outcome<Vec<String>> {
    let (policy, binding) = (bound.policy_name(), api::object::name(&bound.binding));
    let given = (api::object::namespace(params), api::object::name(params));
    let key = format!("{policy}\n{binding}\n{}\n{}", given.0, given.1);
    let before = object.clone();
    let first = bound.shown(Question { object: &before, ..question }).await?;
    let about = seen(first.question(question)).await?;
    match bound.conditions_hold(question, about.bindings(params)) {
        Ok(true) if round.wants(&key) => {}
        Ok(_) => return Ok(Vec::new()),
        Err(why) => return Ok(vec![why]),
    }
    let mut failures = Vec::new();
    for mutation in bound.spec()["mutations"].as_array().into_iter().flatten() {
        let now = object.clone();
        let shown = bound.shown(Question { object: &now, ..question }).await?;
        let about = seen(shown.question(question)).await?;
        let mut evaluation =
            Evaluation::new(&question.call.server.programs, about.bindings(params), OBJECT_LIMIT);
        evaluation.bind_variables(&bound.spec()["variables"]);
        match mutated(about.question, mutation, &mut evaluation) {
            Ok(next) => {
                let back = in_version(question.call.resource, &next).await?;
                match settled(question.call, &now, back) {
                    Ok(next) => *object = next,
                    Err(failure) => failures.push(failure.into_status().message),
                }
            }
            Err(why) => failures.push(why),
        }
    }
    if *object != before {
        round.changed();
    }
    round.ran(key, bound.spec()["reinvocationPolicy"] == "IfNeeded");
    Ok(failures)
}

/// The object as one mutation wants it, in the version in which the policy sees it.
fn mutated(
    question: Question<'_>,
    mutation: &Value,
    evaluation: &mut Evaluation<'_, '_>,
) -> Result<Value, String> {
    let source = |key: &str| mutation[key]["expression"].as_str().unwrap_or_default();
    let (purpose, source) = match mutation["patchType"] == "JSONPatch" {
        true => (Purpose::JsonPatch, source("jsonPatch")),
        false => (Purpose::ApplyConfiguration, source("applyConfiguration")),
    };
    let made = evaluation.evaluate(purpose, source).map_err(|why| why.to_string())?.to_json();
    match purpose {
        Purpose::JsonPatch => {
            let words = "JSONPath valueExpression evaluated to a type that could not marshal to JSON";
            patched(question.object, &made.map_err(|what| format!("{words}: {what}"))?)
        }
        _ => {
            let made = made.map_err(|what| format!("invalid return type: {what}"))?;
            applied(question, made).map_err(|why| format!("error applying patch: {why}"))
        }
    }
}

/// A test that fails means: not this object.
fn patched(object: &Value, patch: &Value) -> Result<Value, String> {
    match json_patch(object, patch) {
        Err(PatchError::TestFailed { .. }) => Ok(object.clone()),
        other => other.map_err(|error| format!("JSONPath: {}", error.to_status().message)),
    }
}

fn applied(question: Question<'_>, config: Value) -> Result<Value, String> {
    let schema = question.schema().map_err(|failure| failure.into_status().message)?;
    let atomics = managed::atomics(&config, Some(schema));
    if !atomics.is_empty() {
        let list = atomics.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"
        ));
    }
    managed::merge(question.object, &config, Some(schema))
        .map_err(|error| format!("failed to merge patch: {error}"))
}
