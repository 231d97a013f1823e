//! One decision: a pod and a snapshot to a node, or to the reasons why there is none.
//!
//! All nodes are scanned, none sampled. Equal best nodes are chosen between by a random number that the
//! caller brings, so the same inputs always give the same answer.

use crate::diagnosis::{Diagnosis, NodeExplanation, Rejection};
use crate::memo::{Memo, Terrain};
use crate::name::NodeName;
use crate::plugins::image_locality::ImageLocality;
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_name::NodeNameMatches;
use crate::plugins::node_ports::NodePorts;
use crate::plugins::node_resources_balanced_allocation::BalancedAllocation;
use crate::plugins::node_resources_fit::NodeResourcesFit;
use crate::plugins::node_unschedulable::NodeUnschedulable;
use crate::plugins::pod_topology_spread::{PodTopologySpread, SoftSpread};
use crate::plugins::taint_toleration::TaintToleration;
use crate::plugins::{Filter, Plugin, Score};
use crate::pod::{Needs, PodInfo};
use crate::ranking::Ranking;
use crate::snapshot::{Slot, Snapshot};
use crate::tally::Tallies;
use crate::volumes::VolumeRules;
use std::collections::BTreeMap;

/// What was decided about a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It goes to this node.
    Place(NodeName),
    /// No node is right.
    Unschedulable(Diagnosis),
}

/// The rules, prepared for one pod on one snapshot.
struct Rules<'a> {
    snapshot: &'a Snapshot,
    needs: &'a Needs,
    terrain: &'a Terrain,
    unschedulable: NodeUnschedulable<'a>,
    name: NodeNameMatches,
    taints: TaintToleration<'a>,
    affinity: NodeAffinity<'a>,
    ports: NodePorts<'a>,
    fit: NodeResourcesFit<'a>,
    volumes: Option<VolumeRules<'a>>,
    spread: PodTopologySpread,
    soft: SoftSpread<'a>,
    others: InterPodAffinity,
}

/// Decides about `pod`. Nodes in `excluded` are refused for the reasons there. `random` breaks ties.
pub fn decide(
    snapshot: &mut Snapshot,
    memo: &mut Memo,
    pod: &PodInfo,
    excluded: &BTreeMap<Slot, Rejection>,
    random: u64,
) -> Decision {
    let needs = &pod.shape.needs;
    let terrain = memo.terrain(snapshot, needs);
    let tallies = memo.tallies(snapshot, &pod.shape, &terrain);
    let ranking = memo.ranking(snapshot, needs, &terrain);
    let rules = Rules::new(snapshot, pod, &terrain, &tallies);
    let best = rules.best(&ranking, excluded, random).and_then(|slot| snapshot.node(slot));
    let decision = match best {
        Some(node) => Decision::Place(node.name.clone()),
        None => {
            let why = |slot: Slot| rules.rejections(slot).next().or_else(|| excluded.get(&slot).cloned());
            Decision::Unschedulable(Diagnosis::new(snapshot.known().filter_map(why)))
        }
    };
    memo.keep(needs, ranking);
    decision
}

/// Whether the node at `slot` would take `pod` as far as every rule goes.
pub fn admits(snapshot: &mut Snapshot, memo: &mut Memo, pod: &PodInfo, slot: Slot) -> bool {
    let terrain = memo.terrain(snapshot, &pod.shape.needs);
    if !terrain.admits(slot) {
        return false;
    }
    let tallies = memo.tallies(snapshot, &pod.shape, &terrain);
    Rules::new(snapshot, pod, &terrain, &tallies).passes(slot)
}

/// Why each node that refuses `pod` does: the first rule that objects, with its reasons.
pub fn rejections(snapshot: &mut Snapshot, memo: &mut Memo, pod: &PodInfo) -> Vec<(Slot, Rejection)> {
    let terrain = memo.terrain(snapshot, &pod.shape.needs);
    let tallies = memo.tallies(snapshot, &pod.shape, &terrain);
    let rules = Rules::new(snapshot, pod, &terrain, &tallies);
    let refused = snapshot.known().filter(|slot| !rules.passes(*slot));
    refused.map(|slot| (slot, rules.first_rejection(slot))).collect()
}

/// Whether the node at `slot` would take `pod` as far as rules about this node alone go (all but spreading and
/// affinity between pods).
pub fn would_admit(snapshot: &mut Snapshot, memo: &mut Memo, pod: &PodInfo, slot: Slot) -> bool {
    let needs = &pod.shape.needs;
    let terrain = memo.terrain(snapshot, needs);
    if snapshot.node(slot).is_none() || !terrain.admits(slot) {
        return false;
    }
    let fits = NodeResourcesFit::new(snapshot, needs).passes(slot);
    let volumes = VolumeRules::new(snapshot, &pod.shape);
    fits && NodePorts::new(snapshot, needs).passes(slot) && volumes.is_none_or(|rules| rules.passes(slot))
}

/// Everything each rule says about each node, for whoever asks why.
pub fn explain(snapshot: &mut Snapshot, memo: &mut Memo, pod: &PodInfo) -> Vec<NodeExplanation> {
    let terrain = memo.terrain(snapshot, &pod.shape.needs);
    let tallies = memo.tallies(snapshot, &pod.shape, &terrain);
    let rules = Rules::new(snapshot, pod, &terrain, &tallies);
    let feasible: Vec<Slot> = snapshot.known().filter(|slot| rules.passes(*slot)).collect();
    let scores = rules.scores(&feasible);
    let explain = |slot: Slot| {
        let place = feasible.iter().position(|one| *one == slot);
        let scores = scores.iter().filter_map(|(plugin, all)| Some((*plugin, *all.get(place?)?)));
        let node = snapshot.node(slot).expect("only known nodes are scanned");
        NodeExplanation {
            node: node.name.clone(),
            rejections: rules.rejections(slot).collect(),
            scores: scores.collect(),
        }
    };
    let mut all: Vec<_> = snapshot.known().map(explain).collect();
    all.sort_by(|a, b| a.node.cmp(&b.node));
    all
}

impl<'a> Rules<'a> {
    fn new(snapshot: &'a Snapshot, pod: &'a PodInfo, terrain: &'a Terrain, tallies: &'a Tallies) -> Self {
        let shape = &*pod.shape;
        let needs = &*shape.needs;
        Rules {
            snapshot,
            needs,
            terrain,
            unschedulable: NodeUnschedulable::new(snapshot, needs),
            name: NodeNameMatches::new(snapshot, pod),
            taints: TaintToleration::new(snapshot, needs),
            affinity: NodeAffinity::new(snapshot, needs),
            ports: NodePorts::new(snapshot, needs),
            fit: NodeResourcesFit::new(snapshot, needs),
            volumes: VolumeRules::new(snapshot, shape),
            spread: PodTopologySpread::new(shape, tallies),
            soft: SoftSpread::new(shape, tallies),
            others: InterPodAffinity::new(snapshot, pod, tallies),
        }
    }

    fn passes(&self, slot: Slot) -> bool {
        self.terrain.admits(slot)
            && self.fit.passes(slot)
            && self.name.passes(slot)
            && self.ports.passes(slot)
            && self.volumes_pass(slot)
            && self.spread.passes(slot)
            && self.others.passes(slot)
    }

    /// Whether a node that fits by itself is acceptable beside the others.
    fn passes_beside(&self, slot: Slot) -> bool {
        self.name.passes(slot)
            && self.volumes_pass(slot)
            && self.spread.passes(slot)
            && self.others.passes(slot)
    }

    fn volumes_pass(&self, slot: Slot) -> bool {
        self.volumes.as_ref().is_none_or(|rules| rules.passes(slot))
    }

    /// The best of the feasible nodes that aren't excluded.
    fn best(&self, ranking: &Ranking, excluded: &BTreeMap<Slot, Rejection>, random: u64) -> Option<Slot> {
        let passes = |slot: Slot| self.passes_beside(slot) && !excluded.contains_key(&slot);
        match self.compares() {
            false => ranking.best(passes, random),
            true => self.best_compared(ranking.fitting().filter(|(slot, _)| passes(*slot)), random),
        }
    }

    /// The same where a node's score depends on what others there are.
    fn best_compared(&self, fitting: impl Iterator<Item = (Slot, i64)>, random: u64) -> Option<Slot> {
        let (feasible, mut totals): (Vec<Slot>, Vec<i64>) = fitting.unzip();
        if let [] | [_] = *feasible {
            return feasible.first().copied();
        }
        for scores in self.relative().map(|rule| self.weighted(rule, &feasible)) {
            totals.iter_mut().zip(scores).for_each(|(total, score)| *total += score);
        }
        let best = totals.iter().max()?;
        let ties: Vec<Slot> =
            feasible.iter().zip(&totals).filter(|(_, total)| *total == best).map(|(slot, _)| *slot).collect();
        let pick = usize::try_from(random % ties.len() as u64).expect("an index into a slice");
        Some(ties[pick])
    }

    /// Whether some rule compares nodes with each other.
    fn compares(&self) -> bool {
        self.relative().next().is_some()
    }

    /// The rules that compare nodes with each other. One that says the same of every node is left out.
    fn relative(&self) -> impl Iterator<Item = &dyn Score> {
        let all: [(bool, &dyn Score); 4] = [
            (self.taints.discourages(), &self.taints),
            (self.affinity.prefers(), &self.affinity),
            (self.soft.has_rules(), &self.soft),
            (self.others.has_wishes(), &self.others),
        ];
        let asked = all.into_iter().filter(|(asked, rule)| *asked && self.weight(*rule) > 0);
        asked.map(|(_, rule)| rule)
    }

    fn weight(&self, rule: &dyn Score) -> i64 {
        self.needs.profile.weight(rule.plugin())
    }

    fn weighted(&self, rule: &dyn Score, feasible: &[Slot]) -> Vec<i64> {
        let weight = self.weight(rule);
        rule.scores(feasible).into_iter().map(|score| score * weight).collect()
    }

    /// Weighted scores of the feasible nodes, rule by rule.
    fn scores(&self, feasible: &[Slot]) -> Vec<(Plugin, Vec<i64>)> {
        let balance = BalancedAllocation::new(self.snapshot, self.needs);
        let images = ImageLocality::new(self.snapshot, self.needs);
        let all: [&dyn Score; 7] =
            [&self.taints, &self.affinity, &self.fit, &balance, &images, &self.soft, &self.others];
        let counted = all.into_iter().filter(|rule| self.weight(*rule) > 0);
        counted.map(|rule| (rule.plugin(), self.weighted(rule, feasible))).collect()
    }

    /// The rules in the order in which a node is asked; the first to refuse is the one that is blamed.
    fn filters(&self) -> impl Iterator<Item = &dyn Filter> {
        let alone: [&dyn Filter; 6] =
            [&self.unschedulable, &self.name, &self.taints, &self.affinity, &self.ports, &self.fit];
        let volumes = self.volumes.iter().flat_map(VolumeRules::filters);
        let beside: [&dyn Filter; 2] = [&self.spread, &self.others];
        alone.into_iter().chain(volumes).chain(beside)
    }

    fn rejections(&self, slot: Slot) -> impl Iterator<Item = Rejection> {
        let ask = move |rule: &dyn Filter| Rejection { plugin: rule.plugin(), reasons: rule.reasons(slot) };
        let of_pod = self.volumes.as_ref().and_then(VolumeRules::problem);
        let of_node = self.filters().map(ask).filter(|rejection| !rejection.reasons.is_empty());
        let told = of_pod.is_some();
        // What is about the pod comes first, and once.
        let new = move |rejection: &Rejection| !told || rejection.plugin != Plugin::VolumeBinding;
        of_pod.into_iter().chain(of_node.filter(new))
    }

    fn first_rejection(&self, slot: Slot) -> Rejection {
        self.rejections(slot).next().expect("a node that isn't feasible was refused by some rule")
    }
}
