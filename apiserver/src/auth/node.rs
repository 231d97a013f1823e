//! What a node may do: the node authorizer.
//!
//! A node reads what its pods need, one by one and by name ([`NodeGraph`]), and writes only itself, its lease,
//! its pods' status and events. What can't be seen from a request's path is for admission (NodeRestriction).

use super::node_graph::NodeGraph;
use super::{Attributes, Identity};
use crate::pki::NODES_GROUP;

const USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

const READ: &[&str] = &["get", "list", "watch"];
const CREATE: &[&str] = &["create"];

/// What any node may do: group, resource with subresource, verbs.
const ANY_NODE: &[(&str, &str, &[&str])] = &[
    ("", "nodes", READ),
    ("", "services", READ),
    ("", "pods", READ),
    ("", "pods", &["create", "delete"]),
    ("", "pods/status", &["update", "patch"]),
    ("", "pods/eviction", CREATE),
    ("", "nodes", CREATE),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("", "persistentvolumes", &["get"]),
    ("node.k8s.io", "runtimeclasses", READ),
    ("storage.k8s.io", "csidrivers", READ),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("certificates.k8s.io", "clustertrustbundles", READ),
    ("authentication.k8s.io", "tokenreviews", CREATE),
    ("authorization.k8s.io", "subjectaccessreviews", CREATE),
];

/// The name of the node that `who` is, if it is one.
pub fn node_of(who: &Identity) -> Option<&str> {
    who.user.strip_prefix(USER_PREFIX).filter(|_| who.is_in(NODES_GROUP))
}

/// Whether `who` is a node and may do this as one.
pub(super) fn allows(graph: &NodeGraph, who: &Identity, act: &Attributes<'_>) -> bool {
    let Some(node) = node_of(who) else { return false };
    act.is_resource
        && (allows_any(act)
            || serves_its_pods(graph, node, act)
            || writes_itself(node, act)
            || owns_lease(node, act))
}

fn allows_any(act: &Attributes<'_>) -> bool {
    let resource = act.resource_path();
    let rows = ANY_NODE.iter().filter(|(group, row, _)| *group == act.group && *row == resource);
    rows.flat_map(|(_, _, verbs)| verbs.iter()).any(|verb| *verb == act.verb)
}

/// What is named, and one of the node's pods needs it.
fn serves_its_pods(graph: &NodeGraph, node: &str, act: &Attributes<'_>) -> bool {
    let verbs: &[&str] = match act.resource_path().as_str() {
        "secrets" | "configmaps" => READ,
        "persistentvolumeclaims" | "serviceaccounts" => &["get"],
        "serviceaccounts/token" => CREATE,
        _ => return false,
    };
    act.group.is_empty()
        && verbs.contains(&act.verb)
        && graph.needs(node, act.resource, act.namespace, act.name)
}

fn writes_itself(node: &str, act: &Attributes<'_>) -> bool {
    let resource = act.resource_path();
    act.group.is_empty()
        && act.name == node
        && match resource.as_str() {
            "nodes" => matches!(act.verb, "update" | "patch"),
            "nodes/status" => matches!(act.verb, "update" | "patch"),
            _ => false,
        }
}

/// The name isn't known yet when a lease is created; admission checks it there.
fn owns_lease(node: &str, act: &Attributes<'_>) -> bool {
    let ours = act.group == "coordination.k8s.io" && act.resource_path() == "leases";
    let named = act.name == node && matches!(act.verb, "get" | "update" | "patch" | "delete");
    ours && act.namespace == LEASE_NAMESPACE && (named || act.verb == "create")
}
