//! Work that decisions share: which nodes a shape may use at all, and the domains of topology keys.
//!
//! Both depend on node objects only, so they outlive the coming and going of pods. A pod whose shape was
//! decided before pays one comparison of versions per node. Entries are refreshed on use; when there are too
//! many, all are dropped, because what is needed again is quickly made again.

use crate::plugins::Filter;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_unschedulable::NodeUnschedulable;
use crate::plugins::taint_toleration::TaintToleration;
use crate::pod::Shape;
use crate::ranking::Ranking;
use crate::snapshot::{Slot, Snapshot, Version};
use crate::spread::SpreadRule;
use crate::topology::Domains;
use std::collections::HashMap;
use std::sync::Arc;

/// How many shapes are remembered. With 5,000 nodes an entry takes 15 kB.
const SHAPES: usize = 256;

/// What node objects mean to one shape.
#[derive(Debug, Default)]
pub struct Terrain {
    /// By slot.
    nodes: Vec<Standing>,
    /// By rule of `Shape::spread`.
    pub domains: Vec<Arc<Domains>>,
    computed: Version,
}

/// What one node object means to one shape.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    uncordoned: bool,
    tolerated: bool,
    affine: bool,
}

impl Terrain {
    /// Whether no rule about node objects rejects the node.
    pub fn admits(&self, slot: Slot) -> bool {
        let standing = self.nodes[slot.index()];
        standing.uncordoned && standing.tolerated && standing.affine
    }

    /// Whether the node counts for a spread rule.
    pub fn is_domain(&self, slot: Slot, rule: &SpreadRule) -> bool {
        let standing = self.nodes[slot.index()];
        (standing.affine || !rule.honor_affinity) && (standing.tolerated || !rule.honor_taints)
    }

    fn refresh(&mut self, snapshot: &Snapshot, shape: &Shape) {
        let rules = (
            NodeUnschedulable::new(snapshot, shape),
            TaintToleration::new(snapshot, shape),
            NodeAffinity::new(snapshot, shape),
        );
        self.nodes.resize(snapshot.slots(), Standing::default());
        for slot in snapshot.known().filter(|slot| snapshot.changed(*slot) > self.computed) {
            self.nodes[slot.index()] = Standing {
                uncordoned: rules.0.passes(slot),
                tolerated: rules.1.passes(slot),
                affine: rules.2.passes(slot),
            };
        }
        self.computed = snapshot.nodes_version();
    }
}

/// The shared work.
#[derive(Debug, Default)]
pub struct Memo {
    terrains: HashMap<Arc<Shape>, Arc<Terrain>>,
    rankings: HashMap<Arc<Shape>, Ranking>,
    domains: HashMap<Box<str>, Arc<Domains>>,
    domains_version: Version,
}

impl Memo {
    /// What the nodes mean to `shape` now. Also makes sure that the snapshot counts what its rules need.
    pub fn terrain(&mut self, snapshot: &mut Snapshot, shape: &Arc<Shape>) -> Arc<Terrain> {
        if self.terrains.len() >= SHAPES && !self.terrains.contains_key(shape) {
            self.terrains.clear();
            self.rankings.clear();
            snapshot.untrack_all();
        }
        shape.spread.iter().for_each(|rule| snapshot.track(&rule.counted));
        shape.affinity.counted().for_each(|counted| snapshot.track(&counted));
        let known = self.terrains.get(shape).filter(|known| known.computed == snapshot.nodes_version());
        known.cloned().unwrap_or_else(|| self.renew(snapshot, shape))
    }

    fn renew(&mut self, snapshot: &Snapshot, shape: &Arc<Shape>) -> Arc<Terrain> {
        let stale = self.terrains.remove(shape).and_then(Arc::into_inner);
        let mut terrain = stale.unwrap_or_default();
        terrain.refresh(snapshot, shape);
        let keys = shape.spread.iter().map(|rule| &*rule.topology_key);
        terrain.domains = keys.map(|key| self.domains(snapshot, key)).collect();
        let terrain = Arc::new(terrain);
        self.terrains.insert(shape.clone(), terrain.clone());
        terrain
    }

    /// What single nodes are to `shape`, taken out while it is used; [`Memo::keep`] brings it back.
    pub fn ranking(&mut self, snapshot: &Snapshot, shape: &Arc<Shape>, terrain: &Terrain) -> Ranking {
        let mut ranking = self.rankings.remove(shape).unwrap_or_default();
        ranking.refresh(snapshot, shape, terrain);
        ranking
    }

    /// Keeps a ranking for the next pod of its shape.
    pub fn keep(&mut self, shape: &Arc<Shape>, ranking: Ranking) {
        self.rankings.insert(shape.clone(), ranking);
    }

    /// The domains of a topology key.
    pub fn domains(&mut self, snapshot: &Snapshot, key: &str) -> Arc<Domains> {
        if self.domains_version != snapshot.nodes_version() {
            self.domains.clear();
            self.domains_version = snapshot.nodes_version();
        }
        let known = self.domains.get(key).cloned();
        known.unwrap_or_else(|| {
            let made = Arc::new(Domains::new(snapshot, key));
            self.domains.insert(key.into(), made.clone());
            made
        })
    }
}
