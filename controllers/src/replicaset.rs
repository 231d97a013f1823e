//! ReplicaSet: keeps as many matching pods as its spec says.
//!
//! What always holds: pods are counted together with those this process created and hasn't seen yet, so a
//! late cache never leads to too many; nothing is deleted while such a pod is outstanding; terminating and
//! finished pods don't count. Upstream's `pkg/controller/replicaset` gives the rules and the words.

pub mod rank;
mod status;

use crate::{
    expectations::Pending,
    owner::{self, Owned},
    plan::{Action, Plan, Target, to_value},
    pod::{self, Pod},
    template::{self, Named},
};
use api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetSpec},
    core::v1::ReplicationController,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// At most this many creates or deletes in one look; upstream's `BurstReplicas`.
const BURST: usize = 500;

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All pods of the namespace.
    pub pods: Vec<Arc<Pod>>,
    /// ReplicaSets with the same controller, itself included: where their pods run decides which to delete.
    pub related: Vec<Arc<ReplicaSet>>,
    /// Our own writes that `pods` doesn't show yet.
    pub pending: Pending,
}

/// A kind that keeps a number of pods: a ReplicaSet, or its elder with a plainer selector.
pub trait Replicated: Owned {
    /// The object as a ReplicaSet, with its own metadata.
    fn as_set(&self) -> ReplicaSet;

    /// The kind's status for that of a ReplicaSet.
    fn status_of(status: Value) -> Value {
        status
    }
}

impl Replicated for ReplicaSet {
    fn as_set(&self) -> ReplicaSet {
        self.clone()
    }
}

impl Replicated for ReplicationController {
    fn as_set(&self) -> ReplicaSet {
        let mut object = to_value(self);
        object["apiVersion"] = json!("apps/v1");
        object["kind"] = json!("ReplicaSet");
        let labels = object["spec"]["selector"].take();
        object["spec"]["selector"] = json!({"matchLabels": labels});
        serde_json::from_value(object).expect("both kinds have the same fields otherwise")
    }

    fn status_of(mut status: Value) -> Value {
        if let Some(fields) = status.as_object_mut() {
            fields.remove("terminatingReplicas");
        }
        status
    }
}

/// What to do for `owner` now.
pub fn reconcile<O: Replicated>(owner: &O, view: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let set = &owner.as_set();
    let spec = set.spec.clone();
    let Ok(selector) = LabelSelector::from_object(&spec.selector) else {
        // The API server refuses such a selector; there is nothing to retry.
        return plan;
    };
    if selector.is_empty() {
        // Upstream: a controller that selects everything manages nothing.
        return plan;
    }
    let pods = claimed(owner, &selector, view, &mut plan);
    let (terminating, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod::is_terminating(pod));
    let count = Count::of(&spec, &pods, &view.pending);
    let scale = if set.metadata.deletion_timestamp.is_some() {
        Vec::new()
    } else {
        scale(owner, set, &pods, view, &count, now)
    };
    let failure = view.pending.failure.as_deref().filter(|_| count.missing > 0);
    let status = status::of(set, &spec, &pods, terminating.len(), failure, now);
    let mut report = Plan::nothing();
    let old = O::status_of(to_value(&set.status.clone().unwrap_or_default()));
    report.status(Target::of(owner), &old, &O::status_of(to_value(&status)), "status");
    // The rest of a plan is dropped when a create fails, so a known failure is told before it is tried again.
    let ordered = if failure.is_some() { [report.actions, scale] } else { [scale, report.actions] };
    plan.actions.extend(ordered.into_iter().flatten());
    status::next_available(&pods, spec.min_ready_seconds.unwrap_or(0), now)
        .into_iter()
        .for_each(|when| plan.look_again(when));
    plan
}

/// Its pods that count or are terminating; finished ones are neither adopted nor counted.
fn claimed<O: Owned>(owner: &O, selector: &LabelSelector, view: &Snapshot, plan: &mut Plan) -> Vec<Arc<Pod>> {
    let deleted = |pod: &Pod| pod.uid().is_some_and(|uid| view.pending.deleted.contains(&uid));
    let candidates: Vec<Arc<Pod>> =
        view.pods.iter().filter(|pod| !pod::is_terminal(pod) && !deleted(pod)).cloned().collect();
    owner::claim(owner, selector, &candidates, plan)
}

/// How far the number of pods is from what is wanted; one of both is zero.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    missing: usize,
    surplus: usize,
}

impl Count {
    fn of(spec: &ReplicaSetSpec, pods: &[Arc<Pod>], pending: &Pending) -> Count {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let outstanding = pending.unseen(pods);
        // With a write outstanding the surplus isn't known for sure; its arrival makes us look again.
        let surplus = if outstanding > 0 { 0 } else { pods.len().saturating_sub(wanted) };
        Count { missing: wanted.saturating_sub(pods.len() + outstanding), surplus }
    }
}

fn scale<O: Owned>(
    owner: &O,
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    view: &Snapshot,
    count: &Count,
    now: Timestamp,
) -> Vec<Action> {
    let spec = &set.spec;
    if count.missing > 0 {
        let template = spec.template.clone().unwrap_or_default();
        let reason = format!("{} of {} replicas are missing", count.missing, spec.replicas.unwrap_or(1));
        let prefix = Named::From(format!("{}-", set.name_any()));
        let create = |_| template::create(owner, &template, prefix.clone(), reason.clone());
        return (0..count.missing.min(BURST)).map(create).collect();
    }
    let related = rank::related_pods(set, view);
    let victims = rank::to_delete(pods, &related, count.surplus.min(BURST), now);
    let reason = format!("{} more than {} replicas", count.surplus, spec.replicas.unwrap_or(1));
    victims.into_iter().map(|pod| template::delete(owner, &pod, reason.clone())).collect()
}
