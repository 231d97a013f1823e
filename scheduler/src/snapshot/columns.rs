//! What nodes offer and what their pods have taken, one dense array for each resource.
//!
//! What always holds: `requested` is the sum over the pods that were accounted for the slot.

use super::Slot;
use crate::resources::{PODS, Requests};
use std::collections::BTreeMap;

/// One resource over all nodes.
#[derive(Clone, Debug, Default)]
pub struct Column {
    allocatable: Vec<i64>,
    requested: Vec<i64>,
}

/// All resources, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    by_name: BTreeMap<Box<str>, Column>,
    /// Stands for a resource that no node has.
    nothing: Column,
    /// CPU and memory in use as scores see it, by slot.
    assumed: Vec<(i64, i64)>,
}

impl Column {
    /// What the node offers.
    pub fn allocatable(&self, slot: Slot) -> i64 {
        self.allocatable.get(slot.index()).copied().unwrap_or(0)
    }

    /// What its pods have taken.
    pub fn requested(&self, slot: Slot) -> i64 {
        self.requested.get(slot.index()).copied().unwrap_or(0)
    }

    /// What is left; negative on a node that is overcommitted.
    pub fn left(&self, slot: Slot) -> i64 {
        self.allocatable(slot).saturating_sub(self.requested(slot))
    }

    fn grow(&mut self, slots: usize) {
        self.allocatable.resize(slots, 0);
        self.requested.resize(slots, 0);
    }
}

impl Columns {
    /// The column of a resource; all zero if no node has it.
    pub(super) fn of(&self, resource: &str) -> &Column {
        self.by_name.get(resource).unwrap_or(&self.nothing)
    }

    /// CPU and memory in use as scores see it.
    pub(super) fn assumed(&self, slot: Slot) -> (i64, i64) {
        self.assumed[slot.index()]
    }

    /// There are so many slots now.
    pub(super) fn grow(&mut self, slots: usize) {
        self.assumed.resize(slots, (0, 0));
        self.by_name.values_mut().for_each(|column| column.grow(slots));
    }

    /// The node offers this much, and nothing of any other resource.
    pub(super) fn offer<'a>(&mut self, slot: Slot, amounts: impl IntoIterator<Item = (&'a str, i64)>) {
        self.by_name.values_mut().for_each(|column| column.allocatable[slot.index()] = 0);
        for (resource, amount) in amounts {
            self.column_mut(resource).allocatable[slot.index()] = amount;
        }
    }

    /// Adds (`sign` 1) or takes back (-1) what a pod takes of its node.
    pub(super) fn account(&mut self, slot: Slot, requests: &Requests, sign: i64) {
        for (resource, amount) in requests.exact.iter().chain([(PODS, 1)]) {
            self.column_mut(resource).requested[slot.index()] += sign * amount;
        }
        let (cpu, memory) = requests.assumed;
        let now = &mut self.assumed[slot.index()];
        *now = (now.0 + sign * cpu, now.1 + sign * memory);
    }

    fn column_mut(&mut self, resource: &str) -> &mut Column {
        if !self.by_name.contains_key(resource) {
            let mut column = Column::default();
            column.grow(self.assumed.len());
            self.by_name.insert(resource.into(), column);
        }
        self.by_name.get_mut(resource).expect("the column was just made if it was missing")
    }
}
