//! Rejects nodes whose domain lacks the pods this one must be near, holds pods it must be apart from, or
//! holds pods that must be apart from it; prefers domains as the pod wishes, and as the pods there do.

use super::{Filter, MAX_SCORE, Plugin, Reason, Score};
use crate::pod::PodInfo;
use crate::snapshot::{Slot, Snapshot};
use crate::tally::{Tallies, Tally};
use std::sync::Arc;

/// The rule, prepared for one pod: counts per domain for each term.
pub struct InterPodAffinity {
    near: Vec<Arc<Tally>>,
    /// Nobody to be near exists yet and the pod is one of those it wants to be near: it may be the first.
    may_be_first: bool,
    apart: Vec<Arc<Tally>>,
    /// Terms of other pods that this pod would violate.
    kept_away: Vec<Arc<Tally>>,
    wishes: Vec<(i64, Arc<Tally>)>,
    filters: bool,
}

impl InterPodAffinity {
    /// Prepares the rule.
    pub fn new(snapshot: &Snapshot, pod: &PodInfo, tallies: &Tallies) -> Self {
        let affinity = &pod.shape.affinity;
        let is_zero = |tally: &Arc<Tally>| tally.sums().all(|pods| pods == 0);
        let namespaces = snapshot.namespaces();
        let is_companion = || affinity.companions().is_some_and(|all| all.counts(pod, namespaces));
        let weights = affinity.preferred.iter().map(|(weight, _)| *weight);
        InterPodAffinity {
            may_be_first: tallies.near.iter().all(is_zero) && is_companion(),
            near: tallies.near.clone(),
            apart: tallies.apart.clone(),
            kept_away: tallies.kept_away.clone(),
            wishes: weights.zip(tallies.wishes.iter().cloned()).chain(pulls(pod, tallies)).collect(),
            filters: pod.shape.needs.profile.filters(Plugin::InterPodAffinity),
        }
    }

    /// Whether the pod prefers nodes by who is there.
    pub fn has_wishes(&self) -> bool {
        !self.wishes.is_empty()
    }

    fn reason(&self, slot: Slot) -> Option<Reason> {
        if !self.filters {
            return None;
        }
        let in_domains = self.near.iter().all(|term| term.around(slot).is_some());
        let accompanied = self.near.iter().all(|term| term.any_around(slot));
        if !in_domains || !(accompanied || self.may_be_first) {
            Some(Reason::PodAffinity)
        } else if self.apart.iter().any(|term| term.any_around(slot)) {
            Some(Reason::PodAntiAffinity)
        } else {
            let kept_away = self.kept_away.iter().any(|term| term.any_around(slot));
            kept_away.then_some(Reason::ExistingPodsAntiAffinity)
        }
    }
}

/// What those who are there already make of the pod's coming, as far as its profile lets that count.
fn pulls(pod: &PodInfo, tallies: &Tallies) -> impl Iterator<Item = (i64, Arc<Tally>)> {
    let profile = &pod.shape.needs.profile;
    let counts = !profile.ignore_others_wishes || !pod.shape.affinity.preferred.is_empty();
    let worth = |weight: &Option<i64>| weight.unwrap_or(profile.hard_affinity);
    let pulls = tallies.pulled.iter().filter(move |_| counts);
    pulls.map(move |(weight, tally)| (worth(weight), tally.clone())).filter(|(weight, _)| *weight != 0)
}

impl Filter for InterPodAffinity {
    fn plugin(&self) -> Plugin {
        Plugin::InterPodAffinity
    }

    fn passes(&self, slot: Slot) -> bool {
        self.reason(slot).is_none()
    }

    fn reasons(&self, slot: Slot) -> Vec<Reason> {
        self.reason(slot).into_iter().collect()
    }
}

impl Score for InterPodAffinity {
    fn plugin(&self) -> Plugin {
        Plugin::InterPodAffinity
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        let wish = |slot: Slot, (weight, term): &(i64, Arc<Tally>)| {
            weight * i64::from(term.around(slot).unwrap_or(0))
        };
        let sum = |slot: &Slot| self.wishes.iter().map(|one| wish(*slot, one)).sum();
        let sums: Vec<i64> = slots.iter().map(sum).collect();
        let least = sums.iter().min().copied().unwrap_or(0);
        let range = sums.iter().max().copied().unwrap_or(0) - least;
        sums.into_iter().map(|sum| if range == 0 { 0 } else { (sum - least) * MAX_SCORE / range }).collect()
    }
}
