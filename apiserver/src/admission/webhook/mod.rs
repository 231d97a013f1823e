//! Admission webhooks: servers that are asked whether, and in which form, an object may be written.
//!
//! Mutating ones are asked one after the other by the names of their configurations; who wishes so is asked
//! again if another changed the object after it. Validating ones are asked at once. Nobody is asked about the
//! configurations themselves, so that a broken webhook can always be taken away. Upstream's
//! `k8s.io/apiserver/pkg/admission/plugin/webhook` gives the rules and the messages.

mod client;
mod matching;
mod review;

use api::object;
use api::status::Status;
use futures::future::join_all;
use serde_json::Value;

use super::{Admitted, lookup};
use crate::error::Outcome;
use crate::verbs::{Call, submit};

use review::Verdict;

const GROUP: &str = "admissionregistration.k8s.io";

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change.
    Update,
    /// An end.
    Delete,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One question: null stands for an object that isn't there.
#[derive(Clone, Copy)]
struct Question<'a> {
    call: &'a Call<'a>,
    operation: Operation,
    object: &'a Value,
    old: &'a Value,
}

/// Lets mutating webhooks change the object; true if one did.
///
/// # Errors
/// The first refusal, or 500 if one that must be heard can't be.
pub async fn mutate(
    call: &Call<'_>,
    operation: Operation,
    object: &mut Value,
    old: &Value,
    admitted: &mut Admitted,
) -> Outcome<bool> {
    let hooks = hooks(call, "mutatingwebhookconfigurations").await?;
    let (mut changed, mut last_change, mut asked) = (false, None, Vec::new());
    for (index, hook) in hooks.iter().enumerate() {
        if let Some(next) = ask_mutating(call, hook, operation, object, old, admitted).await? {
            asked.push(index);
            if next != *object {
                (*object, changed, last_change) = (next, true, Some(index));
            }
        }
    }
    // Once more those who want to see what others did after them.
    for index in asked {
        let again =
            hooks[index]["reinvocationPolicy"] == "IfNeeded" && last_change.is_some_and(|last| last > index);
        if again
            && let Some(next) = ask_mutating(call, &hooks[index], operation, object, old, admitted).await?
        {
            *object = next;
        }
    }
    Ok(changed)
}

/// Lets validating webhooks judge.
///
/// # Errors
/// The first refusal, or 500 if one that must be heard can't be.
pub async fn validate(
    call: &Call<'_>,
    operation: Operation,
    object: &Value,
    old: &Value,
    admitted: &mut Admitted,
) -> Outcome<()> {
    let hooks = hooks(call, "validatingwebhookconfigurations").await?;
    let question = Question { call, operation, object, old };
    for verdict in join_all(hooks.iter().map(|hook| ask(question, hook))).await {
        if let Some(verdict) = verdict? {
            admitted.warnings.extend(verdict.warnings);
        }
    }
    Ok(())
}

/// The webhooks of all configurations of a kind, in the order in which they are asked.
async fn hooks(call: &Call<'_>, plural: &str) -> Outcome<Vec<Value>> {
    if call.resource.group == GROUP && call.resource.kind.ends_with("WebhookConfiguration") {
        return Ok(Vec::new());
    }
    let configurations = lookup::list(call, GROUP, plural, "").await?;
    Ok(configurations
        .iter()
        .flat_map(|one| one["webhooks"].as_array().cloned().unwrap_or_default())
        .collect())
}

/// The object as the webhook wants it; `None` if it wasn't asked or not heard.
async fn ask_mutating(
    call: &Call<'_>,
    hook: &Value,
    operation: Operation,
    object: &Value,
    old: &Value,
    admitted: &mut Admitted,
) -> Outcome<Option<Value>> {
    let Some(verdict) = ask(Question { call, operation, object, old }, hook).await? else { return Ok(None) };
    admitted.warnings.extend(verdict.warnings);
    match verdict.patch {
        None => Ok(Some(object.clone())),
        Some(patch) => {
            let name = hook["name"].as_str().unwrap_or_default();
            let patched = api::patch::json_patch(object, &patch);
            let patched =
                patched.map_err(|error| Status::internal(failed(name, &error.to_status().message)))?;
            Ok(Some(patched))
        }
    }
}

/// What the webhook says; `None` if the question is none for it, or it can't be heard and needn't.
async fn ask(question: Question<'_>, hook: &Value) -> Outcome<Option<Verdict>> {
    let name = hook["name"].as_str().unwrap_or_default();
    let ignored = hook["failurePolicy"] == "Ignore";
    match matching::concerns(question, hook).await {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(_) if ignored => return Ok(None),
        Err(why) => {
            let resource = question.call.resource;
            let name = object::name(question.object);
            return Err(Status::forbidden(&resource.plural, &resource.group, name, &why).into());
        }
    }
    if submit::is_dry_run(question.call)?
        && !matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun"))
    {
        let why = format!("admission webhook {name:?} does not support dry run");
        return Err(Status::bad_request(why).into());
    }
    let answer = match review::ask(question, hook).await {
        Ok(answer) => answer,
        Err(why) if ignored => {
            tracing::warn!(webhook = name, %why, "a webhook that may fail failed");
            return Ok(None);
        }
        Err(why) => return Err(Status::internal(failed(name, &why)).into()),
    };
    answer.map(Some).map_err(|refusal| refusal.into_status(name).into())
}

fn failed(name: &str, why: &str) -> String {
    format!("failed calling webhook {name:?}: {why}")
}
