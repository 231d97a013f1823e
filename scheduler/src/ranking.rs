//! What the rules about single nodes say of every node to pods of the same needs: whether it fits there, and how well.
//!
//! A placed pod changes one node, so between two decisions about equal pods almost everything stays; the
//! snapshot's log tells what to look at anew. Rules about several nodes (spreading, affinity between pods,
//! scores that are relative to the best) aren't in here.

use crate::memo::Terrain;
use crate::plugins::image_locality::ImageLocality;
use crate::plugins::node_ports::NodePorts;
use crate::plugins::node_resources_balanced_allocation::BalancedAllocation;
use crate::plugins::node_resources_fit::NodeResourcesFit;
use crate::plugins::{Filter as _, Plugin};
use crate::pod::Needs;
use crate::snapshot::{Position, Slot, Snapshot};
use std::collections::BTreeMap;

/// The nodes that fit, by score.
#[derive(Debug, Default)]
pub struct Ranking {
    /// By slot: the score, or [`UNFIT`].
    scores: Vec<i64>,
    /// The slots of each score that some node has.
    levels: BTreeMap<i64, Slots>,
    position: Position,
    /// Of the images that the scores are about; others may matter to every node that has one.
    images: (usize, Vec<u64>),
}

/// The node refuses the shape, or isn't known.
const UNFIT: i64 = -1;

/// How often a slot is drawn at random before all are tried.
const DRAWS: usize = 8;

impl Ranking {
    /// Looks at every node that has changed since the last time.
    pub fn refresh(&mut self, snapshot: &Snapshot, needs: &Needs, terrain: &Terrain) {
        let rules = (
            NodePorts::new(snapshot, needs),
            NodeResourcesFit::new(snapshot, needs),
            BalancedAllocation::new(snapshot, needs),
            ImageLocality::new(snapshot, needs),
        );
        let images = rules.3.state();
        let alone =
            [Plugin::NodeResourcesFit, Plugin::NodeResourcesBalancedAllocation, Plugin::ImageLocality];
        let weights = alone.map(|plugin| needs.profile.weight(plugin));
        let first = self.scores.is_empty();
        self.scores.resize(snapshot.slots(), UNFIT);
        let score = |slot: Slot| {
            let (ports, fit, balance, images) = &rules;
            let known = snapshot.node(slot).is_some();
            let fits = known && terrain.admits(slot) && fit.passes(slot) && ports.passes(slot);
            let score = || {
                weights[0] * fit.score(slot)
                    + weights[1] * balance.score(slot)
                    + weights[2] * images.score(slot)
            };
            if fits { score() } else { UNFIT }
        };
        let same_images = std::mem::replace(&mut self.images, images.clone()) == images;
        match snapshot.changed_since(self.position).filter(|_| !first && same_images) {
            Some(changed) => changed.iter().for_each(|slot| self.set(*slot, score(*slot))),
            None => snapshot.all_slots().for_each(|slot| self.set(slot, score(slot))),
        }
        self.position = snapshot.position();
    }

    fn set(&mut self, slot: Slot, score: i64) {
        let before = std::mem::replace(&mut self.scores[slot.index()], score);
        if before == score {
            return;
        }
        if let Some(level) = self.levels.get_mut(&before) {
            level.remove(slot);
            if level.count == 0 {
                self.levels.remove(&before);
            }
        }
        if score != UNFIT {
            self.levels.entry(score).or_default().insert(slot);
        }
    }

    /// The nodes that fit, in slot order, with their scores.
    pub fn fitting(&self) -> impl Iterator<Item = (Slot, i64)> {
        let scores = Slot::all().zip(&self.scores);
        scores.filter(|(_, score)| **score != UNFIT).map(|(slot, score)| (slot, *score))
    }

    /// One of the best nodes that pass, each of them as likely as the others.
    pub fn best(&self, passes: impl Fn(Slot) -> bool, random: u64) -> Option<Slot> {
        self.levels.values().rev().find_map(|level| level.one_of(&passes, random))
    }
}

/// A set of slots, in their order.
#[derive(Debug, Default)]
struct Slots {
    words: Vec<u64>,
    count: usize,
}

impl Slots {
    /// The slot must not be there.
    fn insert(&mut self, slot: Slot) {
        let word = slot.index() / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (slot.index() % 64);
        self.count += 1;
    }

    /// The slot must be there.
    fn remove(&mut self, slot: Slot) {
        self.words[slot.index() / 64] &= !(1 << (slot.index() % 64));
        self.count -= 1;
    }

    fn iter(&self) -> impl Iterator<Item = Slot> {
        let bits = |(word, bits): (usize, &u64)| Bits(*bits).map(move |bit| Slot::at(word * 64 + bit));
        self.words.iter().enumerate().flat_map(bits)
    }

    /// The slot with so many before it.
    fn nth(&self, mut before: usize) -> Option<Slot> {
        for (word, bits) in self.words.iter().enumerate() {
            let here = bits.count_ones() as usize;
            if before < here {
                return Bits(*bits).nth(before).map(|bit| Slot::at(word * 64 + bit));
            }
            before -= here;
        }
        None
    }

    /// One of those that pass. Drawing until one does gives each the same chance, and mostly the first does.
    fn one_of(&self, passes: &impl Fn(Slot) -> bool, random: u64) -> Option<Slot> {
        let mut draw = random;
        for _ in 0..DRAWS {
            let slot = self.nth(index(draw, self.count))?;
            if passes(slot) {
                return Some(slot);
            }
            draw = mixed(draw);
        }
        let passing: Vec<Slot> = self.iter().filter(|slot| passes(*slot)).collect();
        if passing.is_empty() { None } else { Some(passing[index(draw, passing.len())]) }
    }
}

fn index(random: u64, length: usize) -> usize {
    usize::try_from(random % length as u64).expect("an index into memory")
}

/// The next number of the generator SplitMix64.
fn mixed(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The positions of the ones in a word.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let bit = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_of_slots_is_one() {
        let mut slots = Slots::default();
        let members = [0, 1, 63, 64, 130].map(Slot::at);
        members.iter().rev().for_each(|slot| slots.insert(*slot));
        assert_eq!(slots.iter().collect::<Vec<_>>(), members);
        assert_eq!((0..6).map(|n| slots.nth(n)).collect::<Vec<_>>()[..5], members.map(Some));
        assert_eq!(slots.nth(5), None);
        slots.remove(Slot::at(63));
        assert_eq!((slots.count, slots.nth(2)), (4, Some(Slot::at(64))));
    }

    #[test]
    fn each_that_passes_is_drawn_and_no_other() {
        let mut slots = Slots::default();
        (0..100).for_each(|slot| slots.insert(Slot::at(slot)));
        let passing: BTreeSet<Slot> = [7, 70, 99].map(Slot::at).into();
        let drawn = (0..1000).filter_map(|n| slots.one_of(&|slot| passing.contains(&slot), mixed(n)));
        assert_eq!(drawn.collect::<BTreeSet<_>>(), passing);
        assert_eq!(slots.one_of(&|_| false, 5), None);
    }
}
