//! Domains: the groups of nodes that share the value of a label.

use crate::snapshot::{Slot, Snapshot};
use std::collections::HashMap;

/// The domains of one topology key.
#[derive(Debug, Default)]
pub struct Domains {
    /// By slot; `None` where the node lacks the label or isn't known.
    of: Vec<Option<u32>>,
    count: usize,
}

impl Domains {
    /// Numbers the distinct values of label `key`.
    pub fn new(snapshot: &Snapshot, key: &str) -> Self {
        let mut ids = HashMap::new();
        let mut of = vec![None; snapshot.slots()];
        for slot in snapshot.known() {
            let Some(value) = snapshot.label(slot, key) else { continue };
            let next = u32::try_from(ids.len()).expect("no more domains than nodes");
            of[slot.index()] = Some(*ids.entry(value).or_insert(next));
        }
        Domains { of, count: ids.len() }
    }

    /// The domain of a node.
    pub fn of(&self, slot: Slot) -> Option<usize> {
        self.id(slot).map(|domain| domain as usize)
    }

    /// The same as it is kept.
    pub fn id(&self, slot: Slot) -> Option<u32> {
        self.of.get(slot.index()).copied().flatten()
    }

    /// How many domains there are.
    pub fn count(&self) -> usize {
        self.count
    }
}
