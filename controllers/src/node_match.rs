//! Whether a node is one that a pod's node selector and required node affinity allow.

use api::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use kube::ResourceExt;

/// True if the pod may run on the node, taints and resources aside.
pub fn fits(spec: &PodSpec, node: &Node) -> bool {
    let selected =
        spec.node_selector.iter().flatten().all(|(name, value)| node.labels().get(name) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|terms| terms.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_label = |wanted: &NodeSelectorRequirement| {
        accepts(wanted, node.labels().get(&wanted.key).map(String::as_str))
    };
    let by_field = |wanted: &NodeSelectorRequirement| {
        wanted.key == "metadata.name" && accepts(wanted, node.metadata.name.as_deref())
    };
    (!labels.is_empty() || !fields.is_empty()) && labels.iter().all(by_label) && fields.iter().all(by_field)
}

fn accepts(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match wanted.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return false,
    };
    let values = wanted.values.clone().unwrap_or_default();
    Requirement::new(&wanted.key, operator, values).is_ok_and(|requirement| requirement.accepts(value))
}
