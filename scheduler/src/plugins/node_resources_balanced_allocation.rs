//! Prefers nodes whose CPU and memory would be used evenly, so that neither is stranded.

use super::{MAX_SCORE, Plugin, Score};
use crate::pod::Needs;
use crate::resources::{CPU, MEMORY};
use crate::snapshot::{Column, Slot, Snapshot};

/// The rule, prepared for one pod.
pub struct BalancedAllocation<'a> {
    cpu: (&'a Column, i64),
    memory: (&'a Column, i64),
    /// A pod that requests nothing can't disturb a balance; it must not be drawn to balanced nodes either.
    indifferent: bool,
}

impl<'a> BalancedAllocation<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &Needs) -> Self {
        let requests = &needs.requests.exact;
        BalancedAllocation {
            cpu: (snapshot.column(CPU), requests.get(CPU)),
            memory: (snapshot.column(MEMORY), requests.get(MEMORY)),
            indifferent: needs.requests.is_best_effort(),
        }
    }

    /// How evenly the node would be used; 0 for a pod that doesn't care.
    pub fn score(&self, slot: Slot) -> i64 {
        if self.indifferent {
            return 0;
        }
        let fractions = (fraction(self.cpu, slot), fraction(self.memory, slot));
        let (Some(cpu), Some(memory)) = fractions else { return MAX_SCORE };
        // The standard deviation of two values is half their distance. Rounded down, as upstream.
        (2 * SCALE - (cpu - memory).abs()) * MAX_SCORE / (2 * SCALE)
    }
}

/// Fractions are integers out of this many, which keeps scores exact and equal on every machine.
const SCALE: i64 = 1_000_000;

fn fraction((column, request): (&Column, i64), slot: Slot) -> Option<i64> {
    let (allocatable, used) = (column.allocatable(slot), column.requested(slot) + request);
    let scaled = i128::from(used) * i128::from(SCALE) / i128::from(allocatable.max(1));
    (allocatable > 0).then(|| i64::try_from(scaled).unwrap_or(SCALE).min(SCALE))
}

impl Score for BalancedAllocation<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesBalancedAllocation
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        slots.iter().map(|slot| self.score(*slot)).collect()
    }
}
