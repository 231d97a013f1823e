//! Pods for which room is being made: where, and who still has to leave.
//!
//! Nobody of lower priority may take that room meanwhile. A nomination is a reservation, not a promise: the pod
//! goes elsewhere if that is possible sooner.

use crate::name::{NodeName, PodKey, PodUid};
use crate::pod::PodInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One pod's.
#[derive(Clone, Debug)]
pub struct Nomination {
    /// The pod, as it will weigh on the node.
    pub pod: Arc<PodInfo>,
    /// The node.
    pub node: NodeName,
    /// Who was asked to leave and hasn't yet.
    pub victims: BTreeSet<PodUid>,
}

/// All nominations.
#[derive(Clone, Debug, Default)]
pub struct Nominations(BTreeMap<PodKey, Nomination>);

impl Nominations {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds or replaces a pod's nomination.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: NodeName, victims: BTreeSet<PodUid>) {
        self.0.insert(pod.key.clone(), Nomination { pod, node, victims });
    }

    /// A pod's nomination.
    pub fn get(&self, key: &PodKey) -> Option<&Nomination> {
        self.0.get(key)
    }

    /// Ends a pod's nomination.
    pub fn remove(&mut self, key: &PodKey) -> Option<Nomination> {
        self.0.remove(key)
    }

    /// The nominations to a node.
    pub fn to(&self, node: &NodeName) -> impl Iterator<Item = &Nomination> {
        self.0.values().filter(move |one| one.node == *node)
    }

    /// The pods whose room on their node `pod` has to respect: those of at least its priority.
    pub fn respected_by(&self, pod: &PodInfo) -> Vec<(Arc<PodInfo>, NodeName)> {
        let others = self.0.values().filter(|one| one.pod.key != pod.key && one.pod.priority >= pod.priority);
        others.map(|one| (one.pod.clone(), one.node.clone())).collect()
    }

    /// The pods that have to give up their nomination to `node` for one of `priority`.
    pub fn below(&self, node: &NodeName, priority: i32) -> Vec<PodKey> {
        let lower = self.0.iter().filter(|(_, one)| one.node == *node && one.pod.priority < priority);
        lower.map(|(key, _)| key.clone()).collect()
    }

    /// Ends every nomination to a node that is gone; returns whose.
    pub fn node_gone(&mut self, node: &NodeName) -> Vec<PodKey> {
        let there = self.0.iter().filter(|(_, one)| one.node == *node);
        let ended: Vec<PodKey> = there.map(|(key, _)| key.clone()).collect();
        ended.iter().for_each(|key| drop(self.0.remove(key)));
        ended
    }

    /// A pod is gone, or doesn't leave: nobody waits for it any more. Returns who now waits for nobody.
    pub fn left(&mut self, uid: &PodUid) -> Vec<PodKey> {
        let waited = self.0.iter_mut().filter_map(|(key, one)| one.victims.remove(uid).then_some((key, one)));
        waited.filter(|(_, one)| one.victims.is_empty()).map(|(key, _)| key.clone()).collect()
    }
}
