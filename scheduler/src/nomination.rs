//! Pods for which room is being made: where, and who still has to leave.
//!
//! Nobody of lower priority may take that room meanwhile. A nomination is a reservation, not a promise: the pod
//! goes elsewhere if that is possible sooner. They are found by pod, by node and by priority, since there may be
//! thousands at a time, and each of their pods asks about some of the others.

use crate::name::{NodeName, PodKey, PodUid};
use crate::pod::PodInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;
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
pub struct Nominations {
    all: BTreeMap<PodKey, Nomination>,
    by_node: BTreeMap<NodeName, BTreeSet<PodKey>>,
    by_priority: BTreeMap<i32, BTreeSet<PodKey>>,
}

impl Nominations {
    /// Adds or replaces a pod's nomination.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: NodeName, victims: BTreeSet<PodUid>) {
        let key = pod.key.clone();
        self.remove(&key);
        self.by_node.entry(node.clone()).or_default().insert(key.clone());
        self.by_priority.entry(pod.priority).or_default().insert(key.clone());
        self.all.insert(key, Nomination { pod, node, victims });
    }

    /// A pod's nomination.
    pub fn get(&self, key: &PodKey) -> Option<&Nomination> {
        self.all.get(key)
    }

    /// Ends a pod's nomination.
    pub fn remove(&mut self, key: &PodKey) -> Option<Nomination> {
        let ended = self.all.remove(key)?;
        forget(&mut self.by_node, &ended.node, key);
        forget(&mut self.by_priority, &ended.pod.priority, key);
        Some(ended)
    }

    /// The nominations to a node.
    pub fn to(&self, node: &NodeName) -> impl Iterator<Item = &Nomination> {
        self.by_node.get(node).into_iter().flatten().filter_map(|key| self.all.get(key))
    }

    /// The pods of these priorities.
    pub fn of_priority(&self, priorities: impl RangeBounds<i32>) -> impl Iterator<Item = &PodKey> {
        self.by_priority.range(priorities).flat_map(|(_, keys)| keys)
    }

    /// A pod is gone, or doesn't leave: nobody waits for it any more. Returns who now waits for nobody.
    pub fn left(&mut self, uid: &PodUid) -> Vec<PodKey> {
        let waited =
            self.all.iter_mut().filter_map(|(key, one)| one.victims.remove(uid).then_some((key, one)));
        waited.filter(|(_, one)| one.victims.is_empty()).map(|(key, _)| key.clone()).collect()
    }
}

/// Takes a pod out of an index.
fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<PodKey>>, under: &K, key: &PodKey) {
    if let Some(keys) = index.get_mut(under) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(under);
        }
    }
}
