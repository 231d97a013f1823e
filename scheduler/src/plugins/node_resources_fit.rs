//! Rejects nodes with too little left of what the pod requests; prefers those with more left, or as the profile says.

use super::{Filter, MAX_SCORE, Plugin, Reason, Score};
use crate::pod::Needs;
use crate::profile::Strategy;
use crate::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS};
use crate::snapshot::{Column, Slot, Snapshot};

/// The rule, prepared for one pod.
pub struct NodeResourcesFit<'a> {
    snapshot: &'a Snapshot,
    pods: &'a Column,
    filters: bool,
    /// Resources the pod asks for, with the amount. A request of zero fits even an overcommitted node.
    wanted: Vec<(&'a str, i64, &'a Column)>,
    strategy: &'a Strategy,
    scored: Vec<Scored<'a>>,
}

/// The CPU, or the memory, of a pair of both.
type Part = fn((i64, i64)) -> i64;

/// A resource by which nodes are compared.
struct Scored<'a> {
    weight: i64,
    column: &'a Column,
    request: i64,
    /// Pods that don't say how much of it they take are assumed to take some.
    assumed: Option<Part>,
}

impl<'a> Scored<'a> {
    /// `None` for a resource that only some nodes have and the pod doesn't ask for.
    fn new(snapshot: &'a Snapshot, needs: &Needs, resource: &str, weight: i64) -> Option<Self> {
        let requests = &needs.requests;
        let (request, assumed): (i64, Option<Part>) = match resource {
            CPU => (requests.assumed.0, Some(|(cpu, _)| cpu)),
            MEMORY => (requests.assumed.1, Some(|(_, memory)| memory)),
            _ => (requests.exact.get(resource), None),
        };
        let everywhere = matches!(resource, CPU | MEMORY | EPHEMERAL_STORAGE);
        let column = snapshot.column(resource);
        (everywhere || request > 0).then_some(Scored { weight, column, request, assumed })
    }

    /// How much the node has, and how much of it would be taken; `None` if it has none.
    fn utilization(&self, snapshot: &Snapshot, slot: Slot) -> Option<(i64, i64)> {
        let allocatable = self.column.allocatable(slot);
        let taken = match self.assumed {
            Some(part) => part(snapshot.assumed_use(slot)),
            None => self.column.requested(slot),
        };
        (allocatable > 0).then(|| (allocatable, taken.saturating_add(self.request).clamp(0, allocatable)))
    }
}

impl<'a> NodeResourcesFit<'a> {
    /// Prepares the rule.
    pub fn new(snapshot: &'a Snapshot, needs: &'a Needs) -> Self {
        let profile = &needs.profile;
        let filters = profile.filters(Plugin::NodeResourcesFit);
        let scored = profile.scoring.resources.iter();
        NodeResourcesFit {
            snapshot,
            pods: snapshot.column(PODS),
            filters,
            wanted: needs.must_fit().map(|(name, amount)| (name, amount, snapshot.column(name))).collect(),
            strategy: &profile.scoring.strategy,
            scored: scored
                .filter_map(|(resource, weight)| Scored::new(snapshot, needs, resource, *weight))
                .collect(),
        }
    }

    /// Weighted mean of what the strategy says of each resource that the node has.
    pub fn score(&self, slot: Slot) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for resource in &self.scored {
            let Some((allocatable, used)) = resource.utilization(self.snapshot, slot) else { continue };
            let score = self.strategy.score(allocatable, used);
            // Upstream leaves out of the mean what its function of utilization scores 0.
            if score > 0 || !matches!(self.strategy, Strategy::RequestedToCapacityRatio(_)) {
                sum += score * resource.weight;
                weights += resource.weight;
            }
        }
        match self.strategy {
            _ if weights == 0 => 0,
            Strategy::RequestedToCapacityRatio(_) => (2 * sum + weights) / (2 * weights),
            _ => sum / weights,
        }
    }

    /// Whether there is a place for one more pod.
    fn has_place(&self, slot: Slot) -> bool {
        !self.filters || self.pods.left(slot) >= 1
    }
}

impl Strategy {
    /// From 0 to [`MAX_SCORE`], for a resource of which so much would be used.
    fn score(&self, allocatable: i64, used: i64) -> i64 {
        match self {
            Strategy::LeastAllocated => (allocatable - used) * MAX_SCORE / allocatable,
            Strategy::MostAllocated => used * MAX_SCORE / allocatable,
            Strategy::RequestedToCapacityRatio(points) => between(points, used * 100 / allocatable),
        }
    }
}

/// The value at `x` of the line through these points; before the first and after the last it is level.
fn between(points: &[(i64, i64)], x: i64) -> i64 {
    let next = points.partition_point(|(at, _)| *at < x);
    let before = next.checked_sub(1).and_then(|before| points.get(before));
    match (before, points.get(next)) {
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        (one, other) => one.or(other).map_or(0, |(_, y)| *y),
    }
}

impl Filter for NodeResourcesFit<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesFit
    }

    fn passes(&self, slot: Slot) -> bool {
        self.has_place(slot) && self.wanted.iter().all(|(_, amount, column)| column.left(slot) >= *amount)
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        let full = (!self.has_place(slot)).then_some(Reason::TooManyPods);
        let lacking = self.wanted.iter().filter(|(_, amount, column)| column.left(slot) < *amount);
        full.into_iter().chain(lacking.map(|(name, ..)| Reason::Insufficient((*name).into()))).collect()
    }
}

impl Score for NodeResourcesFit<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesFit
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        slots.iter().map(|slot| self.score(*slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_score_as_upstreams() {
        assert_eq!(Strategy::LeastAllocated.score(4000, 1000), 75);
        assert_eq!(Strategy::MostAllocated.score(4000, 1000), 25);
        let points = vec![(20, 0), (60, 100), (100, 50)];
        let ratio = Strategy::RequestedToCapacityRatio(points);
        let scores = [0, 20, 30, 60, 80, 100].map(|used| ratio.score(100, used));
        assert_eq!(scores, [0, 0, 25, 100, 75, 50]);
    }
}
