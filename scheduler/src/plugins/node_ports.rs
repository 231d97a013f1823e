//! Rejects nodes where a host port of the pod is taken. A port on every address conflicts with the same
//! port on any one.

use super::{Filter, Plugin, Reason};
use crate::pod::{HostPort, Needs};
use crate::snapshot::{Slot, Snapshot};

/// The rule, prepared for one pod.
pub struct NodePorts<'a> {
    snapshot: &'a Snapshot,
    wanted: &'a [HostPort],
}

impl<'a> NodePorts<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &'a Needs) -> Self {
        let filters = needs.profile.filters(Plugin::NodePorts);
        NodePorts { snapshot, wanted: if filters { &needs.ports } else { &[] } }
    }

    fn is_taken(&self, slot: Slot) -> bool {
        let mut taken = self.snapshot.pods_on(slot).flat_map(|pod| &pod.shape.needs.ports);
        taken.any(|taken| self.wanted.iter().any(|wanted| wanted.conflicts(taken)))
    }
}

impl Filter for NodePorts<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodePorts
    }

    fn passes(&self, slot: Slot) -> bool {
        self.wanted.is_empty() || !self.is_taken(slot)
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        if self.passes(slot) { Vec::new() } else { vec![Reason::NodePorts] }
    }
}
