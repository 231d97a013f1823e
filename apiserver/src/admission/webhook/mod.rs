//! Admission webhooks: servers that are asked whether, and in which form, an object may be written.
//!
//! Mutating ones are asked one after the other by the names of their configurations; who wishes so is asked
//! again if another changed the object after it. Validating ones are asked at once. Nobody is asked about the
//! configurations themselves, so that a broken webhook can always be taken away. Upstream's
//! `k8s.io/apiserver/pkg/admission/plugin/webhook` gives the rules and the messages.

mod review;

use std::sync::Arc;

use api::cel::admission::Purpose;
use api::status::Status;
use futures::future::join_all;
use serde_json::{Value, json};

use super::expressions::{Seen, conditions_hold};
use super::question::{Question, in_version};
use super::reinvocation::Round;
use super::{lookup, matching, settled};
use crate::error::Outcome;
use crate::registry::resource::Resource;
use crate::verbs::{Call, submit};

use review::Wish;

const GROUP: &str = "admissionregistration.k8s.io";

/// One webhook of a configuration.
struct Hook {
    configuration: Arc<Value>,
    /// Its place in the configuration.
    place: usize,
    /// Its place among all that are asked.
    index: usize,
}

impl Hook {
    fn spec(&self) -> &Value {
        &self.configuration["webhooks"][self.place]
    }

    fn configuration(&self) -> &str {
        api::object::name(&self.configuration)
    }

    fn name(&self) -> &str {
        self.spec()["name"].as_str().unwrap_or_default()
    }

    fn ignores_failures(&self) -> bool {
        self.spec()["failurePolicy"] == "Ignore"
    }
}

/// Lets mutating webhooks change the object.
///
/// # Errors
/// The first refusal, or 500 if one that must be heard can't be.
pub(super) async fn mutate(question: Question<'_>, object: &mut Value, round: &mut Round) -> Outcome<()> {
    for hook in hooks(question.call, "mutatingwebhookconfigurations").await? {
        let key = format!("{}/{}", hook.configuration(), hook.name());
        if !round.wants(&key) {
            continue;
        }
        let present = object.clone();
        let question = Question { object: &present, ..question };
        let Some(next) = ask_mutating(question, &hook).await? else { continue };
        let mutated = next != present;
        let value =
            json!({"configuration": hook.configuration(), "webhook": hook.name(), "mutated": mutated});
        note(question, "mutation.webhook.admission.k8s.io", &hook, value.to_string());
        if mutated {
            *object = next;
            round.changed();
        }
        round.ran(key, hook.spec()["reinvocationPolicy"] == "IfNeeded");
    }
    Ok(())
}

/// Lets validating webhooks judge.
///
/// # Errors
/// The first refusal, or 500 if one that must be heard can't be.
pub(super) async fn validate(question: Question<'_>) -> Outcome<()> {
    let hooks = hooks(question.call, "validatingwebhookconfigurations").await?;
    let verdicts = join_all(hooks.iter().map(|hook| ask(question, hook))).await;
    verdicts.into_iter().try_for_each(|verdict| verdict.map(drop))
}

/// The webhooks of all configurations of a kind, in the order in which they are asked.
async fn hooks(call: &Call<'_>, plural: &str) -> Outcome<Vec<Hook>> {
    if call.resource.group == GROUP && call.resource.kind.ends_with("WebhookConfiguration") {
        return Ok(Vec::new());
    }
    let configurations = lookup::list(call, GROUP, plural, "").await?;
    let mut hooks = Vec::new();
    for configuration in &configurations {
        for place in 0..configuration["webhooks"].as_array().map_or(0, Vec::len) {
            hooks.push(Hook { configuration: configuration.clone(), place, index: hooks.len() });
        }
    }
    Ok(hooks)
}

/// The object as the webhook wants it; `None` if it wasn't asked or not heard.
async fn ask_mutating(question: Question<'_>, hook: &Hook) -> Outcome<Option<Value>> {
    let Some(wish) = ask(question, hook).await? else { return Ok(None) };
    let Some((seen_as, patch)) = wish else { return Ok(Some(question.object.clone())) };
    if question.object.is_null() {
        let why = "attempted to modify the object, which is not supported for this operation";
        return Err(Status::internal(format!("admission webhook {:?} {why}", hook.name())).into());
    }
    let failed = |why: String| Status::internal(failed(hook.name(), &why));
    let seen = in_version(&seen_as, question.object).await?;
    let patched = api::patch::json_patch(&seen, &patch).map_err(|error| failed(error.to_status().message))?;
    let patched = in_version(question.call.resource, &patched).await?;
    let settled = settled(question.call, question.object, patched);
    Ok(Some(settled.map_err(|failure| failed(failure.into_status().message))?))
}

/// What the webhook says; `None` if the question is none for it, or it can't be heard and needn't.
async fn ask(question: Question<'_>, hook: &Hook) -> Outcome<Option<Wish>> {
    let Some(seen_as) = concerns(question, hook).await? else { return Ok(None) };
    let dry = submit::is_dry_run(question.call)?;
    if dry && !matches!(hook.spec()["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")) {
        let why = format!("admission webhook {:?} does not support dry run", hook.name());
        return Err(Status::bad_request(why).into());
    }
    let shown = question.shown_as(seen_as).await?;
    let answer = match review::ask(shown.question(question), hook.spec()).await {
        Ok(answer) => answer,
        Err(why) if hook.ignores_failures() => {
            tracing::warn!(webhook = hook.name(), %why, "a webhook that may fail failed");
            note(question, "failed-open.admission.k8s.io", hook, hook.name().to_owned());
            return Ok(None);
        }
        Err(why) => return Err(Status::internal(failed(hook.name(), &why)).into()),
    };
    for (key, value) in &answer.annotations {
        question.call.info.annotations.add(format!("{}/{key}", hook.name()), value);
    }
    question.call.info.warnings.extend(answer.warnings);
    Ok(Some(answer.verdict.map_err(|refusal| refusal.into_status(hook.name()))?))
}

/// As what the webhook sees the object, if rules, selectors and conditions make the question one for it.
async fn concerns(question: Question<'_>, hook: &Hook) -> Outcome<Option<Arc<Resource>>> {
    let refused = |why: String| {
        let resource = question.call.resource;
        Status::forbidden(&resource.plural, &resource.group, question.name(), &why)
    };
    let matched = matching::webhook(question, hook.spec()).await;
    let seen_as = match matched {
        Ok(Some(seen_as)) => seen_as,
        Ok(None) => return Ok(None),
        Err(_) if hook.ignores_failures() => return Ok(None),
        Err(why) => return Err(refused(why).into()),
    };
    let conditions = &hook.spec()["matchConditions"];
    if conditions.as_array().is_none_or(Vec::is_empty) {
        return Ok(Some(seen_as));
    }
    let shown = question.shown_as(seen_as.clone()).await?;
    let question = shown.question(question);
    let seen = Seen { question, request: question.request(""), namespace: Value::Null };
    let programs = &question.call.server.programs;
    match conditions_hold(programs, seen.bindings(&Value::Null), Purpose::HookCondition, conditions) {
        Ok(true) => Ok(Some(seen_as)),
        Ok(false) => Ok(None),
        Err(_) if hook.ignores_failures() => Ok(None),
        Err(why) => Err(refused(why).into()),
    }
}

/// For the audit log, with the hook's place as upstream numbers it.
fn note(question: Question<'_>, what: &str, hook: &Hook, value: String) {
    question.call.info.annotations.add(format!("{what}/round_0_index_{}", hook.index), value);
}

fn failed(name: &str, why: &str) -> String {
    format!("failed calling webhook {name:?}: {why}")
}
