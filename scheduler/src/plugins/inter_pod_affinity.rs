//! Rejects nodes whose domain lacks the pods this one must be near, holds pods it must be apart from, or
//! holds pods that must be apart from it; prefers domains as the pod wishes.

use super::{Filter, MAX_SCORE, Plugin, Reason, Score};
use crate::memo::Memo;
use crate::pod::{PodInfo, Shape};
use crate::snapshot::{Slot, Snapshot};
use crate::spread::Counted;
use crate::topology::Domains;
use std::sync::Arc;

/// The rule, prepared for one pod: counts per domain for each term.
pub struct InterPodAffinity {
    near: Vec<Counts>,
    /// Nobody to be near exists yet and the pod is one of those it wants to be near: it may be the first.
    may_be_first: bool,
    apart: Vec<Counts>,
    /// Terms of other pods that this pod would violate.
    kept_away: Vec<Counts>,
    wishes: Vec<(i64, Counts)>,
}

struct Counts {
    domains: Arc<Domains>,
    pods: Vec<Option<u32>>,
}

impl Counts {
    fn new(snapshot: &Snapshot, domains: Arc<Domains>, counts: &[u32]) -> Self {
        Counts { pods: domains.sum(counts, snapshot.known()), domains }
    }

    /// Pods in the node's domain; `None` if the node is in none.
    fn around(&self, slot: Slot) -> Option<u32> {
        self.domains.of(slot).map(|domain| self.pods[domain].unwrap_or(0))
    }

    fn any_around(&self, slot: Slot) -> bool {
        self.around(slot).is_some_and(|pods| pods > 0)
    }

    fn is_zero(&self) -> bool {
        self.pods.iter().flatten().all(|pods| *pods == 0)
    }
}

impl InterPodAffinity {
    /// Sums the counts of the pod's terms, and of the terms of placed pods that are about it.
    pub fn new(snapshot: &Snapshot, memo: &mut Memo, pod: &PodInfo) -> Self {
        let Shape { affinity, namespace, labels, .. } = &*pod.shape;
        let mut count = |key: &str, counted: &Counted| {
            Counts::new(snapshot, memo.domains(snapshot, key), snapshot.counts(counted))
        };
        let companions = affinity.companions();
        let near: Vec<Counts> = companions
            .iter()
            .flat_map(|all| affinity.near.iter().map(move |term| (term, all)))
            .map(|(term, all)| count(&term.topology_key, all))
            .collect();
        let apart = affinity.apart.iter().map(|term| count(&term.topology_key, &term.counted())).collect();
        let wish = |(weight, term): &(i64, crate::affinity::Term)| {
            (*weight, count(&term.topology_key, &term.counted()))
        };
        let wishes = affinity.preferred.iter().map(wish).collect();
        let about_us = snapshot.distances().filter(|(term, _)| term.group.contains(namespace, labels));
        let kept_away = about_us
            .map(|(term, held)| Counts::new(snapshot, memo.domains(snapshot, &term.topology_key), held));
        InterPodAffinity {
            may_be_first: near.iter().all(Counts::is_zero) && companions.is_some_and(|all| all.counts(pod)),
            kept_away: kept_away.collect(),
            near,
            apart,
            wishes,
        }
    }

    /// Whether the pod prefers nodes by who is there.
    pub fn has_wishes(&self) -> bool {
        !self.wishes.is_empty()
    }

    fn reason(&self, slot: Slot) -> Option<Reason> {
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

    fn weight(&self) -> i64 {
        2
    }

    fn scores(&self, slots: &[Slot]) -> Vec<i64> {
        let wish =
            |slot: Slot, (weight, term): &(i64, Counts)| weight * i64::from(term.around(slot).unwrap_or(0));
        let sum = |slot: &Slot| self.wishes.iter().map(|one| wish(*slot, one)).sum();
        let sums: Vec<i64> = slots.iter().map(sum).collect();
        let least = sums.iter().min().copied().unwrap_or(0);
        let range = sums.iter().max().copied().unwrap_or(0) - least;
        sums.into_iter().map(|sum| if range == 0 { 0 } else { (sum - least) * MAX_SCORE / range }).collect()
    }
}
