//! Pod garbage collector: removes pods that no kubelet will ever finish.
//!
//! What always holds: a pod is forced away only if its node doesn't exist on the server either, is declared out
//! of service, or was never assigned; a pod on a silent node stays, because it may still run there, unless it fences
//! itself and the node's last promise is surely over ([`api::self_fence`]).

use crate::{
    plan::{Action, Part, Plan, Presence, Target},
    pod::{self, Pod},
    taint_eviction::disrupt,
};
use api::self_fence::{self, Silence, Verdict, asks};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
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
    /// The node's Lease and what its silence means, for a pod that fences itself.
    pub silence: Option<(Arc<Lease>, Silence)>,
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
        (Some(node), terminating) if asks(pod.metadata.annotations.as_ref()) && is_silent(node) => {
            if terminating || !pod::is_terminal(pod) {
                fenced(pod, view, now, &mut plan);
            }
        }
        (Some(_), _) => {}
    }
    plan
}

/// A pod that ends by itself when its node is silent is surely over some time after the node's last promise: nothing
/// is gained by waiting for the end of its tolerations.
fn fenced(pod: &Pod, view: &Snapshot, now: Timestamp, plan: &mut Plan) {
    let Some((lease, silence)) = &view.silence else { return };
    let target = Target::of(&**lease);
    match silence.verdict(now) {
        Verdict::Wait { until } => {
            until.into_iter().for_each(|until| plan.look_again(until));
            return;
        }
        Verdict::GiveUp => {
            let mark = json!({"metadata": {"annotations": {self_fence::GIVEN_UP: self_fence::SILENT}}});
            plan.patch(target, Part::Whole, mark, "its node's promise is over");
        }
        Verdict::GivenUp => plan.push(Action::Confirm {
            target,
            expected: Presence::Unchanged,
            reason: "a node that is back has seen to its pods".to_owned(),
        }),
    }
    if !pod::is_terminal(pod) {
        disrupt(pod, (self_fence::REASON, "PodGC: the pod has fenced itself on a silent node"), now, plan);
        fail(pod, plan);
    }
    force(pod, "it has fenced itself", plan);
}

fn is_silent(node: &Node) -> bool {
    crate::node_lifecycle::ready_of(node) == Some("Unknown")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn typed<K: serde::de::DeserializeOwned>(object: serde_json::Value) -> K {
        serde_json::from_value(object).expect("an object")
    }

    fn pod(asks: bool, phase: &str) -> Pod {
        let annotations = if asks { json!({self_fence::ANNOTATION: "true"}) } else { json!({}) };
        typed(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "resourceVersion": "1",
                "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": phase},
        }))
    }

    /// A lease of 40 seconds that was seen first at second 100.
    fn silence(annotations: serde_json::Value) -> (Arc<Lease>, Silence) {
        let lease: Lease = typed(json!({
            "metadata": {"name": "n1", "namespace": "kube-node-lease", "uid": "l", "resourceVersion": "7",
                "annotations": annotations},
            "spec": {"leaseDurationSeconds": 40},
        }));
        let silence = Silence::of(&lease, at(100));
        (Arc::new(lease), silence)
    }

    /// What is done about the pod at second `now`, whose node has this Ready condition.
    fn about(pod: &Pod, ready: &str, lease: serde_json::Value, now: i64) -> Vec<String> {
        let node = typed(json!({
            "metadata": {"name": "n1"},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }));
        let view =
            Snapshot { node: Some(Arc::new(node)), missing_since: None, silence: Some(silence(lease)) };
        let plan = reconcile(pod, &view, SignedDuration::from_secs(40), at(now)).to_string();
        plan.lines().map(str::to_owned).collect()
    }

    #[test]
    fn who_fences_himself_is_given_up_when_the_promise_is_surely_over() {
        let (kept, running) = (json!({self_fence::ANNOTATION: "true"}), pod(true, "Running"));
        let early = about(&running, "Unknown", kept.clone(), 120);
        assert_eq!(early, ["look again at 1970-01-01T00:02:22.4Z"], "40 s, 1 % and 2 s");
        let done = about(&running, "Unknown", kept.clone(), 143);
        let mark = "patch leases kube-node-lease/n1 [uid l v7] {\"metadata\":{\"annotations\":\
            {\"amoeba.dev/given-up\":\"silent\"}}}: its node's promise is over";
        assert_eq!(done[0], mark);
        assert!(done[1].starts_with("patch status of pods d/p [uid u v1]"), "{done:?}");
        assert_eq!(
            done.last().map(String::as_str),
            Some("delete pods d/p [uid u] grace=0: it has fenced itself")
        );
        // Another pod of the node, once it is marked.
        let marked = json!({self_fence::ANNOTATION: "true", self_fence::GIVEN_UP: self_fence::SILENT});
        let done = about(&running, "Unknown", marked, 143);
        assert!(done[0].starts_with("confirm leases kube-node-lease/n1 [uid l v7] is unchanged"), "{done:?}");
    }

    #[test]
    fn nobody_else_is() {
        let kept = json!({self_fence::ANNOTATION: "true"});
        let nothing: [String; 1] = ["nothing".to_owned()];
        assert_eq!(about(&pod(true, "Running"), "True", kept.clone(), 143), nothing, "the node lives");
        assert_eq!(about(&pod(false, "Running"), "Unknown", kept.clone(), 9999), nothing, "it didn't ask");
        assert_eq!(about(&pod(true, "Succeeded"), "Unknown", kept, 9999), nothing, "it is over");
        let other = about(&pod(true, "Running"), "Unknown", json!({}), 9999);
        assert_eq!(other, nothing, "nobody on that node would end it");
    }
}
