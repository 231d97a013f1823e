//! What has changed since parked pods were last asked, and for whom that can matter.
//!
//! A pod is parked because every node refused it. Only two things can change that: a node that would now
//! take it, or, if a spread rule or a rule about other pods refused some node, other counts. Both are asked exactly, so a pod that
//! stays parked is one that still fits nowhere.

use crate::diagnosis::{Diagnosis, Preemption};
use crate::plugins::Plugin;
use crate::pod::PodInfo;
use crate::snapshot::Slot;
use std::collections::BTreeSet;

/// Changes of the cluster since the last look.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Nodes that may take pods they refused: they changed, or something left them.
    freed: BTreeSet<Slot>,
    /// Pods came, went or changed labels, or nodes changed: counts and domains are other ones.
    counts: bool,
}

impl Changes {
    /// A node appeared or changed.
    pub fn node(&mut self, slot: Slot) {
        self.freed.insert(slot);
        self.counts = true;
    }

    /// A node is gone, and with it perhaps a domain.
    pub fn node_gone(&mut self) {
        self.counts = true;
    }

    /// A pod came to a node or changed there without freeing anything.
    pub fn pod_placed(&mut self) {
        self.counts = true;
    }

    /// A pod left a node or became smaller.
    pub fn pod_left(&mut self, slot: Slot) {
        self.freed.insert(slot);
        self.counts = true;
    }

    /// Whether there is anything to look at.
    pub fn is_empty(&self) -> bool {
        self.freed.is_empty() && !self.counts
    }

    /// Whether `pod`, refused for the reasons in `diagnosis`, may fit now. `admits` says whether a node
    /// takes it as far as the rules about that node alone go; `apart`, whether any placed pod keeps others away.
    pub fn concern(
        &self,
        pod: &PodInfo,
        diagnosis: &Diagnosis,
        apart: bool,
        mut admits: impl FnMut(&PodInfo, Slot) -> bool,
    ) -> bool {
        // "No nodes available" helps nobody any more once there is one, even one that refuses the pod.
        let first_nodes = !self.freed.is_empty() && diagnosis.saw_no_nodes();
        let by_counts = [Plugin::PodTopologySpread, Plugin::InterPodAffinity];
        // Preemption may have failed by a rule about other pods that no node's first reason tells of.
        let tied = apart || pod.shape.is_tied_to_others();
        let hidden = tied && matches!(diagnosis.preemption, Some(Preemption::Hopeless { .. }));
        let blamed = by_counts.into_iter().any(|plugin| diagnosis.blames(plugin));
        let recount = self.counts && (blamed || hidden);
        first_nodes || recount || self.freed.iter().any(|slot| admits(pod, *slot))
    }
}
