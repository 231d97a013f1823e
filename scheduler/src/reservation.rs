//! Reserved room in thought: the cluster with the pods that room is being made for, and without them.
//!
//! Nominated pods may come or may not, so a node is right for a pod only if it is so in both cases, as upstream's
//! filters with nominated pods have it. More pods on a node seldom make it fit better: only for nearness and for
//! even spread the second case must be asked, and without nominations neither costs anything.
//!
//! What a pod respects is all room for pods of at least its priority, but its own. From one decision to the next that
//! changes little, so the room stays filled in the snapshot as it was for the last one, and only the difference is
//! placed or displaced: a thousand pods that preempt would else place each other a million times. What always holds:
//! a filled pod is nominated, weighs on its node without counting as a change of the cluster, and is displaced before
//! its nomination ends. Who asks the snapshot what is really there asks about a pod that isn't nominated, or says by
//! [`Reservations::seen_on`] whom to see.

use crate::decision;
use crate::diagnosis::{NodeExplanation, Rejection};
use crate::memo::Memo;
use crate::name::{NodeName, PodKey, PodUid};
use crate::nomination::{Nomination, Nominations};
use crate::pod::{PodInfo, Shape};
use crate::snapshot::{Slot, Snapshot};
use crate::spread::Unsatisfiable;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// The nominations, and which of them the snapshot shows at present.
#[derive(Debug, Default)]
pub struct Reservations {
    nominations: Nominations,
    /// For whom the room is filled; `None` before anybody.
    respect: Option<Respect>,
    /// Those that are in the snapshot.
    filled: BTreeSet<PodKey>,
}

/// Which reserved room counts: that of others of at least this priority.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Respect {
    priority: i32,
    own: PodKey,
}

impl Respect {
    fn includes(&self, pod: &PodInfo) -> bool {
        pod.priority >= self.priority && pod.key != self.own
    }
}

// Nominations.
impl Reservations {
    /// A pod's nomination.
    pub fn get(&self, key: &PodKey) -> Option<&Nomination> {
        self.nominations.get(key)
    }

    /// Reserves room on a node for a pod, and only there, until the victims have left and it is there.
    pub fn reserve(
        &mut self,
        snapshot: &mut Snapshot,
        pod: Arc<PodInfo>,
        node: NodeName,
        victims: BTreeSet<PodUid>,
    ) {
        let key = pod.key.clone();
        self.release(snapshot, &key);
        self.nominations.set(pod, node, victims);
        self.settle(snapshot, &key);
    }

    /// Ends a pod's nomination.
    pub fn release(&mut self, snapshot: &mut Snapshot, key: &PodKey) -> Option<Nomination> {
        self.conceal(snapshot, key);
        self.nominations.remove(key)
    }

    /// A node is known that may have been unknown when room was reserved there.
    pub fn node_appeared(&mut self, snapshot: &mut Snapshot, node: &NodeName) {
        let there: Vec<PodKey> = self.nominations.to(node).map(|one| one.pod.key.clone()).collect();
        there.iter().for_each(|key| self.settle(snapshot, key));
    }

    /// Ends every nomination to a node that is gone; returns whose.
    pub fn node_gone(&mut self, snapshot: &mut Snapshot, node: &NodeName) -> Vec<PodKey> {
        let ended: Vec<PodKey> = self.nominations.to(node).map(|one| one.pod.key.clone()).collect();
        ended.iter().for_each(|key| drop(self.release(snapshot, key)));
        ended
    }

    /// The pods to which a node is reserved.
    pub fn heirs(&self, node: &NodeName) -> Vec<Arc<PodInfo>> {
        self.nominations.to(node).map(|one| one.pod.clone()).collect()
    }

    /// The pods that have to give up their nomination to `node` for one of `priority`.
    pub fn below(&self, node: &NodeName, priority: i32) -> Vec<PodKey> {
        let lower = self.nominations.to(node).filter(|one| one.pod.priority < priority);
        lower.map(|one| one.pod.key.clone()).collect()
    }

    /// A pod is gone, or doesn't leave: nobody waits for it any more. Returns who now waits for nobody.
    pub fn left(&mut self, uid: &PodUid) -> Vec<PodKey> {
        self.nominations.left(uid)
    }
}

// The snapshot with them.
impl Reservations {
    /// Fills the room that `pod` has to respect: on known nodes, for others of at least its priority.
    pub fn fill_for(&mut self, snapshot: &mut Snapshot, pod: &PodInfo) -> Reserved<'_> {
        let respect = Respect { priority: pod.priority, own: pod.key.clone() };
        let before = self.respect.replace(respect.clone());
        if before.as_ref() != Some(&respect) {
            let (low, high) = match before.as_ref().map(|before| before.priority) {
                None => (respect.priority, Bound::Unbounded),
                Some(was) => (was.min(respect.priority), Bound::Excluded(was.max(respect.priority))),
            };
            let between = self.nominations.of_priority((Bound::Included(low), high)).cloned();
            let own = before.map(|before| before.own).into_iter().chain([respect.own]);
            let differ: Vec<PodKey> = between.chain(own).collect();
            differ.iter().for_each(|key| self.settle(snapshot, key));
        }
        Reserved { may_help: !self.filled.is_empty() && is_drawn_to_others(&pod.shape), of: self }
    }

    /// Runs `think`, which asks the rules of `pod` about one node alone, with the room there filled for those whom
    /// `respected` says.
    pub fn judged_on<T>(
        &mut self,
        snapshot: &mut Snapshot,
        (pod, slot): (&PodInfo, Slot),
        respected: impl Fn(&PodInfo) -> bool,
        think: impl FnOnce(&mut Snapshot) -> T,
    ) -> T {
        if !pod.shape.claims.is_empty() {
            // Whether a claim is in use is seen wherever its user is, so it must be right everywhere who is there.
            self.fill_for(snapshot, pod);
        }
        self.seen_on(snapshot, slot, respected, think)
    }

    /// Runs `think`, which looks at one node alone, with the room there filled for those whom `respected` says. The
    /// snapshot is the same again afterwards.
    pub fn seen_on<T>(
        &self,
        snapshot: &mut Snapshot,
        slot: Slot,
        respected: impl Fn(&PodInfo) -> bool,
        think: impl FnOnce(&mut Snapshot) -> T,
    ) -> T {
        let to = snapshot.node(slot).into_iter().flat_map(|node| self.nominations.to(&node.name));
        let is_filled = |one: &&Nomination| self.filled.contains(&one.pod.key);
        let wrong = to.filter(|one| is_filled(one) != respected(&one.pod));
        let (surplus, missing): (Vec<_>, Vec<_>) = wrong.partition(is_filled);
        let version = snapshot.version();
        surplus.iter().for_each(|one| hide(snapshot, one));
        missing.iter().for_each(|one| show(snapshot, one));
        let thought = think(snapshot);
        missing.iter().for_each(|one| hide(snapshot, one));
        surplus.iter().for_each(|one| show(snapshot, one));
        snapshot.unchanged_since(version);
        thought
    }

    /// Shows a pod in the snapshot, or doesn't, as it should be.
    fn settle(&mut self, snapshot: &mut Snapshot, key: &PodKey) {
        let Some(one) = self.nominations.get(key) else { return };
        let respected = self.respect.as_ref().is_some_and(|respect| respect.includes(&one.pod));
        if !respected || snapshot.slot(&one.node).is_none() {
            self.conceal(snapshot, key);
        } else if self.filled.insert(key.clone()) {
            unnoticed(snapshot, |snapshot| show(snapshot, one));
        }
    }

    fn conceal(&mut self, snapshot: &mut Snapshot, key: &PodKey) {
        if self.filled.remove(key)
            && let Some(one) = self.nominations.get(key)
        {
            unnoticed(snapshot, |snapshot| hide(snapshot, one));
        }
    }
}

fn show(snapshot: &mut Snapshot, one: &Nomination) {
    snapshot.place(one.pod.clone(), &one.node);
}

fn hide(snapshot: &mut Snapshot, one: &Nomination) {
    snapshot.displace(&one.pod.key);
}

/// A change in thought is none of the cluster.
fn unnoticed(snapshot: &mut Snapshot, change: impl FnOnce(&mut Snapshot)) {
    let version = snapshot.version();
    change(snapshot);
    snapshot.unchanged_since(version);
}

/// The room that one pod respects, filled.
#[derive(Debug)]
pub struct Reserved<'a> {
    of: &'a Reservations,
    /// Whether a node can be right with these pods and wrong without them.
    may_help: bool,
}

impl Reserved<'_> {
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
        let version = snapshot.version();
        let filled = || self.of.filled.iter().filter_map(|key| self.of.get(key));
        filled().for_each(|one| hide(snapshot, one));
        let thought = think(snapshot);
        filled().for_each(|one| show(snapshot, one));
        snapshot.unchanged_since(version);
        thought
    }
}

/// Whether a pod that comes to a node can make some node right for this one.
fn is_drawn_to_others(shape: &Shape) -> bool {
    let strict = |when| matches!(when, Unsatisfiable::DoNotSchedule);
    !shape.affinity.near.is_empty() || shape.spread.iter().any(|rule| strict(rule.when))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeInfo;
    use crate::resources::PODS;
    use serde_json::json;

    fn node(name: &str) -> NodeInfo {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"pods": "9"}}});
        NodeInfo::of(&serde_json::from_value(node).expect("a node"))
    }

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let pod = json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {"priority": priority, "containers": []},
        });
        Arc::new(PodInfo::of(&serde_json::from_value(pod).expect("a pod")))
    }

    /// A cluster of as many nodes, on each of which room is reserved for a pod of priority 1 or, on odd ones, 2.
    fn cluster(nodes: usize) -> (Snapshot, Reservations) {
        let (mut snapshot, mut reservations) = (Snapshot::default(), Reservations::default());
        for number in 0..nodes {
            let priority = if number % 2 == 0 { 1 } else { 2 };
            snapshot.set_node(node(&format!("n{number}")));
            let name = NodeName(format!("n{number}").into());
            reservations.reserve(&mut snapshot, pod(&format!("p{number}"), priority), name, BTreeSet::new());
        }
        (snapshot, reservations)
    }

    /// How many pods each node seems to have.
    fn weights(snapshot: &Snapshot) -> Vec<i64> {
        snapshot.known().map(|slot| snapshot.column(PODS).requested(slot)).collect()
    }

    #[test]
    fn others_of_at_least_the_same_priority_are_seen_and_leave_no_trace() {
        let (mut snapshot, mut reservations) = cluster(4);
        let version = snapshot.version();
        assert_eq!(weights(&snapshot), [0, 0, 0, 0], "nobody asks yet");
        for (who, seen) in [
            (pod("p0", 1), [0, 1, 1, 1]),
            (pod("new", 2), [0, 1, 0, 1]),
            (pod("p3", 2), [0, 1, 0, 0]),
            (pod("new", 3), [0, 0, 0, 0]),
            (pod("new", 0), [1, 1, 1, 1]),
        ] {
            reservations.fill_for(&mut snapshot, &who);
            assert_eq!(weights(&snapshot), seen, "for {} of priority {}", who.key, who.priority);
        }
        assert_eq!(snapshot.version(), version, "nothing has changed in the cluster");
    }

    #[test]
    fn what_ends_or_begins_shows_at_once() {
        let (mut snapshot, mut reservations) = cluster(2);
        reservations.fill_for(&mut snapshot, &pod("new", 1));
        reservations.release(&mut snapshot, &pod("p0", 1).key);
        assert_eq!(weights(&snapshot), [0, 1]);
        reservations.reserve(&mut snapshot, pod("p1", 2), "n0".into(), BTreeSet::new());
        assert_eq!(weights(&snapshot), [1, 0], "it has moved");
        reservations.reserve(&mut snapshot, pod("p9", 2), "later".into(), BTreeSet::new());
        snapshot.set_node(node("later"));
        reservations.node_appeared(&mut snapshot, &"later".into());
        assert_eq!(weights(&snapshot), [1, 0, 1]);
        snapshot.remove_node(&"n0".into());
        assert_eq!(reservations.node_gone(&mut snapshot, &"n0".into()), [pod("p1", 2).key.clone()]);
        assert_eq!(weights(&snapshot), [0, 1]);
    }

    #[test]
    fn one_node_is_seen_as_asked_whatever_is_filled() {
        let (mut snapshot, mut reservations) = cluster(2);
        let slot = snapshot.slot(&"n1".into()).expect("known");
        let pods = |snapshot: &mut Snapshot| snapshot.column(PODS).requested(slot);
        for filled_for in [pod("new", 0), pod("new", 3)] {
            reservations.fill_for(&mut snapshot, &filled_for);
            let before = weights(&snapshot);
            assert_eq!(reservations.seen_on(&mut snapshot, slot, |_| true, pods), 1);
            assert_eq!(reservations.seen_on(&mut snapshot, slot, |_| false, pods), 0);
            assert_eq!(weights(&snapshot), before);
        }
    }

    #[test]
    fn the_next_pod_costs_the_difference() {
        let (mut snapshot, mut reservations) = cluster(100);
        reservations.fill_for(&mut snapshot, &pod("p0", 1));
        let position = snapshot.position();
        reservations.fill_for(&mut snapshot, &pod("p2", 1));
        let touched = snapshot.changed_since(position).map(<[Slot]>::len);
        assert_eq!(touched, Some(2), "one comes back, one goes");
    }
}
