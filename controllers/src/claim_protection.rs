//! Claim protection: a PersistentVolumeClaim that a scheduled pod uses isn't gone before that pod has ended.
//! Upstream's `pkg/controller/volume/pvcprotection` gives the rules.

use crate::{
    plan::Plan,
    pod::{self, Pod},
    protection,
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use std::sync::Arc;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// What to do for `claim`, given all pods of its namespace.
pub fn reconcile(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Plan {
    let name = claim.name_any();
    let uses = |pod: &Arc<Pod>| {
        !pod::node_name(pod).is_empty() && !pod::is_terminal(pod) && pod::claims(pod).any(|used| used == name)
    };
    let reasons = ["a pod may use it", "no pod uses it any more"];
    protection::reconcile(claim, FINALIZER, reasons, || pods.iter().any(uses))
}
