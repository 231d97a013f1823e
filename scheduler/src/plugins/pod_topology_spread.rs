//! Rejects nodes that would make a hard spread rule uneven; prefers those that make soft ones even.
//!
//! The counts per domain are kept by tallies; here they are only compared.

use super::{Filter, MAX_SCORE, Plugin, Reason, Score};
use crate::pod::Shape;
use crate::snapshot::Slot;
use crate::spread::SpreadRule;
use crate::tally::{Tallies, Tally};
use std::sync::Arc;

/// The hard rules, prepared for one pod.
pub struct PodTopologySpread {
    rules: Vec<HardRule>,
}

struct HardRule {
    pods: Arc<Tally>,
    /// The most pods that a domain may hold before this one is added.
    limit: i64,
}

impl PodTopologySpread {
    /// Prepares the rule.
    pub fn new(shape: &Shape, tallies: &Tallies) -> Self {
        let filters = shape.needs.profile.filters(Plugin::PodTopologySpread);
        let hard = rules(shape, tallies).filter(|(rule, _)| filters && !rule.is_soft());
        PodTopologySpread { rules: hard.map(|(rule, pods)| HardRule::new(rule, pods)).collect() }
    }

    fn reason(&self, slot: Slot) -> Option<Reason> {
        self.rules.iter().find_map(|rule| rule.reason(slot))
    }
}

fn rules<'a>(
    shape: &'a Shape,
    tallies: &'a Tallies,
) -> impl Iterator<Item = (&'a SpreadRule, &'a Arc<Tally>)> {
    shape.spread.iter().zip(&tallies.spread)
}

impl HardRule {
    fn new(rule: &SpreadRule, pods: &Arc<Tally>) -> Self {
        let enough = i64::try_from(pods.sums().count()).expect("a count") >= i64::from(rule.min_domains);
        let fewest = pods.sums().min().filter(|_| enough).map_or(0, i64::from);
        let limit = fewest + i64::from(rule.max_skew) - i64::from(rule.counts_itself);
        HardRule { pods: pods.clone(), limit }
    }

    fn reason(&self, slot: Slot) -> Option<Reason> {
        let Some(pods) = self.pods.around(slot) else { return Some(Reason::TopologySpreadMissingLabel) };
        (i64::from(pods) > self.limit).then_some(Reason::TopologySpread)
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
    rules: Vec<(&'a SpreadRule, &'a Tally)>,
}

impl<'a> SoftSpread<'a> {
    /// Prepares the score.
    pub fn new(shape: &'a Shape, tallies: &'a Tallies) -> Self {
        let soft = rules(shape, tallies).filter(|(rule, _)| rule.is_soft());
        SoftSpread { rules: soft.map(|(rule, pods)| (rule, &**pods)).collect() }
    }

    /// Whether there is a soft rule.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Cost of one rule for each of `slots`: its domain's pods, weighted so that rules with many domains,
    /// whose counts are smaller, are not drowned by those with few.
    fn cost(rule: &SpreadRule, tally: &Tally, slots: &[Slot]) -> Vec<f64> {
        let weight = ((tally.domains_of(slots) + 2) as f64).ln();
        let cost = |slot: &Slot| {
            let pods = tally.around(*slot);
            pods.map_or(0.0, |pods| f64::from(pods) * weight + f64::from(rule.max_skew - 1))
        };
        slots.iter().map(cost).collect()
    }

    /// Whether a node lacks the label of one of the pod's own soft rules; it then gets the lowest score.
    fn is_ignored(&self, slot: Slot) -> bool {
        self.rules.iter().any(|(rule, tally)| !rule.implied && tally.domain(slot).is_none())
    }
}

impl Score for SoftSpread<'_> {
    fn plugin(&self) -> Plugin {
        Plugin::PodTopologySpread
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        let mut costs = vec![0.0; slots.len()];
        for (rule, tally) in &self.rules {
            let more = Self::cost(rule, tally, slots);
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
