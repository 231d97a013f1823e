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

/// What a refused pod waits for, beside a node that would take it as far as that node alone goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hopes {
    /// There was no node at all: "no nodes available" helps nobody any more once there is one, even one that
    /// refuses the pod.
    first_node: bool,
    /// A rule about where other pods are refused some node, or may have foiled preemption though no node's first
    /// reason tells of it: other counts may help.
    counts: bool,
    /// It has claims: other claims, volumes or users of them may help.
    storage: bool,
}

impl Hopes {
    /// What there is to wait for after such a refusal.
    pub fn after(diagnosis: &Diagnosis, pod: &PodInfo) -> Self {
        let by_counts = [Plugin::PodTopologySpread, Plugin::InterPodAffinity];
        let blamed = by_counts.into_iter().any(|plugin| diagnosis.blames(plugin));
        let hidden = matches!(diagnosis.preemption, Some(Preemption::Hopeless { by_others: true, .. }));
        Hopes {
            first_node: diagnosis.saw_no_nodes(),
            counts: blamed || hidden,
            storage: !pod.shape.claims.is_empty(),
        }
    }
}

/// Changes of the cluster since the last look.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Nodes that may take pods they refused: they changed, or something left them.
    freed: BTreeSet<Slot>,
    /// Pods came, went or changed labels, or nodes or namespaces changed: counts and domains are other ones.
    counts: bool,
    /// Claims, volumes or what belongs to them changed, or a pod let go of its claims.
    storage: bool,
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

    /// A pod came to a node, or room is reserved for it there, or it changed there without freeing anything.
    pub fn pod_placed(&mut self) {
        self.counts = true;
    }

    /// A namespace has other labels, or hasn't: rules about pods may be about other ones.
    pub fn namespaces(&mut self, other_labels: bool) {
        self.counts |= other_labels;
    }

    /// A pod left a node or became smaller.
    pub fn pod_left(&mut self, slot: Slot, pod: &PodInfo) {
        self.freed.insert(slot);
        self.counts = true;
        self.storage |= !pod.shape.claims.is_empty();
    }

    /// Something about claims, volumes, their classes or nodes' limits is different.
    pub fn storage(&mut self) {
        self.storage = true;
    }

    /// Nodes that may take pods they refused.
    pub fn freed(&self) -> impl Iterator<Item = Slot> {
        self.freed.iter().copied()
    }

    /// Whether there is anything to look at.
    pub fn is_empty(&self) -> bool {
        self.freed.is_empty() && !self.counts && !self.storage
    }

    /// Whether `pod`, refused with these hopes, may fit now. `admits` says whether a node takes it as far as the
    /// rules about that node alone go.
    pub fn concern(
        &self,
        pod: &PodInfo,
        hopes: Hopes,
        mut admits: impl FnMut(&PodInfo, Slot) -> bool,
    ) -> bool {
        let first_node = !self.freed.is_empty() && hopes.first_node;
        let recount = self.counts && hopes.counts;
        let restored = self.storage && hopes.storage;
        first_node || recount || restored || self.freed.iter().any(|slot| admits(pod, *slot))
    }
}
