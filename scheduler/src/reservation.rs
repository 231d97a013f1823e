//! Reserved room in thought: the cluster with the pods that room is being made for, and without them.
//!
//! Nominated pods may come or may not, so a node is right for a pod only if it is so in both cases, as upstream's
//! filters with nominated pods have it. More pods on a node seldom make it fit better: only for nearness and for
//! even spread the second case must be asked, and without nominations neither costs anything.

use crate::decision;
use crate::diagnosis::{NodeExplanation, Rejection};
use crate::memo::Memo;
use crate::name::NodeName;
use crate::nomination::{Nomination, Nominations};
use crate::pod::{PodInfo, Shape};
use crate::snapshot::{Slot, Snapshot};
use crate::spread::Unsatisfiable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The reserved room that one pod respects. All but [`Reserved::filled`] expect it to be filled.
#[derive(Debug)]
pub struct Reserved {
    pods: Vec<(Arc<PodInfo>, NodeName)>,
    /// Whether a node can be right with these pods and wrong without them.
    may_help: bool,
}

impl Reserved {
    /// What `pod` respects: room on known nodes for others of at least its priority.
    pub fn new(nominations: &Nominations, snapshot: &Snapshot, pod: &PodInfo) -> Self {
        let mut pods = nominations.respected_by(pod);
        pods.retain(|(_, node)| snapshot.slot(node).is_some());
        Reserved { may_help: !pods.is_empty() && is_drawn_to_others(&pod.shape), pods }
    }

    /// The room on one node that is reserved for those whom `respected` says, for rules about that node alone.
    pub fn on(
        slot: Slot,
        nominations: &Nominations,
        snapshot: &Snapshot,
        respected: impl Fn(&Nomination) -> bool,
    ) -> Self {
        let to = snapshot.node(slot).into_iter().flat_map(|node| nominations.to(&node.name));
        let pods = to.filter(|one| respected(one)).map(|one| (one.pod.clone(), one.node.clone())).collect();
        Reserved { pods, may_help: false }
    }

    /// Runs `think` with the reserved room filled. The snapshot is the same again afterwards.
    pub fn filled<T>(&self, snapshot: &mut Snapshot, think: impl FnOnce(&mut Snapshot) -> T) -> T {
        let version = snapshot.version();
        self.fill(snapshot);
        let thought = think(snapshot);
        self.empty(snapshot);
        snapshot.unchanged_since(version);
        thought
    }

    /// Whether the node would take `pod`, whether the others come or not.
    pub fn admits(&self, snapshot: &mut Snapshot, memo: &mut Memo, pod: &PodInfo, slot: Slot) -> bool {
        decision::admits(snapshot, memo, pod, slot)
            && (!self.may_help
                || self.emptied(snapshot, |snapshot| decision::admits(snapshot, memo, pod, slot)))
    }

    /// The nodes that refuse `pod` if the others never come, as far as that doesn't follow from their refusal
    /// if they do.
    pub fn bare_rejections(
        &self,
        snapshot: &mut Snapshot,
        memo: &mut Memo,
        pod: &PodInfo,
    ) -> BTreeMap<Slot, Rejection> {
        if !self.may_help {
            return BTreeMap::new();
        }
        self.emptied(snapshot, |snapshot| decision::rejections(snapshot, memo, pod)).into_iter().collect()
    }

    /// Why each node that refuses `pod` does: the first rule that objects, with the others there or else without.
    pub fn rejections(
        &self,
        snapshot: &mut Snapshot,
        memo: &mut Memo,
        pod: &PodInfo,
    ) -> BTreeMap<Slot, Rejection> {
        let mut rejections = self.bare_rejections(snapshot, memo, pod);
        rejections.extend(decision::rejections(snapshot, memo, pod));
        rejections
    }

    /// Everything each rule says about each node with the others there; a node that is wrong only without them says
    /// why that is.
    pub fn explain(&self, snapshot: &mut Snapshot, memo: &mut Memo, pod: &PodInfo) -> Vec<NodeExplanation> {
        let bare = self.bare_rejections(snapshot, memo, pod);
        let mut all = decision::explain(snapshot, memo, pod);
        for node in all.iter_mut().filter(|node| node.rejections.is_empty()) {
            if let Some(refused) = snapshot.slot(&node.node).and_then(|slot| bare.get(&slot)) {
                node.rejections.push(refused.clone());
                node.scores.clear();
            }
        }
        all
    }

    fn emptied<T>(&self, snapshot: &mut Snapshot, think: impl FnOnce(&mut Snapshot) -> T) -> T {
        self.empty(snapshot);
        let thought = think(snapshot);
        self.fill(snapshot);
        thought
    }

    fn fill(&self, snapshot: &mut Snapshot) {
        for (pod, node) in &self.pods {
            snapshot.place(pod.clone(), node);
        }
    }

    fn empty(&self, snapshot: &mut Snapshot) {
        for (pod, _) in &self.pods {
            snapshot.displace(&pod.key);
        }
    }
}

/// Whether a pod that comes to a node can make some node right for this one.
fn is_drawn_to_others(shape: &Shape) -> bool {
    let strict = |when| matches!(when, Unsatisfiable::DoNotSchedule);
    !shape.affinity.near.is_empty() || shape.spread.iter().any(|rule| strict(rule.when))
}
