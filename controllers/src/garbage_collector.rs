//! Garbage collector: deletes what no living owner holds, and finishes foreground and orphaning deletions.
//!
//! What always holds: an object is deleted only after the server itself has confirmed that each of its owners
//! is gone *by uid*, so a late cache or a reused name costs nothing; the deletion names the object's uid and
//! version; an owner counts only in the dependent's own namespace (or cluster-wide). Upstream's
//! `pkg/controller/garbagecollector` gives the rules.

mod graph;

pub use graph::{Graph, Node};

use crate::plan::{Action, Part, Plan, Presence, Severity, Target};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{api::PropagationPolicy, core::ApiResource};
use serde_json::json;
use std::sync::Arc;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What to do about the object `uid`.
pub fn reconcile(uid: &str, graph: &Graph) -> Plan {
    let mut plan = Plan::nothing();
    let Some(node) = graph.node(uid) else { return plan };
    match (node.deleting, node.has_finalizer(FOREGROUND), node.has_finalizer(ORPHAN)) {
        (true, _, true) => orphan_dependents(node, graph, &mut plan),
        (true, true, false) => finish_foreground(node, graph, &mut plan),
        // The API server and others' finalizers are at work.
        (true, false, false) => {}
        (false, ..) => collect(node, graph, &mut plan),
    }
    plan
}

/// What the owners of an object are.
#[derive(Debug, Default)]
struct Owners<'a> {
    /// They live, and hold it.
    solid: Vec<&'a OwnerReference>,
    /// The server has confirmed that they are gone, or this plan will have it confirmed.
    dangling: Vec<&'a OwnerReference>,
    /// They are deleted in the foreground and wait for it.
    waiting: Vec<&'a OwnerReference>,
    /// Their kind isn't known: nothing can be said about them.
    unknown: Vec<&'a OwnerReference>,
}

fn collect(node: &Node, graph: &Graph, plan: &mut Plan) {
    if node.owners.is_empty() {
        return;
    }
    let owners = classify(node, graph, plan);
    if !owners.unknown.is_empty() {
        *plan = Plan::nothing();
    } else if !owners.solid.is_empty() {
        drop_references(node, &owners, plan);
    } else if !owners.waiting.is_empty() && graph.has_dependents(&node.uid) {
        delete_with_dependents(node, graph, plan);
    } else {
        delete(node, plan);
    }
}

fn classify<'a>(node: &'a Node, graph: &Graph, plan: &mut Plan) -> Owners<'a> {
    let mut owners = Owners::default();
    for owner in &node.owners {
        match graph.node(&owner.uid) {
            Some(found) if found.answers_to(owner, &node.namespace) => {
                if found.deleting && found.has_finalizer(FOREGROUND) {
                    owners.waiting.push(owner);
                } else {
                    owners.solid.push(owner);
                }
            }
            found => match graph.kind(&owner.api_version, &owner.kind) {
                None => owners.unknown.push(owner),
                Some(kind) => {
                    owners.dangling.push(owner);
                    confirm_absent(node, owner, kind, found.is_some(), graph, plan);
                }
            },
        }
    }
    owners
}

/// The graph may be late: only the server knows that an owner is gone. A uid never comes back, so once is
/// enough.
fn confirm_absent(
    node: &Node,
    owner: &OwnerReference,
    (kind, namespaced): &(Arc<ApiResource>, bool),
    elsewhere: bool,
    graph: &Graph,
    plan: &mut Plan,
) {
    if *namespaced && node.namespace.is_empty() {
        let message = format!("ownerRef {} {} is namespaced, its dependent is not", owner.kind, owner.name);
        plan.event(reference(node), Severity::Warning, "OwnerRefInvalidNamespace", message);
    } else if elsewhere {
        let message = format!(
            "ownerRef {} {} does not exist in namespace {:?}",
            owner.kind, owner.name, node.namespace
        );
        plan.event(reference(node), Severity::Warning, "OwnerRefInvalidNamespace", message);
    }
    if !graph.is_absent(&owner.uid) {
        let namespace = if *namespaced { node.namespace.as_str() } else { "" };
        plan.push(Action::Confirm {
            target: Target::named(ApiResource::clone(kind), namespace, &owner.name, &owner.uid),
            expected: Presence::Gone,
            reason: format!("{} {} depends on it", node.kind.plural, node.name),
        });
    }
}

/// It has a living owner: it only loses the references to the others.
fn drop_references(node: &Node, owners: &Owners<'_>, plan: &mut Plan) {
    let lost: Vec<&str> =
        owners.dangling.iter().chain(&owners.waiting).map(|owner| owner.uid.as_str()).collect();
    if lost.is_empty() {
        return;
    }
    let left: Vec<&OwnerReference> =
        node.owners.iter().filter(|owner| !lost.contains(&owner.uid.as_str())).collect();
    let patch = json!({"metadata": {"ownerReferences": left}});
    plan.patch(node.target(), Part::Whole, patch, "these owners are gone, another still holds it");
}

/// Its owner waits for it, and others wait for it in turn. A dependent that is itself waiting closes a
/// cycle, which only ends if nobody's reference blocks any more.
fn delete_with_dependents(node: &Node, graph: &Graph, plan: &mut Plan) {
    let in_cycle = graph
        .dependents(&node.uid)
        .any(|dependent| dependent.deleting && dependent.has_finalizer(FOREGROUND));
    if in_cycle && node.owners.iter().any(|owner| owner.block_owner_deletion == Some(true)) {
        let owners: Vec<OwnerReference> = node
            .owners
            .iter()
            .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() })
            .collect();
        let patch = json!({"metadata": {"ownerReferences": owners}});
        plan.patch(node.target(), Part::Whole, patch, "its owner and its dependent wait for each other");
    }
    push_delete(
        node,
        PropagationPolicy::Foreground,
        "its owner waits for it, and it for its dependents",
        plan,
    );
}

fn delete(node: &Node, plan: &mut Plan) {
    let policy = if node.has_finalizer(ORPHAN) {
        PropagationPolicy::Orphan
    } else if node.has_finalizer(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    push_delete(node, policy, "no owner holds it", plan);
}

fn push_delete(node: &Node, policy: PropagationPolicy, reason: &str, plan: &mut Plan) {
    plan.push(Action::Delete {
        target: node.target(),
        propagation: Some(policy),
        grace: None,
        announce: None,
        reason: reason.to_owned(),
    });
}

/// The last step of a foreground deletion, once no dependent blocks it.
fn finish_foreground(node: &Node, graph: &Graph, plan: &mut Plan) {
    if !graph.blocking_dependents(&node.uid).any(|_| true) {
        drop_finalizer(node, FOREGROUND, "no dependent blocks its deletion", plan);
    }
}

/// The dependents stay and lose their reference; then the object itself may go.
fn orphan_dependents(node: &Node, graph: &Graph, plan: &mut Plan) {
    for dependent in graph.dependents(&node.uid) {
        let left: Vec<&OwnerReference> =
            dependent.owners.iter().filter(|owner| *owner.uid != *node.uid).collect();
        let patch = json!({"metadata": {"ownerReferences": left}});
        plan.patch(
            dependent.target(),
            Part::Whole,
            patch,
            format!("{} {} orphans it", node.kind.kind, node.name),
        );
    }
    drop_finalizer(node, ORPHAN, "its dependents are orphans now", plan);
}

fn drop_finalizer(node: &Node, finalizer: &str, reason: &str, plan: &mut Plan) {
    let left: Vec<&String> = node.finalizers.iter().filter(|other| *other != finalizer).collect();
    plan.patch(node.target(), Part::Whole, json!({"metadata": {"finalizers": left}}), reason);
}

fn reference(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some(node.kind.api_version.clone()),
        kind: Some(node.kind.kind.clone()),
        namespace: Some(node.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(node.name.clone()),
        uid: Some(node.uid.to_string()),
        ..ObjectReference::default()
    }
}
