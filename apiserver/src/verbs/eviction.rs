//! `pods/eviction`: a deletion that asks first whether the pod may go.
//!
//! A disruption budget is charged in the transaction that deletes the pod, so two evictions never spend the
//! same allowance. The disruption controller counts anew once it sees the pod going. Messages are upstream's.

use api::object;
use api::selector::LabelSelector;
use api::status::Status;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::kv::RangeRequest;

use crate::admission;
use crate::error::Outcome;
use crate::query::Query;
use crate::response;
use crate::storage::key::Key;
use crate::storage::object::{Stored, encode};
use crate::storage::{Also, decode as decode_stored};
use crate::verbs::decode::{self, KindName};
use crate::verbs::delete::{Gate, remove_if};
use crate::verbs::{Answer, Call, delete_options, submit};

const EVICTION: KindName<'_> = KindName { group: "policy", version: "v1", kind: "Eviction" };
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// Seconds after which an eviction may be tried again that a budget wasn't ready to judge. One that it refuses
/// names none: clients of Go would try by themselves, and `kubectl drain --timeout` would not end in time.
const RETRY_AFTER: u32 = 10;
/// Evictions that the disruption controller may be behind by.
const MOST_UNCONFIRMED: usize = 2000;

/// Answers with a Status.
pub async fn evict(call: Call<'_>, body: &[u8]) -> Answer {
    let mut eviction = decode::object_of(&call, EVICTION, body)?.object;
    let name = object::name(&eviction);
    if !name.is_empty() && name != call.name() {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {name:?}, {:?}",
            call.name()
        ))
        .into());
    }
    let mut options =
        delete_options::from_value(eviction.get("deleteOptions").unwrap_or(&Value::Null), &Query::default())?;
    options.dry_run |= submit::is_dry_run(&call)?;
    admission::create_below(&call, &mut eviction).await?;
    remove_if(&call, call.namespace(), call.name(), &options, Gate::DisruptionBudget).await?;
    Ok(response::status(&Status::success(None).with_code(201)))
}

/// The write that charges the pod's budget, if it has one that counts.
///
/// # Errors
/// 429 if the budget allows no disruption now.
pub async fn charge(call: &Call<'_>, pod: &Value) -> Outcome<Vec<Also>> {
    if needs_no_budget(pod) {
        return Ok(Vec::new());
    }
    let mut budgets = Vec::new();
    for stored in stored_budgets(call).await? {
        let budget = decode_stored(&stored)?;
        if selects(&budget, pod) {
            budgets.push((stored, budget));
        }
    }
    match budgets.as_mut_slice() {
        [] => Ok(Vec::new()),
        [(stored, budget)] if !is_free_of(budget, pod) => {
            spend(budget, object::name(pod), Timestamp::now())?;
            let (key, expected) = (stored.key.clone(), stored.revision);
            Ok(vec![Also { key, expected, value: Some(encode(budget)) }])
        }
        [_] => Ok(Vec::new()),
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            Err(Status::internal(why).into())
        }
    }
}

async fn stored_budgets(call: &Call<'_>) -> Outcome<Vec<Stored>> {
    let Some(resource) = call.server.registry.find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(Vec::new());
    };
    let range = Key::Namespace(&resource, call.namespace()).range();
    let answer = call.storage().range(RangeRequest::new(range)).await?;
    Ok(answer.kvs.iter().map(Stored::new).collect())
}

/// Nobody counts on a pod that has ended, is going, or hasn't begun.
fn needs_no_budget(pod: &Value) -> bool {
    object::is_deleting(pod)
        || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

/// No selector selects nothing, an empty one everything.
fn selects(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    let labels = object::labels(pod);
    !selector.is_null() && LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(&labels))
}

/// A pod that isn't ready is no loss: always by one policy, by the other as long as enough others are.
fn is_free_of(budget: &Value, pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready =
        conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let enough = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
    !ready && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || enough)
}

/// Takes one disruption off the budget.
fn spend(budget: &mut Value, pod: &str, now: Timestamp) -> Result<(), Status> {
    let name = object::name(budget).to_owned();
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let refuse = |why: String, after: u32| {
        Err(Status::too_many_requests(REFUSED, after).with_cause("DisruptionBudget", &why, ""))
    };
    if count("observedGeneration") < object::generation(budget) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return refuse(why, RETRY_AFTER);
    }
    let forbid = |why: &str| Err(Status::forbidden("poddisruptionbudgets", "policy", &name, why));
    let unconfirmed = budget["status"]["disruptedPods"].as_object().map_or(0, serde_json::Map::len);
    match count("disruptionsAllowed") {
        ..0 => forbid("pdb disruptions allowed is negative"),
        _ if unconfirmed > MOST_UNCONFIRMED => {
            forbid("DisruptedPods map too big - too many evictions not confirmed by PDB controller")
        }
        0 => {
            let (needed, healthy) = (count("desiredHealthy"), count("currentHealthy"));
            let why = format!(
                "The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
            );
            refuse(why, 0)
        }
        allowed => {
            budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
            budget["status"]["disruptedPods"][pod] = json!(api::time::rfc3339(now));
            if allowed == 1 {
                no_more_allowed(budget, now);
            }
            Ok(())
        }
    }
}

fn no_more_allowed(budget: &mut Value, now: Timestamp) {
    let mut conditions = budget["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "DisruptionAllowed");
    conditions.push(json!({
        "type": "DisruptionAllowed",
        "status": "False",
        "reason": "InsufficientPods",
        "message": "",
        "observedGeneration": object::generation(budget),
        "lastTransitionTime": api::time::rfc3339(now),
    }));
    budget["status"]["conditions"] = Value::Array(conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_no_budget() {
        let pod = |phase: &str, ready: &str| json!({"metadata": {}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
        assert!(needs_no_budget(&pod("Pending", "False")) && !needs_no_budget(&pod("Running", "False")));
        let budget = |policy: &str, healthy: i64| json!({"spec": {"unhealthyPodEvictionPolicy": policy}, "status": {"currentHealthy": healthy, "desiredHealthy": 2}});
        let (ready, unready) = (pod("Running", "True"), pod("Running", "False"));
        assert!(!is_free_of(&budget("AlwaysAllow", 0), &ready));
        assert!(is_free_of(&budget("AlwaysAllow", 0), &unready));
        assert!(is_free_of(&budget("IfHealthyBudget", 2), &unready));
        assert!(!is_free_of(&budget("IfHealthyBudget", 1), &unready));
    }
}
