//! ResourceQuota: what a namespace may use in all.
//!
//! A quota is charged in the transaction that writes the object, on the condition that it is as it was
//! read: two writers, in this server or in two, never spend the same amount. What is given back when
//! objects go is found out by the quota controller, which counts what there is.

use api::object;
use api::quota::{self, Amounts};
use api::status::Status;
use serde_json::Value;
use store::kv::RangeRequest;

use super::{Admitted, lookup};
use crate::error::Outcome;
use crate::storage::key::Key;
use crate::storage::object::{Stored, encode};
use crate::storage::{Also, decode};
use crate::verbs::Call;

/// Charges what the new state of an object uses more than its old state (nothing, if it is new).
///
/// # Errors
/// 403 if a quota doesn't allow it, in upstream's words.
pub async fn charge(
    call: &Call<'_>,
    object: &Value,
    old: Option<&Value>,
    admitted: &mut Admitted,
) -> Outcome<()> {
    let (group, plural, namespace) = (&call.resource.group, &call.resource.plural, call.namespace());
    let counts = namespace.is_empty() || call.resource.strategy.traits().review.is_some();
    if counts || old.is_some() && !quota::counts_updates(group, plural) {
        return Ok(());
    }
    if lookup::stored(call, "", "resourcequotas", namespace).await?.is_empty() {
        return Ok(());
    }
    let mut delta = quota::usage(group, plural, object);
    if let Some(old) = old {
        delta = quota::difference(&delta, &quota::usage(group, plural, old));
    }
    if delta.values().all(|amount| amount.is_zero()) {
        return Ok(());
    }
    admitted.turn = Some(call.server.turns.take(namespace).await);
    for stored in quotas(call, namespace).await? {
        admitted.also.extend(charge_one(call, &stored, object, old.is_none(), &delta)?);
    }
    Ok(())
}

/// The quotas of a namespace, as new as the store.
async fn quotas(call: &Call<'_>, namespace: &str) -> Outcome<Vec<Stored>> {
    let Some(resource) = lookup::resource(call, "", "resourcequotas") else { return Ok(Vec::new()) };
    let range = Key::Namespace(&resource, namespace).range();
    let answer = call.storage().range(RangeRequest::new(range)).await?;
    Ok(answer.kvs.iter().map(Stored::new).map(|stored| charged_already(call, stored)).collect())
}

/// A quota with what earlier steps of the same transaction charge to it.
fn charged_already(call: &Call<'_>, stored: Stored) -> Stored {
    let earlier = call.batch.and_then(|batch| batch.also(&stored.key)).and_then(|also| also.value);
    match earlier {
        Some(json) => Stored::of(stored.key, json, stored.revision),
        None => stored,
    }
}

/// The write that charges a quota; `None` if the object is none of its business.
fn charge_one(
    call: &Call<'_>,
    stored: &Stored,
    object: &Value,
    new: bool,
    delta: &Amounts,
) -> Outcome<Option<Also>> {
    let mut quota = decode(stored)?;
    let (group, plural) = (&call.resource.group, &call.resource.plural);
    if !quota::selects(&quota["spec"], group, plural, object) {
        return Ok(None);
    }
    let forbid = |why: String| Status::forbidden(plural, group, object::name(object), &why);
    if new {
        quota::complete(&quota, group, plural, object).map_err(forbid)?;
    }
    match quota::charge(&quota, delta).map_err(forbid)? {
        None => Ok(None),
        Some(used) => {
            quota["status"]["used"] = used;
            Ok(Some(Also { key: stored.key.clone(), expected: stored.revision, value: Some(encode(&quota)) }))
        }
    }
}
