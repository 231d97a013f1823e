//! Which images nodes have, by image: of the many that a node has, a pod names a few.

use crate::snapshot::Slot;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The images of a node by name, with their sizes in bytes.
pub type NodeImages = BTreeMap<Arc<str>, i64>;

/// One image, by the nodes that have it.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    sizes: HashMap<Slot, i64>,
    /// Differs between any two states of any images.
    changed: u64,
}

/// The images of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Images {
    holders: HashMap<Arc<str>, Holders>,
    of: HashMap<Slot, NodeImages>,
    changes: u64,
}

impl Holders {
    /// How many nodes have it.
    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// Its size on a node in bytes, if the node has it. Upstream keeps the size that the first node told.
    pub fn size(&self, slot: Slot) -> Option<i64> {
        self.sizes.get(&slot).copied()
    }

    /// Equal only if nothing is different.
    pub fn state(&self) -> u64 {
        self.changed
    }
}

impl Images {
    /// Who has the image called so; `None` if nobody has.
    pub fn holders(&self, name: &str) -> Option<&Holders> {
        self.holders.get(name)
    }

    /// A node has these.
    pub fn set(&mut self, slot: Slot, images: NodeImages) {
        let before = self.of.remove(&slot).unwrap_or_default();
        self.changes += 1;
        for name in before.keys().filter(|name| !images.contains_key(*name)) {
            self.take_away(slot, name);
        }
        for (name, size) in images.iter().filter(|(name, size)| before.get(*name) != Some(size)) {
            let holders = self.holders.entry(name.clone()).or_default();
            holders.sizes.insert(slot, *size);
            holders.changed = self.changes;
        }
        if !images.is_empty() {
            self.of.insert(slot, images);
        }
    }

    fn take_away(&mut self, slot: Slot, name: &str) {
        let Some(holders) = self.holders.get_mut(name) else { return };
        holders.sizes.remove(&slot);
        holders.changed = self.changes;
        if holders.sizes.is_empty() {
            self.holders.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(all: &[(&str, i64)]) -> NodeImages {
        all.iter().map(|(name, size)| ((*name).into(), *size)).collect()
    }

    #[test]
    fn an_image_is_held_by_those_who_say_so() {
        let mut table = Images::default();
        let (a, b) = (Slot::at(0), Slot::at(1));
        table.set(a, images(&[("x", 5), ("y", 7)]));
        table.set(b, images(&[("x", 6)]));
        let held = |table: &Images, name: &str| {
            table.holders(name).map(|all| (all.count(), all.size(a), all.size(b)))
        };
        assert_eq!(held(&table, "x"), Some((2, Some(5), Some(6))));
        let state = |table: &Images| table.holders("x").map(Holders::state);
        let before = state(&table);
        table.set(a, images(&[("x", 5)]));
        assert_eq!((held(&table, "y"), state(&table)), (None, before), "only y is gone");
        table.set(b, NodeImages::new());
        assert_eq!(held(&table, "x"), Some((1, Some(5), None)));
        assert_ne!(state(&table), before);
    }
}
