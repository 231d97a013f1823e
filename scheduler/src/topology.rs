//! Domains: the groups of nodes that share the value of a label, and counts per domain.

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
        self.of.get(slot.index()).copied().flatten().map(|domain| domain as usize)
    }

    /// Adds up the counts of these nodes by domain; `None` for a domain without any of them.
    pub fn sum(&self, counts: &[u32], slots: impl Iterator<Item = Slot>) -> Vec<Option<u32>> {
        let mut sums = vec![None; self.count];
        for slot in slots {
            if let Some(domain) = self.of(slot) {
                *sums[domain].get_or_insert(0) += counts.get(slot.index()).copied().unwrap_or(0);
            }
        }
        sums
    }
}
