//! The cluster as columns: one array per property, one [`Slot`] per node.
//!
//! A scan over all nodes reads few, dense arrays. The snapshot is kept up to date by single changes (a node
//! appears, a pod is assumed); it is never rebuilt. What always holds: `requested` of a column is the sum
//! over the pods placed on the slot, every tracked count is the number of its pods on the slot, and a slot
//! without a node holds pods or is free. It knows no policy.

mod columns;
mod counts;
mod log;

use crate::affinity::{Pull, Term};
use crate::images::{Images, NodeImages};
use crate::name::{ClaimKey, NodeName, PodKey};
use crate::namespace::{NamespaceInfo, Namespaces};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::spread::Counted;
use crate::storage::Storage;
use crate::taint::Taint;
pub use columns::Column;
use columns::Columns;
use counts::Counts;
use log::Log;
pub use log::Position;
use std::collections::HashMap;
use std::sync::Arc;

/// Index of a node in every column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

/// Index of a distinct taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaintId(u32);

/// Counts changes; a larger version is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

/// Node objects by slot; `None` where pods are placed on a node that isn't (yet, or any more) known.
type Nodes = Vec<Option<Arc<NodeInfo>>>;

/// The cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    index: HashMap<NodeName, Slot>,
    names: Vec<NodeName>,
    free: Vec<Slot>,
    nodes: Nodes,
    columns: Columns,
    taint_table: Vec<Taint>,
    taints: Vec<Box<[TaintId]>>,
    changed: Vec<Version>,
    on_slot: Vec<Vec<Arc<PodInfo>>>,
    places: HashMap<PodKey, Slot>,
    counts: Counts,
    images: Images,
    namespaces: Namespaces,
    storage: Storage,
    version: Version,
    nodes_version: Version,
    log: Log,
}

impl Slot {
    /// Every slot that there may be.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0u32..).map(Slot)
    }

    /// The slot at this position.
    pub fn at(index: usize) -> Slot {
        Slot(u32::try_from(index).expect("fewer than 2^32 nodes"))
    }

    /// Position in an array over all slots.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl TaintId {
    /// Position in an array over all distinct taints.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

// Reading.
impl Snapshot {
    /// How many slots there are, used or not.
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// All slots, used or not.
    pub fn all_slots(&self) -> impl Iterator<Item = Slot> + use<> {
        Slot::all().take(self.nodes.len())
    }

    /// How many nodes are known.
    pub fn node_count(&self) -> usize {
        self.nodes.iter().flatten().count()
    }

    /// All known nodes, in slot order.
    pub fn known(&self) -> impl Iterator<Item = Slot> {
        Slot::all().zip(&self.nodes).filter(|(_, node)| node.is_some()).map(|(slot, _)| slot)
    }

    /// The node object at `slot`, if the node is known.
    pub fn node(&self, slot: Slot) -> Option<&Arc<NodeInfo>> {
        self.nodes[slot.index()].as_ref()
    }

    /// The slot of a node, if the node is known.
    pub fn slot(&self, name: &NodeName) -> Option<Slot> {
        self.index.get(name).copied().filter(|slot| self.node(*slot).is_some())
    }

    /// A node's labels; none if it is unknown.
    pub fn label(&self, slot: Slot, key: &str) -> Option<&str> {
        self.node(slot)?.labels.get(key).map(String::as_str)
    }

    /// The column of a resource; all zero if no node has it.
    pub fn column(&self, resource: &str) -> &Column {
        self.columns.of(resource)
    }

    /// CPU and memory in use as scores see it, with an assumed minimum per container.
    pub fn assumed_use(&self, slot: Slot) -> (i64, i64) {
        self.columns.assumed(slot)
    }

    /// Every distinct taint seen so far, by id.
    pub fn taint_table(&self) -> &[Taint] {
        &self.taint_table
    }

    /// The taints of a node in its own order.
    pub fn taints(&self, slot: Slot) -> &[TaintId] {
        &self.taints[slot.index()]
    }

    /// The pods placed on a slot.
    pub fn pods_on(&self, slot: Slot) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.on_slot[slot.index()].iter()
    }

    /// A placed pod.
    pub fn pod(&self, key: &PodKey) -> Option<&Arc<PodInfo>> {
        self.pods_on(*self.places.get(key)?).find(|pod| pod.key == *key)
    }

    /// How many pods of a tracked set each slot holds; empty if the set isn't tracked.
    pub fn counts(&self, counted: &Counted) -> &[u32] {
        self.counts.of(counted)
    }

    /// The terms of anti-affinity of placed pods, and how many of these pods each slot holds.
    pub fn distances(&self) -> impl Iterator<Item = (&Term, &[u32])> {
        self.counts.distances()
    }

    /// What placed pods say that draws others to them, and how many of these pods each slot holds.
    pub fn pulls(&self) -> impl Iterator<Item = (&Pull, &[u32])> {
        self.counts.pulls()
    }

    /// The images of all nodes.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The labels of namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Claims, volumes and what is meant to become of them.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// How many placed pods use a claim.
    pub fn users(&self, claim: &ClaimKey) -> u32 {
        self.counts.users(claim)
    }

    /// The end of the log of changes.
    pub fn position(&self) -> Position {
        self.log.end()
    }

    /// The slots about which something has changed since, some of them more than once; `None` if that isn't
    /// remembered.
    pub fn changed_since(&self, position: Position) -> Option<&[Slot]> {
        self.log.since(position)
    }

    /// Advances with every change.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Advances when a node object changes (not when pods come and go).
    pub fn nodes_version(&self) -> Version {
        self.nodes_version
    }

    /// When the node object at `slot` changed last.
    pub fn changed(&self, slot: Slot) -> Version {
        self.changed[slot.index()]
    }
}

// Changing.
impl Snapshot {
    /// Adds or replaces a node. `None` if nothing has changed that decides who may go there.
    pub fn set_node(&mut self, mut node: NodeInfo) -> Option<Slot> {
        let slot = self.slot_for(&node.name);
        // They are kept by image, and a node isn't another one because it has pulled one.
        self.images.set(slot, std::mem::take(&mut node.images));
        if self.node(slot).is_some_and(|known| **known == node) {
            return None;
        }
        self.columns.offer(slot, node.allocatable.iter());
        self.taints[slot.index()] = node.taints.iter().map(|taint| self.taint_id(taint)).collect();
        self.nodes[slot.index()] = Some(Arc::new(node));
        self.touch_node(slot);
        Some(slot)
    }

    /// Forgets a node. Its pods stay counted on the slot until they are removed, too: the node may return.
    pub fn remove_node(&mut self, name: &NodeName) -> bool {
        let Some(slot) = self.slot(name) else { return false };
        self.columns.offer(slot, []);
        self.taints[slot.index()] = Box::default();
        self.images.set(slot, NodeImages::new());
        self.nodes[slot.index()] = None;
        self.touch_node(slot);
        self.release_if_empty(slot);
        true
    }

    /// Adds or replaces a namespace. False if nothing is different.
    pub fn set_namespace(&mut self, namespace: NamespaceInfo) -> bool {
        let changed = self.namespaces.set(namespace);
        self.count_anew(changed);
        changed
    }

    /// Forgets a namespace. False if nothing is different.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        let changed = self.namespaces.remove(name);
        self.count_anew(changed);
        changed
    }

    /// Places a pod on a node, known or not. A pod that was placed before moves.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &NodeName) -> Slot {
        self.displace(&pod.key);
        let slot = self.slot_for(node);
        self.account(slot, &pod, 1);
        self.places.insert(pod.key.clone(), slot);
        self.on_slot[slot.index()].push(pod);
        self.version.0 += 1;
        self.log.note(slot);
        slot
    }

    /// Takes a pod off its node. Returns the slot it left.
    pub fn displace(&mut self, key: &PodKey) -> Option<Slot> {
        let slot = self.places.remove(key)?;
        let here = &mut self.on_slot[slot.index()];
        let position = here.iter().position(|pod| pod.key == *key).expect("a placed pod is on its slot");
        let pod = here.swap_remove(position);
        self.account(slot, &pod, -1);
        self.version.0 += 1;
        self.log.note(slot);
        if self.node(slot).is_none() {
            self.release_if_empty(slot);
        }
        Some(slot)
    }

    /// Replaces what is known of a placed pod by something that weighs the same.
    pub fn renew(&mut self, pod: Arc<PodInfo>) {
        let slot = self.places.get(&pod.key).copied();
        let here = slot.and_then(|slot| self.on_slot[slot.index()].iter_mut().find(|one| one.key == pod.key));
        if let Some(known) = here {
            assert!(known.occupies_same(&pod), "a pod that weighs differently must be placed anew");
            *known = pod;
        }
    }

    /// Declares that everything that was changed since `version` was changed back, so that what was derived
    /// from it still holds.
    pub fn unchanged_since(&mut self, version: Version) {
        debug_assert!(self.nodes_version <= version, "nodes don't change back");
        self.version = version;
    }

    /// Changes what is known of storage, which counts as a change of the cluster.
    pub fn storage_mut(&mut self) -> &mut Storage {
        self.version.0 += 1;
        &mut self.storage
    }

    /// Begins to count a set of pods. Counting it again costs nothing.
    pub fn track(&mut self, counted: &Counted) {
        self.counts.track(counted, &self.on_slot, &self.namespaces);
    }

    /// Stops counting. Every decision tracks what it needs.
    pub fn untrack_all(&mut self) {
        self.counts.untrack_all();
    }

    /// Other pods belong to sets that choose namespaces by their labels. Who needs such a set tracks it again.
    fn count_anew(&mut self, changed: bool) {
        self.version.0 += u64::from(changed);
        if changed && self.counts.untrack_by_namespaces() {
            // What was added up by domain is added up anew, too, which no change of a slot would bring about.
            self.nodes_version = self.version;
        }
    }

    fn touch_node(&mut self, slot: Slot) {
        self.version.0 += 1;
        self.nodes_version = self.version;
        self.changed[slot.index()] = self.version;
        self.log.note(slot);
    }

    fn slot_for(&mut self, name: &NodeName) -> Slot {
        if let Some(slot) = self.index.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| self.new_slot());
        self.names[slot.index()] = name.clone();
        self.index.insert(name.clone(), slot);
        slot
    }

    fn new_slot(&mut self) -> Slot {
        let slot = Slot::at(self.nodes.len());
        let slots = self.nodes.len() + 1;
        self.nodes.push(None);
        self.names.push("".into());
        self.taints.push(Box::default());
        self.changed.push(self.version);
        self.on_slot.push(Vec::new());
        self.columns.grow(slots);
        self.counts.grow(slots);
        slot
    }

    fn release_if_empty(&mut self, slot: Slot) {
        if self.on_slot[slot.index()].is_empty() {
            assert_eq!(self.assumed_use(slot), (0, 0), "an empty slot carries no requests");
            self.index.remove(&self.names[slot.index()]);
            self.free.push(slot);
        }
    }

    /// Adds (`sign` 1) or takes back (-1) what a pod weighs on its slot.
    fn account(&mut self, slot: Slot, pod: &PodInfo, sign: i64) {
        self.columns.account(slot, &pod.shape.needs.requests, sign);
        self.counts.account(slot, pod, &self.namespaces, sign);
    }

    fn taint_id(&mut self, taint: &Taint) -> TaintId {
        let known = self.taint_table.iter().position(|one| one == taint);
        let id = known.unwrap_or_else(|| {
            self.taint_table.push(taint.clone());
            self.taint_table.len() - 1
        });
        TaintId(u32::try_from(id).expect("fewer than 2^32 distinct taints"))
    }
}
