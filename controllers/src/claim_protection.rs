//! Claim protection: a PersistentVolumeClaim that a scheduled pod uses isn't gone before that pod has ended.
//! Upstream's `pkg/controller/volume/pvcprotection` gives the rules.

use crate::{
    plan::{Part, Plan, Target},
    pod::{self, Pod},
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use serde_json::json;
use std::sync::Arc;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// What to do for `claim`, given all pods of its namespace.
pub fn reconcile(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::nothing();
    let held = claim.finalizers().iter().any(|name| name == FINALIZER);
    let name = claim.name_any();
    let uses = |pod: &Arc<Pod>| {
        !pod::node_name(pod).is_empty() && !pod::is_terminal(pod) && pod::claims(pod).any(|used| used == name)
    };
    let ends = claim.metadata.deletion_timestamp.is_some();
    if ends && held && !pods.iter().any(uses) {
        let left: Vec<&String> = claim.finalizers().iter().filter(|name| *name != FINALIZER).collect();
        let patch = json!({"metadata": {"finalizers": left}});
        plan.patch(Target::of(claim), Part::Whole, patch, "no pod uses it any more");
    } else if !ends && !held {
        let all: Vec<&str> = claim.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        let patch = json!({"metadata": {"finalizers": all}});
        plan.patch(Target::of(claim), Part::Whole, patch, "a pod may use it");
    }
    plan
}
