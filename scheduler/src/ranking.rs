//! What the rules about single nodes say of every node to one shape: whether it fits there, and how well.
//!
//! A placed pod changes one node, so between two decisions about equal pods almost everything stays; the
//! snapshot's log tells what to look at anew. Rules about several nodes (spreading, affinity between pods,
//! scores that are relative to the best) aren't in here.

use crate::memo::Terrain;
use crate::plugins::Filter as _;
use crate::plugins::node_ports::NodePorts;
use crate::plugins::node_resources_balanced_allocation::BalancedAllocation;
use crate::plugins::node_resources_fit::NodeResourcesFit;
use crate::plugins::{MAX_SCORE, Score as _};
use crate::pod::Shape;
use crate::snapshot::{Position, Slot, Snapshot};

/// By slot: the score, or [`UNFIT`].
#[derive(Debug, Default)]
pub struct Ranking {
    scores: Vec<i16>,
    position: Position,
}

/// The node refuses the shape, or isn't known.
const UNFIT: i16 = -1;

impl Ranking {
    /// Looks at every node that has changed since the last time.
    pub fn refresh(&mut self, snapshot: &Snapshot, shape: &Shape, terrain: &Terrain) {
        let rules = (
            NodePorts::new(snapshot, shape),
            NodeResourcesFit::new(snapshot, shape),
            BalancedAllocation::new(snapshot, shape),
        );
        let first = self.scores.is_empty();
        self.scores.resize(snapshot.slots(), UNFIT);
        let mut look = |slot: Slot| {
            let (ports, fit, balance) = &rules;
            let known = snapshot.node(slot).is_some();
            let fits = known && terrain.admits(slot) && fit.passes(slot) && ports.passes(slot);
            let score = fit.weight() * fit.score(slot) + balance.weight() * balance.score(slot);
            debug_assert!((0..=2 * MAX_SCORE).contains(&score), "two scores of weight 1");
            self.scores[slot.index()] = if fits { i16::try_from(score).unwrap_or(i16::MAX) } else { UNFIT };
        };
        match snapshot.changed_since(self.position).filter(|_| !first) {
            Some(changed) => changed.iter().for_each(|slot| look(*slot)),
            None => snapshot.all_slots().for_each(look),
        }
        self.position = snapshot.position();
    }

    /// The nodes that fit, with their scores.
    pub fn fitting(&self) -> impl Iterator<Item = (usize, i64)> {
        let scores = self.scores.iter().enumerate();
        scores.filter(|(_, score)| **score != UNFIT).map(|(slot, score)| (slot, i64::from(*score)))
    }
}
