//! Rejects cordoned nodes, unless the pod tolerates the taint a cordon implies.

use super::{Filter, Plugin, Reason};
use crate::pod::Needs;
use crate::snapshot::{Slot, Snapshot};
use crate::taint::Taint;

/// The rule, prepared for one pod.
pub struct NodeUnschedulable<'a> {
    snapshot: &'a Snapshot,
    tolerated: bool,
}

impl<'a> NodeUnschedulable<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &Needs) -> Self {
        let taint = Taint::unschedulable();
        let tolerated = needs.tolerations.iter().any(|toleration| toleration.tolerates(&taint));
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
