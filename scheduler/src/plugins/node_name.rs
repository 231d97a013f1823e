//! Rejects every node but the one the pod names.

use super::{Filter, Plugin, Reason};
use crate::pod::PodInfo;
use crate::snapshot::{Slot, Snapshot};

/// The rule, prepared for one pod.
pub struct NodeNameMatches {
    /// `None`: any node. `Some(None)`: the named node is unknown.
    only: Option<Option<Slot>>,
}

impl NodeNameMatches {
    /// Prepares the rule.
    pub fn new(snapshot: &Snapshot, pod: &PodInfo) -> Self {
        let wanted = pod.node.as_ref().filter(|_| pod.shape.needs.profile.filters(Plugin::NodeName));
        NodeNameMatches { only: wanted.map(|name| snapshot.slot(name)) }
    }
}

impl Filter for NodeNameMatches {
    fn plugin(&self) -> Plugin {
        Plugin::NodeName
    }

    fn passes(&self, slot: Slot) -> bool {
        self.only.is_none_or(|only| only == Some(slot))
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        if self.passes(slot) { Vec::new() } else { vec![Reason::NodeName] }
    }
}
