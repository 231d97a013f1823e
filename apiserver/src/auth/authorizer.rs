//! May they: the chain of authorizers.
//!
//! `system:masters` may everything; the health paths are open to all, so that probes work before any role
//! exists; nodes get what a node needs; the rest is RBAC. The first that allows wins; none can forbid what
//! another allows.

use parking_lot::RwLock;
use serde_json::Value;

use super::node_graph::NodeGraph;
use super::{Attributes, Identity, RbacView, escalation, node};
use crate::pki::MASTERS_GROUP;

const ALWAYS_OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Judges acts against the roles and bindings as they are now.
#[derive(Debug, Default)]
pub struct Authorizer {
    view: RwLock<RbacView>,
    graph: RwLock<NodeGraph>,
}

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the act is allowed.
    pub allowed: bool,
    /// By what it is allowed, or what is broken; often empty for a refusal.
    pub reason: String,
}

impl Decision {
    /// Allowed, because of `reason`.
    pub fn allow(reason: String) -> Self {
        Self { allowed: true, reason }
    }

    /// Not allowed.
    pub fn refuse(reason: String) -> Self {
        Self { allowed: false, reason }
    }
}

impl Authorizer {
    /// Whether `who` may do this.
    pub fn authorize(&self, who: &Identity, act: &Attributes<'_>) -> Decision {
        if who.is_in(MASTERS_GROUP) || is_open(act) {
            return Decision::allow(String::new());
        }
        let decision = self.view.read().authorize(who, act);
        if !decision.allowed && node::allows(&self.graph.read(), who, act) {
            return Decision::allow("node: allowed for the node itself".to_owned());
        }
        decision
    }

    /// Takes in the newest state of a Role, ClusterRole, RoleBinding or ClusterRoleBinding.
    pub fn update(&self, kind: &str, object: &Value) {
        self.view.write().update(kind, object);
    }

    /// Forgets one of them.
    pub fn delete(&self, kind: &str, object: &Value) {
        self.view.write().delete(kind, object);
    }

    /// Starts over from a complete list, after the watch was interrupted.
    pub fn replace<'a>(&self, objects: impl IntoIterator<Item = (&'a str, &'a Value)>) {
        let mut view = RbacView::default();
        for (kind, object) in objects {
            view.update(kind, object);
        }
        *self.view.write() = view;
    }

    /// Takes in a pod's newest state as it is stored; `None` if it was deleted.
    pub fn pod(&self, key: &[u8], stored: Option<&[u8]>) {
        match stored {
            Some(stored) => self.graph.write().update(key, stored),
            None => self.graph.write().delete(key),
        }
    }

    /// Starts over from all pods, each with its key.
    pub fn replace_pods<'a>(&self, pods: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
        let mut graph = NodeGraph::default();
        for (key, stored) in pods {
            graph.update(key, stored);
        }
        *self.graph.write() = graph;
    }

    /// Whether `who` may write a role or binding without gaining rights by it; the refusal's reason if not.
    pub fn check_escalation(
        &self,
        who: &Identity,
        kind: &str,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<(), String> {
        if who.is_in(MASTERS_GROUP) {
            return Ok(());
        }
        escalation::check(&self.view.read(), who, kind, old, new)
    }

    /// The view, to list somebody's rules.
    pub(super) fn view(&self) -> parking_lot::RwLockReadGuard<'_, RbacView> {
        self.view.read()
    }
}

fn is_open(act: &Attributes<'_>) -> bool {
    let under =
        |root: &str| act.path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !act.is_resource && matches!(act.verb, "get" | "head") && ALWAYS_OPEN.into_iter().any(under)
}
