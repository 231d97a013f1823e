//! Whom a change of a node or its lease concerns.

use super::{Wires, for_each, states};
use crate::{
    caches::{BY_NODE, Caches, NODE_LEASES, UNREADY},
    cluster_dns, endpoint_slice, node_ranges, node_ttl,
};
use client::informer::{Change, ObjectKey};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::ResourceExt;

impl Wires {
    pub fn lease(&self, change: &Change<Lease>) {
        self.collect(change);
        for_each(change, |key| {
            if key.namespace == NODE_LEASES {
                self.queues.nodes.add(ObjectKey::cluster(&key.name));
            }
        });
    }

    pub fn node(&self, change: &Change<Node>) {
        let zone_turned = self.count(change);
        self.own(change, &self.queues.nodes);
        for_each(change, |key| self.queues.node_ttl.add(key));
        self.without_range(change);
        let Some(caches) = self.caches.get() else { return };
        if is_heartbeat(change) {
            return;
        }
        // A node without a range answers no names.
        if states(change).any(|node| !node_ranges::ranges_of(node).is_empty()) {
            self.cluster_dns(&ObjectKey::new(cluster_dns::NAMESPACE, cluster_dns::NAME));
        }
        // The zone brake depends on all nodes, but only those ask for it that aren't ready.
        let braked = if zone_turned { caches.nodes.by_index(UNREADY, "") } else { Vec::new() };
        braked.iter().for_each(|node| self.queues.nodes.add(ObjectKey::of(&**node)));
        self.counted(change, caches);
        for set in caches.daemon_sets.list() {
            self.queues.daemon_sets.add(ObjectKey::of(&*set));
        }
        self.pods_of(change, caches);
    }
}

impl Wires {
    /// Brings the census up to date; true if some zone's state is news.
    fn count(&self, change: &Change<Node>) -> bool {
        match change {
            Change::Applied { new, .. } => self.census.observe(&new.name_any(), Some(new)),
            Change::Deleted(last) => self.census.observe(&last.name_any(), None),
            Change::Synced => false,
        }
    }

    fn pods_of(&self, change: &Change<Node>, caches: &Caches) {
        let Some(node) = change.object() else { return };
        let moved = has_moved(change);
        for pod in caches.pods.by_index(BY_NODE, &node.name_any()) {
            self.queues.evictions.add(ObjectKey::of(&*pod));
            self.queues.pod_gc.add(ObjectKey::of(&*pod));
            if moved {
                self.slices_of_pod(&pod);
            }
        }
    }

    /// Every node's TTL depends on their number, as far as that takes a step.
    fn counted(&self, change: &Change<Node>, caches: &Caches) {
        let now = caches.nodes.len();
        let before = match change {
            Change::Applied { old: None, .. } => now.saturating_sub(1),
            Change::Deleted(_) => now + 1,
            Change::Applied { .. } | Change::Synced => return,
        };
        if node_ttl::is_step(before, now) {
            for node in caches.nodes.list() {
                self.queues.node_ttl.add(ObjectKey::of(&*node));
            }
        }
    }

    /// A node that is gone makes its range free for those that wait for one.
    fn without_range(&self, change: &Change<Node>) {
        let waits = |node: &Node| node_ranges::ranges_of(node).is_empty();
        match (change, self.caches.get()) {
            (Change::Deleted(_), Some(caches)) => {
                let waiting = caches.nodes.list().into_iter().filter(|node| waits(node));
                waiting.for_each(|node| self.queues.node_ranges.add(ObjectKey::of(&*node)));
            }
            (Change::Applied { new, .. }, _) if waits(new) => {
                self.queues.node_ranges.add(ObjectKey::of(&**new));
            }
            _ => {}
        }
    }
}

/// True if the node has come, or says another zone than before: endpoints say the zone of their node.
fn has_moved(change: &Change<Node>) -> bool {
    let Change::Applied { old, new } = change else { return false };
    let zone = |node: &Node| node.labels().get(endpoint_slice::ZONE).cloned();
    old.as_deref().is_none_or(|old| zone(old) != zone(new))
}

/// True if neither taints nor readiness changed: by far the most frequent change of a node.
fn is_heartbeat(change: &Change<Node>) -> bool {
    let Change::Applied { old: Some(old), new } = change else { return false };
    let ready = crate::node_lifecycle::ready_of;
    old.spec == new.spec && ready(old) == ready(new) && old.labels() == new.labels()
}
