//! Rejects nodes outside the pod's node selector and required node affinity; prefers its preferred terms.

use super::{Filter, Plugin, Reason, Score, normalize};
use crate::pod::Needs;
use crate::snapshot::{Slot, Snapshot};

/// The rule, prepared for one pod.
pub struct NodeAffinity<'a> {
    snapshot: &'a Snapshot,
    needs: &'a Needs,
}

impl<'a> NodeAffinity<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &'a Needs) -> Self {
        NodeAffinity { snapshot, needs }
    }

    /// Sum of the weights of the preferred terms that the node matches.
    pub fn preference(&self, slot: Slot) -> i64 {
        let Some(node) = self.snapshot.node(slot) else { return 0 };
        let matching =
            |(_, term): &&(i32, crate::selector::NodeTerm)| term.matches(&node.name.0, &node.labels);
        self.needs.preferred.iter().filter(matching).map(|(weight, _)| i64::from(*weight)).sum()
    }
}

impl Filter for NodeAffinity<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeAffinity
    }

    fn passes(&self, slot: Slot) -> bool {
        let node = self.snapshot.node(slot);
        node.is_some_and(|node| self.needs.required.matches(&node.name.0, &node.labels))
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        if self.passes(slot) { Vec::new() } else { vec![Reason::NodeAffinity] }
    }
}

impl Score for NodeAffinity<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeAffinity
    }

    fn weight(&self) -> i64 {
        2
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        normalize(slots.iter().map(|slot| self.preference(*slot)).collect())
    }
}
