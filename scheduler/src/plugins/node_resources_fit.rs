//! Rejects nodes with too little left of what the pod requests; prefers those with more left.

use super::{Filter, MAX_SCORE, Plugin, Reason, Score};
use crate::pod::Needs;
use crate::resources::{CPU, MEMORY, PODS};
use crate::snapshot::{Column, Slot, Snapshot};

/// The rule, prepared for one pod.
pub struct NodeResourcesFit<'a> {
    snapshot: &'a Snapshot,
    pods: &'a Column,
    /// Resources the pod asks for, with the amount. A request of zero fits even an overcommitted node.
    wanted: Vec<(&'a str, i64, &'a Column)>,
    assumed: (i64, i64),
    cpu: &'a Column,
    memory: &'a Column,
}

impl<'a> NodeResourcesFit<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &'a Needs) -> Self {
        let requests = needs.requests.exact.iter().filter(|(_, amount)| *amount > 0);
        NodeResourcesFit {
            snapshot,
            pods: snapshot.column(PODS),
            wanted: requests.map(|(name, amount)| (name, amount, snapshot.column(name))).collect(),
            assumed: needs.requests.assumed,
            cpu: snapshot.column(CPU),
            memory: snapshot.column(MEMORY),
        }
    }

    /// Mean of the shares of CPU and memory that would be left; 0 for a resource the node doesn't have.
    pub fn score(&self, slot: Slot) -> i64 {
        let (cpu, memory) = self.snapshot.assumed_use(slot);
        let cpu = share_left(self.cpu.allocatable(slot), cpu + self.assumed.0);
        let memory = share_left(self.memory.allocatable(slot), memory + self.assumed.1);
        match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu + memory) / 2,
            (one, other) => one.or(other).unwrap_or(0),
        }
    }
}

/// What is left of a resource on a scale to [`MAX_SCORE`]; `None` if the node has none of it.
fn share_left(allocatable: i64, used: i64) -> Option<i64> {
    let left = (allocatable - used).max(0);
    (allocatable > 0).then(|| {
        i64::try_from(i128::from(left) * i128::from(MAX_SCORE) / i128::from(allocatable)).expect("a share")
    })
}

impl Filter for NodeResourcesFit<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesFit
    }

    fn passes(&self, slot: Slot) -> bool {
        self.pods.left(slot) >= 1
            && self.wanted.iter().all(|(_, amount, column)| column.left(slot) >= *amount)
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        let full = (self.pods.left(slot) < 1).then_some(Reason::TooManyPods);
        let lacking = self.wanted.iter().filter(|(_, amount, column)| column.left(slot) < *amount);
        full.into_iter().chain(lacking.map(|(name, ..)| Reason::Insufficient((*name).into()))).collect()
    }
}

impl Score for NodeResourcesFit<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesFit
    }

    fn weight(&self) -> i64 {
        1
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        slots.iter().map(|slot| self.score(*slot)).collect()
    }
}
