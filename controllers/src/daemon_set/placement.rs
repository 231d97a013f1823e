//! Where a DaemonSet's pods belong, and how they are bound there.

use super::node_match;
use crate::{
    history::{POD_REVISION, Revision},
    pod::{self, Pod},
    taint_eviction::tolerates,
};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{
        Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PodTemplateSpec, Taint,
        Toleration,
    },
};
use kube::ResourceExt;

const GENERATION: &str = "deprecated.daemonset.template.generation";
const NODE_FIELD: &str = "metadata.name";

/// What every daemon pod tolerates, as upstream has it.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// It should have a pod.
    pub should_run: bool,
    /// A pod that is there may stay.
    pub may_stay: bool,
}

/// What a set asks of nodes; made once for all of them.
pub struct Demands {
    spec: PodSpec,
    tolerations: Vec<Toleration>,
}

impl Demands {
    /// By the template's node name, selector, affinity and tolerations.
    pub fn of(set: &DaemonSet) -> Demands {
        let spec = set.spec.template.spec.clone().unwrap_or_default();
        Demands { tolerations: tolerations(&spec), spec }
    }

    /// What `node` is to the set.
    pub fn judge(&self, node: &Node) -> Placement {
        let named =
            self.spec.node_name.as_ref().is_none_or(|name| name.is_empty() || *name == node.name_any());
        if !named || !node_match::fits(&self.spec, node) {
            return Placement { should_run: false, may_stay: false };
        }
        let bears = |taint: &Taint| self.tolerations.iter().any(|toleration| tolerates(toleration, taint));
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let unborne: Vec<&str> =
            taints.filter(|taint| !bears(taint)).map(|taint| taint.effect.as_str()).collect();
        Placement {
            should_run: !unborne.iter().any(|effect| matches!(*effect, "NoSchedule" | "NoExecute")),
            may_stay: !unborne.contains(&"NoExecute"),
        }
    }
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let network = (spec.host_network == Some(true)).then_some(NO_NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    tolerations
}

/// The template of the pod for one node: the scheduler may choose no other.
pub fn template_for(set: &DaemonSet, revision: &Revision, node: &str) -> PodTemplateSpec {
    let mut template = revision.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_REVISION.to_owned(), revision.hash.clone());
    if let Some(generation) = set.annotations().get(GENERATION) {
        labels.insert("pod-template-generation".to_owned(), generation.clone());
    }
    let spec = template.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    bind(spec, node);
    template
}

/// Every required term becomes one for this node: what the node must be like was checked already.
fn bind(spec: &mut PodSpec, node: &str) {
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let requirement = NodeSelectorRequirement {
        key: NODE_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a daemon pod is on, or is meant for.
pub fn node_of(pod: &Pod) -> String {
    let bound = pod::node_name(pod);
    if !bound.is_empty() {
        return bound.to_owned();
    }
    let terms = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|selector| selector.node_selector_terms.as_slice())
        .unwrap_or_default();
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find(|field| field.key == NODE_FIELD && field.operator == "In");
    named.and_then(|field| field.values.as_ref()?.first().cloned()).unwrap_or_default()
}
