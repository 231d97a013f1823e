//! Rejects nodes that would make a hard spread rule uneven; prefers those that make soft ones even.
//!
//! The counts per node are kept by the snapshot; here they are only summed per domain, once a decision.

use super::{Filter, MAX_SCORE, Plugin, Reason, Score};
use crate::memo::Terrain;
use crate::pod::Shape;
use crate::snapshot::{Slot, Snapshot};
use crate::spread::{SpreadRule, Unsatisfiable};
use crate::topology::Domains;
use std::sync::Arc;

/// The hard rules, prepared for one pod.
pub struct PodTopologySpread {
    rules: Vec<HardRule>,
}

struct HardRule {
    domains: Arc<Domains>,
    /// Pods by domain; `None` for a domain without an eligible node.
    pods: Vec<Option<u32>>,
    /// The most pods that a domain may hold before this one is added.
    limit: i64,
}

impl PodTopologySpread {
    /// Sums the counts of the pod's hard rules.
    pub fn new(snapshot: &Snapshot, shape: &Shape, terrain: &Terrain) -> Self {
        let hard: Vec<_> = rules(shape, terrain, Unsatisfiable::DoNotSchedule).collect();
        let complete = |slot: Slot| hard.iter().all(|(_, domains)| domains.of(slot).is_some());
        let rules = hard.iter().map(|(rule, domains)| {
            let eligible = snapshot.known().filter(|slot| complete(*slot) && terrain.is_domain(*slot, rule));
            HardRule::new(rule, domains, snapshot.counts(&rule.counted), eligible)
        });
        PodTopologySpread { rules: rules.collect() }
    }

    fn reason(&self, slot: Slot) -> Option<Reason> {
        self.rules.iter().find_map(|rule| rule.reason(slot))
    }
}

fn rules<'a>(
    shape: &'a Shape,
    terrain: &'a Terrain,
    when: Unsatisfiable,
) -> impl Iterator<Item = (&'a SpreadRule, &'a Arc<Domains>)> {
    let all = shape.spread.iter().zip(&terrain.domains);
    all.filter(move |(rule, _)| rule.when == when)
}

impl HardRule {
    fn new(
        rule: &SpreadRule,
        domains: &Arc<Domains>,
        counts: &[u32],
        eligible: impl Iterator<Item = Slot>,
    ) -> Self {
        let pods = domains.sum(counts, eligible);
        let known = pods.iter().flatten().count();
        let enough = i64::try_from(known).expect("a count") >= i64::from(rule.min_domains);
        let fewest = pods.iter().flatten().min().filter(|_| enough).map_or(0, |pods| i64::from(*pods));
        let limit = fewest + i64::from(rule.max_skew) - i64::from(rule.counts_itself);
        HardRule { domains: domains.clone(), pods, limit }
    }

    fn reason(&self, slot: Slot) -> Option<Reason> {
        let Some(domain) = self.domains.of(slot) else { return Some(Reason::TopologySpreadMissingLabel) };
        (i64::from(self.pods[domain].unwrap_or(0)) > self.limit).then_some(Reason::TopologySpread)
    }
}

impl Filter for PodTopologySpread {
    fn plugin(&self) -> Plugin {
        Plugin::PodTopologySpread
    }

    fn passes(&self, slot: Slot) -> bool {
        self.rules.is_empty() || self.reason(slot).is_none()
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        self.reason(slot).into_iter().collect()
    }
}

/// The soft rules, prepared for one pod.
pub struct SoftSpread<'a> {
    snapshot: &'a Snapshot,
    shape: &'a Shape,
    terrain: &'a Terrain,
}

impl<'a> SoftSpread<'a> {
    /// Prepares the score.
    pub fn new(snapshot: &'a Snapshot, shape: &'a Shape, terrain: &'a Terrain) -> Self {
        SoftSpread { snapshot, shape, terrain }
    }

    /// Whether there is a soft rule.
    pub fn has_rules(&self) -> bool {
        self.shape.spread.iter().any(|rule| rule.when == Unsatisfiable::ScheduleAnyway)
    }

    /// Cost of one rule for each of `slots`: its domain's pods, weighted so that rules with many domains,
    /// whose counts are smaller, are not drowned by those with few.
    fn cost(&self, rule: &SpreadRule, domains: &Domains, slots: &[Slot]) -> Vec<f64> {
        let eligible = self.snapshot.known().filter(|slot| self.terrain.is_domain(*slot, rule));
        let pods = domains.sum(self.snapshot.counts(&rule.counted), eligible);
        let mut present: Vec<usize> = slots.iter().filter_map(|slot| domains.of(*slot)).collect();
        present.sort_unstable();
        present.dedup();
        let weight = ((present.len() + 2) as f64).ln();
        let cost = |slot: &Slot| {
            let pods = domains.of(*slot).map(|domain| pods[domain].unwrap_or(0));
            pods.map_or(0.0, |pods| f64::from(pods) * weight + f64::from(rule.max_skew - 1))
        };
        slots.iter().map(cost).collect()
    }

    /// Whether a node lacks the label of one of the pod's own soft rules; it then gets the lowest score.
    fn is_ignored(&self, slot: Slot) -> bool {
        let mut soft = rules(self.shape, self.terrain, Unsatisfiable::ScheduleAnyway);
        soft.any(|(rule, domains)| !rule.implied && domains.of(slot).is_none())
    }
}

impl Score for SoftSpread<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::PodTopologySpread
    }

    fn weight(&self) -> i64 {
        2
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        let mut costs = vec![0.0; slots.len()];
        for (rule, domains) in rules(self.shape, self.terrain, Unsatisfiable::ScheduleAnyway) {
            let more = self.cost(rule, domains, slots);
            costs.iter_mut().zip(more).for_each(|(cost, more)| *cost += more);
        }
        let rounded = costs.iter().map(|cost| cost.round() as i64);
        let costs =
            rounded.zip(slots).map(|(cost, slot)| (!self.is_ignored(*slot)).then_some(cost)).collect();
        fewest_pods_best(costs)
    }
}

/// Turns costs into scores: the cheapest gets [`MAX_SCORE`], an ignored node 0.
fn fewest_pods_best(costs: Vec<Option<i64>>) -> Vec<i64> {
    let most = costs.iter().flatten().max().copied().unwrap_or(0);
    let least = costs.iter().flatten().min().copied().unwrap_or(0);
    let score = |cost: i64| if most == 0 { MAX_SCORE } else { MAX_SCORE * (most + least - cost) / most };
    costs.into_iter().map(|cost| cost.map_or(0, score)).collect()
}
