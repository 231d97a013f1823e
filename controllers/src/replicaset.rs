//! ReplicaSet: keeps as many matching pods as its spec says.
//!
//! What always holds: pods are counted together with those this process created and hasn't seen yet, so a
//! late cache never leads to too many; nothing is deleted while such a pod is outstanding; terminating and
//! finished pods don't count. Upstream's `pkg/controller/replicaset` gives the rules and the words.

mod rank;
mod status;

use crate::{
    expectations::Pending,
    owner,
    plan::{Action, Announce, Plan, Target, to_value},
    pod,
};
use api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetSpec},
    core::v1::{Pod, PodTemplateSpec},
};
use kube::{Resource, ResourceExt, core::ApiResource};
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

/// What to do for `set` now.
pub fn reconcile(set: &ReplicaSet, view: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let spec = set.spec.clone();
    let Ok(selector) = LabelSelector::from_object(&spec.selector) else {
        // The API server refuses such a selector; there is nothing to retry.
        return plan;
    };
    let pods = claimed(set, &selector, view, &mut plan);
    let (terminating, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod::is_terminating(pod));
    let count = Count::of(&spec, &pods, &view.pending);
    let scale = if set.metadata.deletion_timestamp.is_some() {
        Vec::new()
    } else {
        scale(set, &spec, &pods, view, &count, now)
    };
    let failure = view.pending.failure.as_deref().filter(|_| count.missing > 0);
    let status = status::of(set, &spec, &pods, terminating.len(), failure, now);
    let mut report = Plan::nothing();
    report.status(Target::of(set), &set.status.clone().unwrap_or_default(), &status, "status");
    // The rest of a plan is dropped when a create fails, so a known failure is told before it is tried again.
    let ordered = if failure.is_some() { [report.actions, scale] } else { [scale, report.actions] };
    plan.actions.extend(ordered.into_iter().flatten());
    status::next_available(&pods, spec.min_ready_seconds.unwrap_or(0), now)
        .into_iter()
        .for_each(|when| plan.look_again(when));
    plan
}

/// Its pods that count or are terminating; finished ones are neither adopted nor counted.
fn claimed(set: &ReplicaSet, selector: &LabelSelector, view: &Snapshot, plan: &mut Plan) -> Vec<Arc<Pod>> {
    let deleted = |pod: &Pod| pod.uid().is_some_and(|uid| view.pending.deleted.contains(&uid));
    let candidates: Vec<Arc<Pod>> =
        view.pods.iter().filter(|pod| !pod::is_terminal(pod) && !deleted(pod)).cloned().collect();
    owner::claim(set, selector, &candidates, plan)
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

fn scale(
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    pods: &[Arc<Pod>],
    view: &Snapshot,
    count: &Count,
    now: Timestamp,
) -> Vec<Action> {
    if count.missing > 0 {
        let template = spec.template.clone().unwrap_or_default();
        let reason = format!("{} of {} replicas are missing", count.missing, spec.replicas.unwrap_or(1));
        return (0..count.missing.min(BURST)).map(|_| create(set, &template, &reason)).collect();
    }
    let related = rank::related_pods(set, view);
    let victims = rank::to_delete(pods, &related, count.surplus.min(BURST), now);
    let reason = format!("{} more than {} replicas", count.surplus, spec.replicas.unwrap_or(1));
    victims.into_iter().map(|pod| delete(set, &pod, &reason)).collect()
}

fn create(set: &ReplicaSet, template: &PodTemplateSpec, reason: &str) -> Action {
    Action::Create {
        kind: ApiResource::erase::<Pod>(&()),
        object: pod_of(set, template),
        announce: Some(announce(set)),
        reason: reason.to_owned(),
    }
}

fn delete(set: &ReplicaSet, pod: &Pod, reason: &str) -> Action {
    Action::Delete {
        target: Target::of(pod).in_any_state(),
        propagation: None,
        grace: None,
        announce: Some(announce(set)),
        reason: reason.to_owned(),
    }
}

fn announce(set: &ReplicaSet) -> Announce {
    Announce { regarding: set.object_ref(&()), noun: "pod" }
}

/// A pod of the template; its name is completed by the server.
fn pod_of(set: &ReplicaSet, template: &PodTemplateSpec) -> Value {
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": set.namespace(),
            "generateName": format!("{}-", set.name_any()),
            "ownerReferences": [owner::controller_reference(set)],
        },
        "spec": to_value(&template.spec),
    });
    let fields = [
        ("labels", to_value(&metadata.labels)),
        ("annotations", to_value(&metadata.annotations)),
        ("finalizers", to_value(&metadata.finalizers)),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        object["metadata"][name] = value;
    }
    object
}
