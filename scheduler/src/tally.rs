//! Counts of pods per domain, brought up to date by what has changed.
//!
//! The rules about where other pods are ask how many of some set are in each domain of a topology. A placed pod
//! changes one node's count, so between two decisions almost nothing has to be added up anew; the snapshot's log
//! tells what.

use crate::affinity::{Pull, Term};
use crate::memo::Terrain;
use crate::pod::Shape;
use crate::snapshot::{Position, Slot, Snapshot};
use crate::spread::SpreadRule;
use crate::topology::Domains;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Pods of one set by domain.
#[derive(Clone, Debug)]
pub struct Tally {
    domains: Arc<Domains>,
    /// By slot: the domain for which its pods count.
    counts_for: Vec<Option<u32>>,
    /// By slot: how many of its pods are in the sums.
    counted: Vec<u32>,
    /// By domain; `None` without any node that counts for it.
    sums: Vec<Option<u32>>,
    position: Option<Position>,
}

impl Tally {
    /// Of nothing yet; pods on nodes that aren't `eligible` will never count.
    fn new(snapshot: &Snapshot, domains: Arc<Domains>, eligible: impl Fn(Slot) -> bool) -> Tally {
        let counts_for = snapshot.all_slots().map(|slot| domains.id(slot).filter(|_| eligible(slot)));
        let mut tally = Tally {
            counts_for: counts_for.collect(),
            counted: Vec::new(),
            sums: vec![None; domains.count()],
            position: None,
            domains,
        };
        for domain in tally.counts_for.iter().flatten() {
            tally.sums[*domain as usize] = Some(0);
        }
        tally
    }

    /// Takes in what has changed; `counts` has the set's pods by slot.
    fn refresh(&mut self, snapshot: &Snapshot, counts: &[u32]) {
        self.counted.resize(snapshot.slots(), 0);
        match self.position.and_then(|position| snapshot.changed_since(position)) {
            Some(changed) => changed.iter().for_each(|slot| self.recount(*slot, counts)),
            None => snapshot.all_slots().for_each(|slot| self.recount(slot, counts)),
        }
        self.position = Some(snapshot.position());
    }

    fn recount(&mut self, slot: Slot, counts: &[u32]) {
        let now = counts.get(slot.index()).copied().unwrap_or(0);
        let before = std::mem::replace(&mut self.counted[slot.index()], now);
        let domain = self.counts_for.get(slot.index()).copied().flatten();
        if let Some(sum) = domain.and_then(|domain| self.sums[domain as usize].as_mut()) {
            *sum = *sum - before + now;
        }
    }

    /// The domain of a node, whether its pods count or not.
    pub fn domain(&self, slot: Slot) -> Option<usize> {
        self.domains.of(slot)
    }

    /// Pods in the node's domain; `None` if the node is in none.
    pub fn around(&self, slot: Slot) -> Option<u32> {
        self.domain(slot).map(|domain| self.sums[domain].unwrap_or(0))
    }

    /// Whether a pod is in the node's domain.
    pub fn any_around(&self, slot: Slot) -> bool {
        self.around(slot).is_some_and(|pods| pods > 0)
    }

    /// The counts of the domains for which some node counts.
    pub fn sums(&self) -> impl Iterator<Item = u32> {
        self.sums.iter().flatten().copied()
    }

    /// In how many different domains these nodes are.
    pub fn domains_of(&self, slots: &[Slot]) -> usize {
        let mut seen = vec![false; self.sums.len()];
        let news = slots.iter().filter_map(|slot| self.domain(*slot));
        news.filter(|domain| !std::mem::replace(&mut seen[*domain], true)).count()
    }
}

/// What the rules of one pod about others have to know.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// By rule of `Shape::spread`.
    pub spread: Vec<Arc<Tally>>,
    /// By term of `PodAffinity::near`: the pods that match all of them.
    pub near: Vec<Arc<Tally>>,
    /// By term of `PodAffinity::apart`.
    pub apart: Vec<Arc<Tally>>,
    /// By term of `PodAffinity::preferred`.
    pub wishes: Vec<Arc<Tally>>,
    /// Of the terms of placed pods that are about this one.
    pub kept_away: Vec<Arc<Tally>>,
    /// Of what placed pods say that draws this one to them, or away.
    pub pulled: Vec<(Option<i64>, Arc<Tally>)>,
}

/// All tallies that were needed since a node changed.
#[derive(Debug, Default)]
pub struct TallyBook {
    /// Those of a shape's own rules.
    own: HashMap<Arc<Shape>, Tallies>,
    /// Those of the terms that placed pods have.
    distances: HashMap<Term, Arc<Tally>>,
    pulls: HashMap<Pull, Arc<Tally>>,
}

impl TallyBook {
    /// Whether there are those of a shape.
    pub fn has(&self, shape: &Arc<Shape>) -> bool {
        self.own.contains_key(shape)
    }

    /// For how many shapes there are some.
    pub fn shapes(&self) -> usize {
        self.own.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.own.clear();
        self.distances.clear();
        self.pulls.clear();
    }

    /// What a pod of this shape has to know. The sets that its rules count must be tracked by the snapshot.
    pub fn of(
        &mut self,
        snapshot: &Snapshot,
        shape: &Arc<Shape>,
        terrain: &Terrain,
        domains: &mut impl FnMut(&str) -> Arc<Domains>,
    ) -> Tallies {
        let is_meant =
            |term: &Term| term.group.contains(&shape.namespace, &shape.labels, snapshot.namespaces());
        let kept_away = snapshot
            .distances()
            .filter(|(term, _)| is_meant(term))
            .map(|(term, held)| renewed(&mut self.distances, snapshot, (term, term), held, domains))
            .collect();
        let pulled = snapshot
            .pulls()
            .filter(|(pull, _)| is_meant(&pull.term))
            .map(|(pull, held)| {
                (pull.weight, renewed(&mut self.pulls, snapshot, (pull, &pull.term), held, domains))
            })
            .collect();
        if !shape.has_rules_about_others() {
            return Tallies { kept_away, pulled, ..Tallies::default() };
        }
        if !self.has(shape) {
            self.own.insert(shape.clone(), Tallies::begin(snapshot, shape, terrain, domains));
        }
        let own = self.own.get_mut(shape).expect("it was just made if it was missing");
        own.refresh(snapshot, shape);
        Tallies { kept_away, pulled, ..own.clone() }
    }
}

/// The tally of those who say something about the domains of a term, with what has changed.
fn renewed<K: Clone + Eq + Hash>(
    tallies: &mut HashMap<K, Arc<Tally>>,
    snapshot: &Snapshot,
    (said, term): (&K, &Term),
    held: &[u32],
    domains: &mut impl FnMut(&str) -> Arc<Domains>,
) -> Arc<Tally> {
    if !tallies.contains_key(said) {
        let tally = Arc::new(Tally::new(snapshot, domains(&term.topology_key), |_| true));
        tallies.insert(said.clone(), tally);
    }
    let tally = tallies.get_mut(said).expect("it was just made if it was missing");
    Arc::make_mut(tally).refresh(snapshot, held);
    tally.clone()
}

impl Tallies {
    fn begin(
        snapshot: &Snapshot,
        shape: &Shape,
        terrain: &Terrain,
        domains: &mut impl FnMut(&str) -> Arc<Domains>,
    ) -> Tallies {
        let affinity = &shape.affinity;
        let mut about = |term: &Term| Arc::new(Tally::new(snapshot, domains(&term.topology_key), |_| true));
        Tallies {
            near: affinity.near.iter().map(&mut about).collect(),
            apart: affinity.apart.iter().map(&mut about).collect(),
            wishes: affinity.preferred.iter().map(|(_, term)| about(term)).collect(),
            spread: spread(snapshot, &shape.spread, terrain, domains),
            kept_away: Vec::new(),
            pulled: Vec::new(),
        }
    }

    fn refresh(&mut self, snapshot: &Snapshot, shape: &Shape) {
        let affinity = &shape.affinity;
        for (tally, rule) in self.spread.iter_mut().zip(&shape.spread) {
            Arc::make_mut(tally).refresh(snapshot, snapshot.counts(&rule.counted));
        }
        if let Some(companions) = affinity.companions() {
            let counts = snapshot.counts(&companions);
            self.near.iter_mut().for_each(|tally| Arc::make_mut(tally).refresh(snapshot, counts));
        }
        let wished = affinity.preferred.iter().map(|(_, term)| term);
        let terms = affinity.apart.iter().chain(wished);
        for (tally, term) in self.apart.iter_mut().chain(&mut self.wishes).zip(terms) {
            Arc::make_mut(tally).refresh(snapshot, snapshot.counts(&term.counted()));
        }
    }
}

/// A node counts for a hard rule only if it has the labels of all of them.
fn spread(
    snapshot: &Snapshot,
    rules: &[SpreadRule],
    terrain: &Terrain,
    domains: &mut impl FnMut(&str) -> Arc<Domains>,
) -> Vec<Arc<Tally>> {
    let all: Vec<Arc<Domains>> = rules.iter().map(|rule| domains(&rule.topology_key)).collect();
    let hard = || rules.iter().zip(&all).filter(|(rule, _)| !rule.is_soft());
    let complete = |slot: Slot| hard().all(|(_, domains)| domains.of(slot).is_some());
    let tally = |(rule, domains): (&SpreadRule, &Arc<Domains>)| {
        let eligible = |slot: Slot| terrain.is_domain(slot, rule) && (rule.is_soft() || complete(slot));
        Arc::new(Tally::new(snapshot, domains.clone(), eligible))
    };
    rules.iter().zip(&all).map(tally).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeInfo;
    use crate::snapshot::Snapshot;
    use serde_json::json;

    fn node(name: &str, zone: &str) -> NodeInfo {
        let node = json!({"metadata": {"name": name, "labels": {"zone": zone}}});
        NodeInfo::of(&serde_json::from_value(node).expect("a node"))
    }

    #[test]
    fn what_was_added_up_follows_every_change() {
        let mut snapshot = Snapshot::default();
        let slots: Vec<Slot> = [("a", "1"), ("b", "1"), ("c", "2")]
            .into_iter()
            .filter_map(|(name, zone)| snapshot.set_node(node(name, zone)))
            .collect();
        let domains = Arc::new(Domains::new(&snapshot, "zone"));
        let mut tally = Tally::new(&snapshot, domains, |slot| slot != slots[1]);
        tally.refresh(&snapshot, &[1, 5, 2]);
        assert_eq!(tally.sums().collect::<Vec<_>>(), [1, 2], "who isn't eligible doesn't count");
        assert_eq!(slots.iter().map(|slot| tally.around(*slot)).collect::<Vec<_>>(), [1, 1, 2].map(Some));
        // Only what the log names is looked at anew.
        snapshot.set_node(node("c", "3"));
        tally.refresh(&snapshot, &[9, 9, 7]);
        assert_eq!(tally.sums().collect::<Vec<_>>(), [1, 7]);
        assert_eq!(tally.domains_of(&slots), 2);
    }
}
