//! Work that decisions share: which nodes pods of some needs may use at all, and the domains of topology keys.
//!
//! Both depend on node objects only, so they outlive the coming and going of pods; with them is kept what changes
//! with every pod, but little: rankings and tallies. Entries are refreshed on use; when there are too many, all are
//! dropped, because what is needed again is quickly made again.

use crate::plugins::Filter;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_unschedulable::NodeUnschedulable;
use crate::plugins::taint_toleration::TaintToleration;
use crate::pod::{Needs, Shape};
use crate::ranking::Ranking;
use crate::snapshot::{Slot, Snapshot, Version};
use crate::spread::SpreadRule;
use crate::tally::{Tallies, TallyBook};
use crate::topology::Domains;
use std::collections::HashMap;
use std::sync::Arc;

/// How many shapes, and how many needs, are remembered. With 5,000 nodes an entry takes 15 kB, and 60 kB for each
/// rule about others.
const SHAPES: usize = 256;

/// What node objects mean to pods of the same needs.
#[derive(Debug, Default)]
pub struct Terrain {
    /// By slot.
    nodes: Vec<Standing>,
    computed: Version,
}

/// What one node object means to them.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// No rule rejects it.
    admits: bool,
    tolerated: bool,
    affine: bool,
}

impl Terrain {
    /// Whether no rule about node objects rejects the node.
    pub fn admits(&self, slot: Slot) -> bool {
        self.nodes[slot.index()].admits
    }

    /// Whether the node counts for a spread rule.
    pub fn is_domain(&self, slot: Slot, rule: &SpreadRule) -> bool {
        let standing = self.nodes[slot.index()];
        (standing.affine || !rule.honor_affinity) && (standing.tolerated || !rule.honor_taints)
    }

    fn refresh(&mut self, snapshot: &Snapshot, needs: &Needs) {
        let rules = (
            NodeUnschedulable::new(snapshot, needs),
            TaintToleration::new(snapshot, needs),
            NodeAffinity::new(snapshot, needs),
        );
        self.nodes.resize(snapshot.slots(), Standing::default());
        for slot in snapshot.known().filter(|slot| snapshot.changed(*slot) > self.computed) {
            self.nodes[slot.index()] = Standing {
                admits: rules.0.passes(slot) && rules.1.passes(slot) && rules.2.passes(slot),
                tolerated: rules.1.is_tolerated(slot),
                affine: rules.2.is_required(slot),
            };
        }
        self.computed = snapshot.nodes_version();
    }
}

/// The shared work.
#[derive(Debug, Default)]
pub struct Memo {
    terrains: HashMap<Arc<Needs>, Arc<Terrain>>,
    rankings: HashMap<Arc<Needs>, Ranking>,
    tallies: TallyBook,
    domains: HashMap<Box<str>, Arc<Domains>>,
    /// Of the nodes that the domains, and with them the tallies, are about.
    domains_version: Version,
}

impl Memo {
    /// What the nodes mean to pods of these needs now.
    pub fn terrain(&mut self, snapshot: &Snapshot, needs: &Arc<Needs>) -> Arc<Terrain> {
        if self.terrains.len() >= SHAPES && !self.terrains.contains_key(needs) {
            self.terrains.clear();
            self.rankings.clear();
        }
        let known = self.terrains.get(needs).filter(|known| known.computed == snapshot.nodes_version());
        known.cloned().unwrap_or_else(|| self.renew(snapshot, needs))
    }

    fn renew(&mut self, snapshot: &Snapshot, needs: &Arc<Needs>) -> Arc<Terrain> {
        let stale = self.terrains.remove(needs).and_then(Arc::into_inner);
        let mut terrain = stale.unwrap_or_default();
        terrain.refresh(snapshot, needs);
        let terrain = Arc::new(terrain);
        self.terrains.insert(needs.clone(), terrain.clone());
        terrain
    }

    /// What single nodes are to pods of these needs, taken out while it is used; [`Memo::keep`] brings it back.
    pub fn ranking(&mut self, snapshot: &Snapshot, needs: &Arc<Needs>, terrain: &Terrain) -> Ranking {
        let mut ranking = self.rankings.remove(needs).unwrap_or_default();
        ranking.refresh(snapshot, needs, terrain);
        ranking
    }

    /// Keeps a ranking for the next pod of these needs.
    pub fn keep(&mut self, needs: &Arc<Needs>, ranking: Ranking) {
        self.rankings.insert(needs.clone(), ranking);
    }

    /// What the rules of a shape about other pods have to know. Also makes sure that the snapshot counts it.
    pub fn tallies(&mut self, snapshot: &mut Snapshot, shape: &Arc<Shape>, terrain: &Terrain) -> Tallies {
        if self.domains_version != snapshot.nodes_version() {
            self.domains.clear();
            self.tallies.clear();
            self.domains_version = snapshot.nodes_version();
        }
        if self.tallies.shapes() >= SHAPES && !self.tallies.has(shape) {
            self.tallies.clear();
            snapshot.untrack_all();
        }
        shape.spread.iter().for_each(|rule| snapshot.track(&rule.counted));
        shape.affinity.counted().for_each(|counted| snapshot.track(&counted));
        let mut domains = |key: &str| {
            let known = self.domains.get(key).cloned();
            known.unwrap_or_else(|| {
                let made = Arc::new(Domains::new(snapshot, key));
                self.domains.insert(key.into(), made.clone());
                made
            })
        };
        self.tallies.of(snapshot, shape, terrain, &mut domains)
    }
}
