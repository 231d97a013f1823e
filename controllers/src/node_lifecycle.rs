//! Node lifecycle: a node that no longer renews its lease is marked, tainted, and its pods with it.
//!
//! What always holds: silence is measured by our own clock since *we* last saw the lease or the node's
//! heartbeat change, never by comparing clocks of two machines; before a node is marked, the server is asked
//! whether its lease is still the one we know, so a late watch is no reason to evict; when a whole zone goes
//! silent, the zone brake keeps pods where they are. Upstream's `pkg/controller/nodelifecycle` gives the
//! rules; the times are configurable.

mod census;
mod taints;
mod turns;
mod zone;

pub use census::Census;
pub use turns::Turns;
pub use zone::{Zone, ZoneState, zone_of};

use crate::{
    plan::{Action, Part, Plan, Presence, Severity, Target},
    pod::{self, Pod},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, PodCondition},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How patient the controller is.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeTimes {
    /// Silence after which a node is marked as not ready. Upstream: 50 s.
    pub grace: Duration,
    /// The same for a node that has never been ready. Upstream: 60 s.
    pub startup_grace: Duration,
    /// Nodes per second whose pods may be evicted in a healthy zone. Upstream: 0.1.
    pub eviction_rate: f64,
    /// The same in a big zone that is partly silent. Upstream: 0.01.
    pub secondary_eviction_rate: f64,
    /// Up to this many nodes a zone is small, and isn't evicted at all while partly silent. Upstream: 50.
    pub large_zone: usize,
    /// Share of silent nodes from which a zone is partly silent. Upstream: 0.55.
    pub unhealthy_zone: f64,
}

impl NodeTimes {
    /// The figures of kube-controller-manager.
    pub fn upstream() -> NodeTimes {
        NodeTimes {
            grace: Duration::from_secs(50),
            startup_grace: Duration::from_secs(60),
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            large_zone: 50,
            unhealthy_zone: 0.55,
        }
    }
}

/// What a reconcile sees beside its node.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The node's lease in `kube-node-lease`.
    pub lease: Option<Arc<Lease>>,
    /// When we last saw the lease or the node's heartbeat change.
    pub heard: Timestamp,
    /// The pods bound to it.
    pub pods: Vec<Arc<Pod>>,
    /// How its zone is.
    pub zone: ZoneState,
    /// When the next eviction in its zone is allowed.
    pub evict_from: Timestamp,
}

/// The conditions that only a living kubelet can vouch for.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What to do for `node` now.
pub fn reconcile(node: &Node, view: &Snapshot, times: &NodeTimes, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let silent_from = view.heard + grace_of(node, view.lease.as_deref(), times);
    let silent = silent_from <= now;
    if !silent {
        plan.look_again(silent_from);
    }
    let conditions = if silent { unvouched(node, now) } else { conditions_of(node) };
    let was_marked = conditions == conditions_of(node);
    if silent && !was_marked {
        confirm_silence(node, view, &mut plan);
        let patch = json!({"status": {"conditions": conditions}});
        plan.patch(Target::of(node), Part::Status, patch, "it is silent");
        if ready_of(node) == Some("True") {
            plan.event(node.object_ref(&()), Severity::Normal, "NodeNotReady", "Node is not ready");
        }
    }
    taint(node, &conditions, view, times, now, &mut plan);
    if status_of_ready(&conditions) != Some("True") {
        mark_pods(&view.pods, now, &mut plan);
    }
    plan
}

/// The Ready condition's status.
pub fn ready_of(node: &Node) -> Option<&str> {
    status_of_ready(node.status.as_ref()?.conditions.as_ref()?)
}

fn status_of_ready(conditions: &[NodeCondition]) -> Option<&str> {
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.as_str())
}

fn conditions_of(node: &Node) -> Vec<NodeCondition> {
    node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default()
}

/// How long a node may be silent. A lease that is promised to hold longer than our patience is believed
/// (upstream doesn't ask; its kubelets promise less): simulated nodes renew theirs seldom.
pub fn grace_of(node: &Node, lease: Option<&Lease>, times: &NodeTimes) -> SignedDuration {
    let grace = if ready_of(node).is_some() { times.grace } else { times.startup_grace };
    let promised = lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds).unwrap_or(0);
    SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX).max(promise_of(promised))
}

/// Promises of up to a minute are what every kubelet makes, however fast the cluster's clock is set.
fn promise_of(seconds: i32) -> SignedDuration {
    if seconds > 60 { SignedDuration::from_secs(seconds.into()) } else { SignedDuration::ZERO }
}

/// The conditions with Unknown for each that nobody vouches for any more.
fn unvouched(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let mut conditions = conditions_of(node);
    for type_ in VOUCHED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
            None => conditions.push(never_posted(node, type_, now)),
        }
    }
    conditions
}

fn never_posted(node: &Node, type_: &str, now: Timestamp) -> NodeCondition {
    NodeCondition {
        type_: type_.to_owned(),
        status: "Unknown".to_owned(),
        reason: Some("NodeStatusNeverUpdated".to_owned()),
        message: Some("Kubelet never posted node status.".to_owned()),
        last_heartbeat_time: node.creation_timestamp(),
        last_transition_time: Some(Time(now)),
    }
}

/// A lease that was renewed meanwhile makes the whole plan void.
fn confirm_silence(node: &Node, view: &Snapshot, plan: &mut Plan) {
    if let Some(lease) = &view.lease {
        plan.push(Action::Confirm {
            target: Target::of(&**lease),
            expected: Presence::Unchanged,
            reason: format!("only a node that is silent to the server, too, is marked: {}", node.name_any()),
        });
    }
}

fn taint(
    node: &Node,
    conditions: &[NodeCondition],
    view: &Snapshot,
    times: &NodeTimes,
    now: Timestamp,
    plan: &mut Plan,
) {
    let ready = status_of_ready(conditions);
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted = taints::no_schedule(node, conditions, &current, now);
    let evicts = taints::evicting(ready);
    let evicted_already = taints::has_evicting(&current);
    match evicts {
        // With every zone silent the fault is likely ours: nobody is evicted, and nobody stays so.
        Some(_) if view.zone == ZoneState::AllSilent => {
            may_evict(view, times, now, plan);
            taints::keep_evicting(None, &mut wanted, now);
        }
        // A node already being evicted only changes the reason; upstream swaps without asking the brake.
        Some(_) if evicted_already || may_evict(view, times, now, plan) => {
            taints::keep_evicting(evicts, &mut wanted, now)
        }
        Some(_) => {}
        None => taints::keep_evicting(None, &mut wanted, now),
    }
    if wanted != current {
        let patch = json!({"spec": {"taints": wanted}});
        plan.patch(Target::of(node), Part::Whole, patch, format!("Ready is {}", ready.unwrap_or("missing")));
    }
}

fn may_evict(view: &Snapshot, times: &NodeTimes, now: Timestamp, plan: &mut Plan) -> bool {
    match view.zone {
        ZoneState::Stopped | ZoneState::AllSilent => {
            // A brake that was pulled by nodes that were only late is released by their next renewals,
            // which don't lead here.
            plan.look_again(now + SignedDuration::try_from(times.grace / 2).unwrap_or(SignedDuration::MAX));
            false
        }
        ZoneState::Normal | ZoneState::Slow if view.evict_from > now => {
            plan.look_again(view.evict_from);
            false
        }
        ZoneState::Normal | ZoneState::Slow => true,
    }
}

/// Whether [`reconcile`] will ask how the node's zone is: of a node that is heard of and ready it doesn't.
pub fn asks_for_zone(
    node: &Node,
    lease: Option<&Lease>,
    heard: Timestamp,
    times: &NodeTimes,
    now: Timestamp,
) -> bool {
    heard + grace_of(node, lease, times) <= now || taints::evicting(ready_of(node)).is_some()
}

/// True if the pods of the node are being evicted by this controller.
pub fn is_evicted(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    taints::has_evicting(taints.unwrap_or_default())
}

/// True if `plan` starts evicting the pods of a node, which uses up the zone's allowance.
pub fn starts_eviction(node: &Node, plan: &Plan) -> bool {
    let adds = |action: &Action| match action {
        Action::Patch { part: Part::Whole, patch, .. } => patch.to_string().contains("NoExecute"),
        _ => false,
    };
    !is_evicted(node) && plan.actions.iter().any(adds)
}

/// Pods of a node that isn't ready can't be counted on: they are taken out of Services at once.
fn mark_pods(pods: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    for pod in pods.iter().filter(|pod| pod::is_ready(pod)) {
        let mut conditions: Vec<PodCondition> =
            pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        for ready in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
            ready.status = "False".to_owned();
            ready.last_transition_time = Some(Time(now));
        }
        let patch = json!({"status": {"conditions": conditions}});
        plan.patch(Target::of(&**pod), Part::Status, patch, "its node is not ready");
        plan.event(pod.object_ref(&()), Severity::Warning, "NodeNotReady", "Node is not ready");
    }
}
