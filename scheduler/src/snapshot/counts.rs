//! How many pods of some set each slot holds.
//!
//! Sets that rules of waiting pods ask about are counted from when they are tracked; what placed pods say about
//! others, and the claims that they use, always are. What always holds: every count is the number of the set's pods
//! among those that were accounted for the slot.

use super::Slot;
use crate::affinity::{Pull, Term};
use crate::name::ClaimKey;
use crate::namespace::Namespaces;
use crate::pod::PodInfo;
use crate::spread::Counted;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// All counts, each by slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    slots: usize,
    tracked: HashMap<Counted, Vec<u32>>,
    /// The keys of `tracked` that must be tried on every pod; the others are found by the pod's owner.
    selected: Vec<Counted>,
    /// For each term of anti-affinity that some placed pod has: how many such pods each slot holds.
    distances: HashMap<Term, Vec<u32>>,
    /// The same for what placed pods say that draws others to them.
    pulls: HashMap<Pull, Vec<u32>>,
    /// How many placed pods use a claim, wherever they are.
    users: HashMap<ClaimKey, u32>,
}

impl Counts {
    /// A tracked set; empty if it isn't tracked.
    pub(super) fn of(&self, counted: &Counted) -> &[u32] {
        self.tracked.get(counted).map(Vec::as_slice).unwrap_or_default()
    }

    /// The terms of anti-affinity of placed pods.
    pub(super) fn distances(&self) -> impl Iterator<Item = (&Term, &[u32])> {
        self.distances.iter().map(|(term, counts)| (term, counts.as_slice()))
    }

    /// What placed pods say that draws others to them.
    pub(super) fn pulls(&self) -> impl Iterator<Item = (&Pull, &[u32])> {
        self.pulls.iter().map(|(pull, counts)| (pull, counts.as_slice()))
    }

    /// How many placed pods use a claim.
    pub(super) fn users(&self, claim: &ClaimKey) -> u32 {
        self.users.get(claim).copied().unwrap_or(0)
    }

    /// There are so many slots now.
    pub(super) fn grow(&mut self, slots: usize) {
        self.slots = slots;
        self.tracked.values_mut().for_each(|counts| counts.resize(slots, 0));
        self.distances.values_mut().for_each(|counts| counts.resize(slots, 0));
        self.pulls.values_mut().for_each(|counts| counts.resize(slots, 0));
    }

    /// Begins to count a set; `on_slot` has the placed pods. Counting it again costs nothing.
    pub(super) fn track(
        &mut self,
        counted: &Counted,
        on_slot: &[Vec<Arc<PodInfo>>],
        namespaces: &Namespaces,
    ) {
        if self.tracked.contains_key(counted) {
            return;
        }
        let count = |pods: &Vec<Arc<PodInfo>>| {
            let here = pods.iter().filter(|pod| counted.counts(pod, namespaces)).count();
            u32::try_from(here).expect("fewer than 2^32 pods on a node")
        };
        if !matches!(counted, Counted::Owned(_)) {
            self.selected.push(counted.clone());
        }
        self.tracked.insert(counted.clone(), on_slot.iter().map(count).collect());
    }

    /// Forgets every tracked set.
    pub(super) fn untrack_all(&mut self) {
        self.tracked.clear();
        self.selected.clear();
    }

    /// Forgets the sets that choose namespaces by their labels. False if there are none.
    pub(super) fn untrack_by_namespaces(&mut self) -> bool {
        let before = self.tracked.len();
        self.tracked.retain(|counted, _| !counted.asks_namespaces());
        self.selected.retain(|counted| !counted.asks_namespaces());
        self.tracked.len() < before
    }

    /// Adds (`sign` 1) or takes back (-1) a pod on its slot.
    pub(super) fn account(&mut self, slot: Slot, pod: &PodInfo, namespaces: &Namespaces, sign: i64) {
        let at = slot.index();
        let owned = pod.owner.clone().map(Counted::Owned);
        let counting = self.selected.iter().chain(&owned);
        for counted in counting.filter(|counted| counted.counts(pod, namespaces)) {
            if let Some(counts) = self.tracked.get_mut(counted) {
                step(&mut counts[at], sign);
            }
        }
        for term in &pod.shape.affinity.apart {
            count_held(&mut self.distances, term, (at, self.slots), sign);
        }
        for pull in pod.shape.affinity.pulls() {
            count_held(&mut self.pulls, &pull, (at, self.slots), sign);
        }
        pod.shape.claims.iter().for_each(|used| self.count_user(&used.key, sign));
    }

    fn count_user(&mut self, claim: &ClaimKey, sign: i64) {
        let count = self.users.entry(claim.clone()).or_insert(0);
        step(count, sign);
        if *count == 0 {
            self.users.remove(claim);
        }
    }
}

/// One pod more, or less, that says this is on the slot `at`.
fn count_held<K: Clone + Eq + Hash>(
    held: &mut HashMap<K, Vec<u32>>,
    said: &K,
    (at, slots): (usize, usize),
    sign: i64,
) {
    let counts = held.entry(said.clone()).or_insert_with(|| vec![0; slots]);
    step(&mut counts[at], sign);
    if sign < 0 && counts[at] == 0 && counts.iter().all(|count| *count == 0) {
        held.remove(said);
    }
}

fn step(count: &mut u32, sign: i64) {
    *count = u32::try_from(i64::from(*count) + sign).expect("a pod leaves only after it was counted");
}
