//! Rejects nodes with a taint the pod doesn't tolerate; prefers those with fewer discouraging ones.

use super::{Filter, Plugin, Reason, Score, normalize_reversed};
use crate::pod::Needs;
use crate::snapshot::{Slot, Snapshot, TaintId};

/// The rule, prepared for one pod: what each distinct taint of the cluster means to it.
pub struct TaintToleration<'a> {
    snapshot: &'a Snapshot,
    /// By taint id: not tolerated, and forbidding.
    forbidding: Vec<bool>,
    /// By taint id: not tolerated, and merely discouraging.
    discouraging: Vec<bool>,
    filters: bool,
}

impl<'a> TaintToleration<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &Needs) -> Self {
        let untolerated: Vec<(bool, bool)> = snapshot
            .taint_table()
            .iter()
            .map(|taint| (needs.tolerations.iter().all(|one| !one.tolerates(taint)), taint.effect.forbids()))
            .collect();
        TaintToleration {
            snapshot,
            forbidding: untolerated.iter().map(|(untolerated, forbids)| *untolerated && *forbids).collect(),
            discouraging: untolerated
                .iter()
                .map(|(untolerated, forbids)| *untolerated && !*forbids)
                .collect(),
            filters: needs.profile.filters(Plugin::TaintToleration),
        }
    }

    fn first_forbidding(&self, slot: Slot) -> Option<TaintId> {
        self.snapshot.taints(slot).iter().copied().find(|taint| self.forbidding[taint.index()])
    }

    /// Whether the pod tolerates every taint of the node that forbids, even if that isn't asked of nodes.
    pub fn is_tolerated(&self, slot: Slot) -> bool {
        self.first_forbidding(slot).is_none()
    }

    /// Whether any taint of the cluster discourages the pod.
    pub fn discourages(&self) -> bool {
        self.discouraging.contains(&true)
    }

    /// How many untolerated taints discourage the pod from the node.
    pub fn discouragement(&self, slot: Slot) -> i64 {
        let taints = self.snapshot.taints(slot).iter();
        taints.map(|taint| i64::from(self.discouraging[taint.index()])).sum()
    }
}

impl Filter for TaintToleration<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::TaintToleration
    }

    fn passes(&self, slot: Slot) -> bool {
        !self.filters || self.is_tolerated(slot)
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        let first = self.first_forbidding(slot).filter(|_| self.filters);
        let taint = first.map(|id| self.snapshot.taint_table()[id.index()].clone());
        taint.map(Reason::UntoleratedTaint).into_iter().collect()
    }
}

impl Score for TaintToleration<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::TaintToleration
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        normalize_reversed(slots.iter().map(|slot| self.discouragement(*slot)).collect())
    }
}
