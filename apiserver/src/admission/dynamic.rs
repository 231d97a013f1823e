//! What the cluster's own policies and webhooks make of an object, in upstream's order: policies that change it,
//! webhooks that change it, and, once it has proved valid, policies and webhooks that judge it.

use api::object;
use api::status::Status;
use serde_json::Value;

use super::question::{Operation, Question};
use super::reinvocation::Round;
use super::{lookup, policy, webhook};
use crate::error::Outcome;
use crate::verbs::decode::{self, KindName};
use crate::verbs::{Call, submit};

const GROUP: &str = "admissionregistration.k8s.io";

/// What policies and webhooks have done so far.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    policies: Round,
    webhooks: Round,
}

/// Lets all change the object (null for a deletion); true if one did.
///
/// # Errors
/// The first refusal, or 500 if one that must be heard can't be.
pub(super) async fn mutate(
    call: &Call<'_>,
    operation: Operation,
    object: &mut Value,
    old: &Value,
    rounds: &mut Rounds,
) -> Outcome<bool> {
    if !is_changed_by_anybody(call).await? {
        return Ok(false);
    }
    let present = object.clone();
    let question = Question::of(call, operation, &present, old);
    // There is nothing that a policy could change.
    if !object.is_null() {
        Box::pin(policy::mutate(question, object, &mut rounds.policies)).await?;
    }
    let by_policies = rounds.policies.end(object);
    let present = object.clone();
    let question = Question::of(call, operation, &present, old);
    Box::pin(webhook::mutate(question, object, &mut rounds.webhooks)).await?;
    Ok(rounds.webhooks.end(object) || by_policies)
}

/// Whether there is somebody who may want to change what is written. Mostly there is nobody, and then the object isn't
/// copied for him.
async fn is_changed_by_anybody(call: &Call<'_>) -> Outcome<bool> {
    for plural in ["mutatingadmissionpolicybindings", "mutatingwebhookconfigurations"] {
        if !lookup::stored(call, GROUP, plural, "").await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Once more those who want to see what others did after them.
///
/// # Errors
/// As [`mutate`].
pub(super) async fn mutate_again(
    call: &Call<'_>,
    operation: Operation,
    object: &mut Value,
    old: &Value,
    mut rounds: Rounds,
) -> Outcome<()> {
    rounds.policies.again(object);
    let present = object.clone();
    let question = Question::of(call, operation, &present, old);
    Box::pin(policy::mutate(question, object, &mut rounds.policies)).await?;
    rounds.webhooks.again(object);
    let present = object.clone();
    let question = Question::of(call, operation, &present, old);
    Box::pin(webhook::mutate(question, object, &mut rounds.webhooks)).await
}

/// Both rounds, where nobody else changes the object between them.
///
/// # Errors
/// As [`mutate`].
pub(super) async fn mutate_twice(
    call: &Call<'_>,
    operation: Operation,
    object: &mut Value,
    old: &Value,
) -> Outcome<()> {
    let mut rounds = Rounds::default();
    match mutate(call, operation, object, old, &mut rounds).await? {
        true => mutate_again(call, operation, object, old, rounds).await,
        false => Ok(()),
    }
}

/// Lets all judge what is to be written; the object is null for a deletion.
///
/// # Errors
/// As [`mutate`].
pub(super) async fn validate(
    call: &Call<'_>,
    operation: Operation,
    object: &Value,
    old: &Value,
) -> Outcome<()> {
    let question = Question::of(call, operation, object, old);
    policy::validate(question).await?;
    webhook::validate(question).await
}

/// What others made of `before` is decoded and completed like what clients send.
///
/// # Errors
/// If it is no object of its kind any more, or one of another place.
pub(super) fn settled(call: &Call<'_>, before: &Value, mut made: Value) -> Outcome<Value> {
    if object::kind(before) != call.resource.kind {
        return Ok(made); // What is sent below an object isn't stored.
    }
    if object::namespace(before) != object::namespace(&made) {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why).into());
    }
    let owners = object::metadata_mut(&mut made).remove("managedFields");
    let mut settled = decode::value(call, KindName::of(call), made)?.object;
    if let Some(owners) = owners {
        object::metadata_mut(&mut settled).insert("managedFields".into(), owners);
    }
    submit::apply_defaults(call, &mut settled);
    Ok(settled)
}
