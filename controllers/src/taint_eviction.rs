//! Taint eviction: deletes pods that don't tolerate a NoExecute taint of their node, when their time is over.
//!
//! What always holds: the time counts from when the taint was added, so a restart neither prolongs nor shortens
//! it; a taint that disappears in time cancels the eviction, since nothing but this look decides it. Of a taint that
//! doesn't say when it was added, as `kubectl taint` makes them, it counts from when the pod was first seen under it,
//! as upstream; a restart prolongs that.

use crate::{
    plan::{Action, Part, Plan, Severity, Target},
    pod::{self, Pod},
};
use api::self_fence;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, PodCondition, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;

/// When a pod was first seen under taints that don't say when they were added, by their keys.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<String, Timestamp>);

impl Seen {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, taints: &[&Taint], now: Timestamp) {
        let untimed = || taints.iter().filter(|taint| taint.time_added.is_none());
        self.0.retain(|key, _| untimed().any(|taint| taint.key == *key));
        for taint in untimed() {
            self.0.entry(taint.key.clone()).or_insert(now);
        }
    }

    fn since(&self, taint: &Taint) -> Timestamp {
        let added = taint.time_added.as_ref().map(|time| time.0);
        added.or_else(|| self.0.get(&taint.key).copied()).unwrap_or(Timestamp::MIN)
    }
}

/// What to do for `pod`, bound to `node`.
pub fn reconcile(pod: &Pod, node: &Node, seen: &mut Seen, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if pod::is_terminating(pod) {
        return plan;
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let taints: Vec<&Taint> = taints.filter(|taint| taint.effect == "NoExecute").collect();
    seen.note(&taints, now);
    let ends = taints
        .into_iter()
        .filter_map(|taint| tolerated_until(taint, tolerations, seen.since(taint)).map(|end| (end, taint)))
        .min_by_key(|(end, _)| *end);
    match ends {
        Some((end, taint)) if end <= now => evict(pod, taint, now, &mut plan),
        Some((end, _)) => plan.look_again(end),
        None => {}
    }
    plan
}

/// Until when the taint is tolerated; none if for ever.
fn tolerated_until(taint: &Taint, tolerations: &[Toleration], since: Timestamp) -> Option<Timestamp> {
    let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
        return Some(Timestamp::MIN);
    };
    let seconds = toleration.toleration_seconds?;
    if seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    Some(since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}

/// True if the toleration bears the taint, whatever its effect.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let same_effect =
        toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect);
    let key = toleration.key.as_deref().unwrap_or_default();
    let same_key = key.is_empty() || key == taint.key;
    let same_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
    };
    same_effect && same_key && same_value
}

fn evict(pod: &Pod, taint: &Taint, now: Timestamp, plan: &mut Plan) {
    let message =
        format!("Marking for deletion Pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    plan.event(pod.object_ref(&()), Severity::Normal, "TaintManagerEviction", message);
    let reason = format!("its node has the taint {}:{}", taint.key, taint.effect);
    let condition = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
    disrupt(pod, condition, now, plan);
    plan.push(Action::Delete {
        target: Target::of(pod).in_any_state(),
        propagation: None,
        grace: least_grace(pod),
        announce: None,
        reason,
    });
}

/// A grace of zero would take the object away while the pod may still run: who fences himself is only asked to end,
/// and given up by the pod garbage collector.
fn least_grace(pod: &Pod) -> Option<u32> {
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    (own == Some(0) && self_fence::asks(pod.metadata.annotations.as_ref())).then_some(1)
}

/// Says in the pod's conditions why it is being ended from outside, which Jobs rely on.
pub fn disrupt(pod: &Pod, (reason, message): (&str, &str), now: Timestamp, plan: &mut Plan) {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    plan.patch(Target::of(pod), Part::Status, json!({"status": {"conditions": conditions}}), message);
}
