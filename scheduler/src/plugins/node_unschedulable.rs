//! Rejects cordoned nodes, unless the pod tolerates the taint a cordon implies.

use super::{Filter, Plugin, Reason};
use crate::pod::Needs;
use crate::snapshot::{Slot, Snapshot};
use crate::taint::Taint;

/// The rule, prepared for one pod.
pub struct NodeUnschedulable<'a> {
    snapshot: &'a Snapshot,
    /// The pod doesn't mind, or its profile doesn't.
    tolerated: bool,
}

impl<'a> NodeUnschedulable<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &Needs) -> Self {
        let taint = Taint::unschedulable();
        let tolerates = needs.tolerations.iter().any(|toleration| toleration.tolerates(&taint));
        let tolerated = tolerates || !needs.profile.filters(Plugin::NodeUnschedulable);
        NodeUnschedulable { snapshot, tolerated }
    }
}

impl Filter for NodeUnschedulable<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeUnschedulable
    }

    fn passes(&self, slot: Slot) -> bool {
        self.tolerated || self.snapshot.node(slot).is_some_and(|node| !node.unschedulable)
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        if self.passes(slot) { Vec::new() } else { vec![Reason::Unschedulable] }
    }
}
