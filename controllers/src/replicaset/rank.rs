//! Which pods go first when there are too many.
//!
//! Upstream's order (`ActivePodsWithRanks`): unassigned, pending, not ready, cheap by annotation, crowded
//! on a node, recently ready, often restarted, recently created. Times are compared by powers of two, so
//! that pods of about the same age are chosen by uid, which spreads the loss over failure zones.

use super::Snapshot;
use crate::{
    owner,
    pod::{self, Pod},
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt;
use std::{cmp::Ordering, cmp::Reverse, collections::HashMap, sync::Arc};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Active pods of all ReplicaSets with the same controller as `set`.
pub fn related_pods(set: &ReplicaSet, view: &Snapshot) -> Vec<Arc<Pod>> {
    let uids: Vec<String> = view.related.iter().filter_map(|set| set.uid()).chain(set.uid()).collect();
    let is_related = |pod: &Pod| owner::controller_of(pod).is_some_and(|owner| uids.contains(&owner.uid));
    view.pods.iter().filter(|pod| pod::is_active(pod) && is_related(pod)).cloned().collect()
}

/// The `count` pods to delete first.
pub fn to_delete(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count == 0 {
        return Vec::new();
    }
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *crowd.entry(pod::node_name(pod)).or_default() += 1;
    }
    let rank = |pod: &Pod| crowd.get(pod::node_name(pod)).copied().unwrap_or(0);
    let mut sorted = pods.to_vec();
    sorted.sort_by(|a, b| first_to_go((a, rank(a)), (b, rank(b)), now));
    sorted.truncate(count);
    sorted
}

/// `Less` sorts the pod that goes first to the front.
fn first_to_go(a: (&Pod, usize), b: (&Pod, usize), now: Timestamp) -> Ordering {
    let ((a, crowd_a), (b, crowd_b)) = (a, b);
    let assigned = |pod: &Pod| !pod::node_name(pod).is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| pod::is_ready(a).cmp(&pod::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd_b.cmp(&crowd_a))
        .then_with(|| by_time(a, b, pod::ready_since(a), pod::ready_since(b), now))
        .then_with(|| Reverse(restarts(a)).cmp(&Reverse(restarts(b))))
        .then_with(|| by_time(a, b, created(a), created(b), now))
}

fn phase_rank(pod: &Pod) -> u8 {
    match pod::phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Most restarts of any one container.
fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|container| container.restart_count).max().unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.creation_timestamp().map(|time| time.0)
}

fn by_time(a: &Pod, b: &Pod, at_a: Option<Timestamp>, at_b: Option<Timestamp>, now: Timestamp) -> Ordering {
    match (at_a, at_b) {
        (Some(at_a), Some(at_b)) if at_a != at_b => {
            age_class(at_a, now).cmp(&age_class(at_b, now)).then_with(|| a.uid().cmp(&b.uid()))
        }
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

/// The power of two that the age in nanoseconds reaches; below any if it isn't past.
fn age_class(at: Timestamp, now: Timestamp) -> i32 {
    let nanos = now.as_nanosecond() - at.as_nanosecond();
    u128::try_from(nanos).ok().and_then(u128::checked_ilog2).map_or(-1, |class| class as i32)
}
