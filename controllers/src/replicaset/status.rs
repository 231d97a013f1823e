//! What a ReplicaSet says about its pods.

use crate::pod::{self, Pod};
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use std::sync::Arc;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status that `set` should have with these active `pods`.
pub fn of(
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    pods: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &Pod| pod::available_at(pod, min_ready).is_some_and(|when| when <= now);
    let labels = spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let labels = labels.unwrap_or_default();
    let labelled = |pod: &Pod| labels.iter().all(|(name, value)| pod.labels().get(name) == Some(value));
    let count = |counts: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| counts(pod)).count();
    ReplicaSetStatus {
        replicas: pods.len() as i32,
        fully_labeled_replicas: nonzero(count(&labelled)),
        ready_replicas: nonzero(count(&pod::is_ready)),
        available_replicas: nonzero(count(&available)),
        terminating_replicas: Some(terminating as i32),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    }
}

/// When the next ready pod will count as available; none if no time has to pass for any.
pub fn next_available(pods: &[Arc<Pod>], min_ready: i32, now: Timestamp) -> Option<Timestamp> {
    pods.iter().filter_map(|pod| pod::available_at(pod, min_ready)).filter(|when| *when > now).min()
}

/// Zero isn't written, as upstream's `omitempty` has it.
fn nonzero(count: usize) -> Option<i32> {
    (count > 0).then_some(count as i32)
}

fn conditions(set: &ReplicaSet, failure: Option<&str>, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    let known = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let old = known.iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE)).cloned();
    let mut conditions: Vec<ReplicaSetCondition> =
        known.into_iter().filter(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE)).collect();
    // Upstream keeps the first failure's condition as long as it lasts.
    conditions.extend(failure.map(|message| old.unwrap_or_else(|| replica_failure(message, now))));
    (!conditions.is_empty()).then_some(conditions)
}

fn replica_failure(message: &str, now: Timestamp) -> ReplicaSetCondition {
    ReplicaSetCondition {
        type_: Some(REPLICA_FAILURE.to_owned()),
        status: Some("True".to_owned()),
        reason: Some("FailedCreate".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
    }
}
