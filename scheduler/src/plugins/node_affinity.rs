//! Rejects nodes outside the pod's node selector and required node affinity, and its profile's; prefers the preferred
//! terms of both.

use super::{Filter, Plugin, Reason, Score, normalize};
use crate::pod::Needs;
use crate::selector::NodeTerm;
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

    /// Whether any term is preferred.
    pub fn prefers(&self) -> bool {
        self.preferred().next().is_some()
    }

    /// Sum of the weights of the preferred terms that the node matches.
    pub fn preference(&self, slot: Slot) -> i64 {
        let Some(node) = self.snapshot.node(slot) else { return 0 };
        let matching = self.preferred().filter(|(_, term)| term.matches(&node.name.0, &node.labels));
        matching.map(|(weight, _)| weight).sum()
    }

    fn preferred(&self) -> impl Iterator<Item = (i64, &NodeTerm)> {
        let own = self.needs.preferred.iter().map(|(weight, term)| (i64::from(*weight), term));
        own.chain(self.needs.profile.added.preferred.iter().map(|(weight, term)| (*weight, term)))
    }

    /// Whether the node is what the pod itself requires, even if that isn't asked of nodes.
    pub fn is_required(&self, slot: Slot) -> bool {
        let node = self.snapshot.node(slot);
        node.is_some_and(|node| self.needs.required.matches(&node.name.0, &node.labels))
    }

    /// Whether the node is what the pod's profile requires.
    fn is_enforced(&self, slot: Slot) -> bool {
        let Some(terms) = &self.needs.profile.added.required else { return true };
        let node = self.snapshot.node(slot);
        node.is_some_and(|node| terms.iter().any(|term| term.matches(&node.name.0, &node.labels)))
    }

    fn reason(&self, slot: Slot) -> Option<Reason> {
        if !self.needs.profile.filters(Plugin::NodeAffinity) {
            None
        } else if !self.is_enforced(slot) {
            Some(Reason::EnforcedNodeAffinity)
        } else {
            (!self.is_required(slot)).then_some(Reason::NodeAffinity)
        }
    }
}

impl Filter for NodeAffinity<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeAffinity
    }

    fn passes(&self, slot: Slot) -> bool {
        self.reason(slot).is_none()
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        self.reason(slot).into_iter().collect()
    }
}

impl Score for NodeAffinity<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeAffinity
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        normalize(slots.iter().map(|slot| self.preference(*slot)).collect())
    }
}
