//! Pod garbage collector: removes pods that no kubelet will ever finish.
//!
//! What always holds: a pod is forced away only if its node doesn't exist on the server either, is declared out
//! of service, or was never assigned; a pod on a silent node stays, because it may still run there.

use crate::{
    plan::{Action, Part, Plan, Presence, Target},
    pod::{self, Pod},
    taint_eviction::disrupt,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::core::ApiResource;
use serde_json::json;
use std::sync::Arc;

/// What a reconcile sees beside its pod.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The pod's node, if it exists.
    pub node: Option<Arc<Node>>,
    /// Since when we have known the node to be missing.
    pub missing_since: Option<Timestamp>,
}

/// What to do for `pod`; `quarantine` is how long a node must be missing. Upstream: 40 s.
pub fn reconcile(pod: &Pod, view: &Snapshot, quarantine: SignedDuration, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let name = pod::node_name(pod);
    match (&view.node, pod::is_terminating(pod)) {
        _ if name.is_empty() && pod::is_terminating(pod) => {
            force(pod, "it was never assigned to a node", &mut plan)
        }
        _ if name.is_empty() => {}
        (None, _) => orphaned(pod, name, view, quarantine, now, &mut plan),
        (Some(node), true) if is_out_of_service(node) => {
            fail(pod, &mut plan);
            force(pod, "its node is out of service", &mut plan);
        }
        (Some(_), _) => {}
    }
    plan
}

fn orphaned(
    pod: &Pod,
    node: &str,
    view: &Snapshot,
    quarantine: SignedDuration,
    now: Timestamp,
    plan: &mut Plan,
) {
    let from = view.missing_since.unwrap_or(now) + quarantine;
    if from > now {
        plan.look_again(from);
        return;
    }
    plan.push(Action::Confirm {
        target: Target::named(ApiResource::erase::<Node>(&()), "", node, ""),
        expected: Presence::Gone,
        reason: "pods of a node that the server has are left alone".to_owned(),
    });
    if !pod::is_terminal(pod) {
        disrupt(pod, ("DeletionByPodGC", "PodGC: node no longer exists"), now, plan);
        fail(pod, plan);
    }
    force(pod, "its node no longer exists", plan);
}

/// A node that an administrator has declared as surely off.
fn is_out_of_service(node: &Node) -> bool {
    let ready = crate::node_lifecycle::ready_of(node) == Some("True");
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    !ready && taints.into_iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service")
}

fn fail(pod: &Pod, plan: &mut Plan) {
    if !pod::is_terminal(pod) {
        plan.patch(
            Target::of(pod),
            Part::Status,
            json!({"status": {"phase": "Failed"}}),
            "nobody runs it any more",
        );
    }
}

fn force(pod: &Pod, reason: &str, plan: &mut Plan) {
    plan.push(Action::Delete {
        target: Target::of(pod).in_any_state(),
        propagation: None,
        grace: Some(0),
        announce: None,
        reason: reason.to_owned(),
    });
}
