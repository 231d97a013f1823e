//! Looks of the node controllers: lifecycle, taint eviction, pod garbage collection.

use crate::{
    caches::{BY_NODE, Caches, NODE_LEASES},
    driver::{Controller, End, Report},
    node_lifecycle::{self, Census, NodeTimes, Turns, ZoneState, zone_of},
    node_ranges, node_ttl,
    plan::Plan,
    pod, pod_gc, taint_eviction,
};
use api::self_fence::{Silence, asks, is_kept};
use client::informer::ObjectKey;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::ResourceExt;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Since when nodes have been silent whose pods may fence themselves, by name. Who looks at each renewal tells those
/// who look at pods.
#[derive(Clone, Default)]
pub struct Silences(Arc<Mutex<HashMap<String, Silence>>>);

impl Silences {
    fn see(&self, node: &str, lease: Option<&Lease>, now: Timestamp) -> Option<Silence> {
        let mut all = self.0.lock();
        let Some(lease) = lease.filter(|lease| is_kept(lease)) else {
            all.remove(node);
            return None;
        };
        let known = all.entry(node.to_owned()).or_insert_with(|| Silence::of(lease, now));
        known.see(lease, now);
        Some(known.clone())
    }
}

/// The node lifecycle controller.
pub struct NodeLifecycle {
    caches: Caches,
    census: Census,
    times: NodeTimes,
    silences: Silences,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    heard: HashMap<String, Heard>,
    turns: Turns,
}

/// The last sign of life of one node.
struct Heard {
    /// What was seen: uid, the lease's renewal and the node's heartbeat.
    sign: [Option<String>; 3],
    /// When we saw it first, by our clock.
    at: Timestamp,
    /// When we will look next at the latest.
    look: Timestamp,
}

impl NodeLifecycle {
    /// Over these caches and the counts of their nodes; every node's grace starts when it is first looked at.
    pub fn new(caches: Caches, census: Census, times: NodeTimes, silences: Silences) -> NodeLifecycle {
        NodeLifecycle { caches, census, times, silences, memory: Mutex::default() }
    }

    fn lease(&self, key: &ObjectKey) -> Option<Arc<Lease>> {
        self.caches.leases.get(&ObjectKey::new(NODE_LEASES, &key.name))
    }

    fn zone(&self, node: &Node, now: Timestamp) -> ZoneState {
        self.census.state(&zone_of(node), now, |name| self.late_from(name, now))
    }

    /// When a node will be late by what the cache shows of it, which its look may not have noted yet.
    fn late_from(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        let key = ObjectKey::cluster(name);
        let (node, lease) = (self.caches.nodes.get(&key)?, self.lease(&key));
        let memory = self.memory.lock();
        let known = memory.heard.get(name)?;
        let heard = if known.sign == sign_of(&node, lease.as_deref()) { known.at } else { now };
        Some(self.late_after(heard, &node, lease.as_deref()))
    }

    /// Kubelets renew several times within the grace; half of it in silence is suspicious.
    fn late_after(&self, heard: Timestamp, node: &Node, lease: Option<&Lease>) -> Timestamp {
        let patience = node_lifecycle::grace_of(node, lease, &self.times) / 2;
        heard.saturating_add(patience).unwrap_or(Timestamp::MAX)
    }

    /// When the node was last heard of. If this look comes late, it is *we* who were stopped; the time we
    /// missed isn't the node's silence.
    fn heard(&self, node: &Node, lease: Option<&Lease>, now: Timestamp) -> Timestamp {
        let mut memory = self.memory.lock();
        let sign = sign_of(node, lease);
        let heard =
            memory.heard.entry(node.name_any()).or_insert(Heard { sign: sign.clone(), at: now, look: now });
        if heard.sign != sign {
            (heard.sign, heard.at) = (sign, now);
        }
        let late = now.duration_since(heard.look);
        if late > SignedDuration::ZERO && late > tolerated_delay(&self.times) {
            heard.at = heard.at.saturating_add(late).unwrap_or(now).min(now);
        }
        let times = NodeTimes { startup_grace: self.times.grace, ..self.times.clone() };
        let grace = node_lifecycle::grace_of(node, lease, &times);
        // Only a look that is still to come can be late; a silent node isn't looked at again by the clock.
        let due = heard.at.saturating_add(grace).unwrap_or(Timestamp::MAX);
        heard.look = if due > now { due } else { Timestamp::MAX };
        heard.at
    }
}

/// How late a timer may be without us having been stopped.
fn tolerated_delay(times: &NodeTimes) -> SignedDuration {
    SignedDuration::try_from(times.grace / 4).unwrap_or(SignedDuration::MAX)
}

fn sign_of(node: &Node, lease: Option<&Lease>) -> [Option<String>; 3] {
    let renewed =
        lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref()).map(|time| time.0.to_string());
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let beat = conditions
        .filter(|condition| condition.type_ == "Ready" && condition.status != "Unknown")
        .filter_map(|ready| ready.last_heartbeat_time.as_ref())
        .map(|time| time.0.to_string())
        .next();
    [node.uid(), renewed, beat]
}

impl Controller for NodeLifecycle {
    type Key = ObjectKey;
    const NAME: &'static str = "node-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let lease = self.lease(key);
        self.silences.see(&key.name, lease.as_deref(), now);
        let Some(node) = self.caches.nodes.get(key) else {
            let mut memory = self.memory.lock();
            memory.heard.remove(&key.name);
            memory.turns.leave(&key.name);
            return Ok(Plan::nothing());
        };
        let heard = self.heard(&node, lease.as_deref(), now);
        self.census.heard(&key.name, self.late_after(heard, &node, lease.as_deref()), now);
        let asks = node_lifecycle::asks_for_zone(&node, lease.as_deref(), heard, &self.times, now);
        let zone = if asks { self.zone(&node, now) } else { ZoneState::Normal };
        let pause = zone.pause(&self.times).filter(|_| asks);
        let view = node_lifecycle::Snapshot {
            lease,
            heard,
            pods: self.caches.pods.by_index(BY_NODE, &key.name),
            zone,
            evict_from: self.turn(&node, pause, now),
        };
        let plan = node_lifecycle::reconcile(&node, &view, &self.times, now);
        if let Some(pause) = pause.filter(|_| node_lifecycle::starts_eviction(&node, &plan)) {
            self.memory.lock().turns.used(&zone_of(&node), &key.name, pause, now);
        }
        Ok(plan)
    }

    fn performed(&self, key: &ObjectKey, report: &Report, now: Timestamp) {
        // A renewed lease is a sign of life even before the watch brings it.
        if matches!(report.end, End::Conflict(_))
            && let Some(heard) = self.memory.lock().heard.get_mut(&key.name)
        {
            heard.look = now;
        }
    }
}

impl NodeLifecycle {
    /// When the node may be evicted; one that needn't be, or is already, doesn't stand in line.
    fn turn(&self, node: &Node, pause: Option<SignedDuration>, now: Timestamp) -> Timestamp {
        let turns = &mut self.memory.lock().turns;
        match pause.filter(|_| !node_lifecycle::is_evicted(node)) {
            Some(pause) => turns.of(&zone_of(node), &node.name_any(), pause, now),
            None => {
                turns.leave(&node.name_any());
                Timestamp::MIN
            }
        }
    }
}

/// The TTL controller.
pub struct NodeTtl(pub Caches);

impl Controller for NodeTtl {
    type Key = ObjectKey;
    const NAME: &'static str = "ttl-controller";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let node = self.0.nodes.get(key);
        Ok(node.map_or_else(Plan::nothing, |node| node_ttl::reconcile(&node, self.0.nodes.len())))
    }
}

/// The controller of nodes' ranges.
pub struct NodeRanges {
    caches: Caches,
    ranges: node_ranges::NodeRanges,
    given: Mutex<node_ranges::Given>,
}

impl NodeRanges {
    /// Over these caches, out of these ranges.
    pub fn new(caches: Caches, ranges: node_ranges::NodeRanges) -> NodeRanges {
        NodeRanges { caches, ranges, given: Mutex::default() }
    }
}

impl Controller for NodeRanges {
    type Key = ObjectKey;
    const NAME: &'static str = "cidrAllocator";

    async fn look(&self, key: &ObjectKey, _: Timestamp) -> kube::Result<Plan> {
        let Some(node) = self.caches.nodes.get(key) else { return Ok(Plan::nothing()) };
        let nodes = self.caches.nodes.list();
        Ok(self.given.lock().reconcile(&node, nodes.iter().map(|node| &**node), &self.ranges))
    }
}

/// The taint eviction controller.
pub struct TaintEviction {
    caches: Caches,
    /// Of pods under taints that don't say since when; by the pod's uid, too: another of its name begins anew.
    seen: Mutex<HashMap<ObjectKey, (Option<String>, taint_eviction::Seen)>>,
}

impl TaintEviction {
    /// Over these caches.
    pub fn new(caches: Caches) -> TaintEviction {
        TaintEviction { caches, seen: Mutex::default() }
    }
}

impl Controller for TaintEviction {
    type Key = ObjectKey;
    const NAME: &'static str = "taint-eviction-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let mut all = self.seen.lock();
        let known = all.remove(key);
        let Some(pod) = self.caches.pods.get(key) else { return Ok(Plan::nothing()) };
        let Some(node) = self.caches.nodes.get(&ObjectKey::cluster(pod::node_name(&pod))) else {
            return Ok(Plan::nothing());
        };
        let (uid, mut seen) = known
            .filter(|(uid, _)| *uid == pod.metadata.uid)
            .unwrap_or_else(|| (pod.uid(), Default::default()));
        let plan = taint_eviction::reconcile(&pod, &node, &mut seen, now);
        if !seen.is_empty() {
            all.insert(key.clone(), (uid, seen));
        }
        Ok(plan)
    }
}

/// The pod garbage collector.
pub struct PodGc {
    caches: Caches,
    quarantine: SignedDuration,
    /// Since when nodes that pods are bound to are missing.
    missing: Mutex<HashMap<String, Timestamp>>,
    silences: Silences,
}

impl PodGc {
    /// Over these caches; a node must be missing for `quarantine`.
    pub fn new(caches: Caches, quarantine: std::time::Duration, silences: Silences) -> PodGc {
        let quarantine = SignedDuration::try_from(quarantine).unwrap_or(SignedDuration::MAX);
        PodGc { caches, quarantine, missing: Mutex::default(), silences }
    }

    fn missing_since(&self, node: &str, exists: bool, now: Timestamp) -> Option<Timestamp> {
        let mut missing = self.missing.lock();
        if exists || node.is_empty() {
            missing.remove(node);
            return None;
        }
        Some(*missing.entry(node.to_owned()).or_insert(now))
    }

    /// Only of a pod to which it matters.
    fn silence(&self, node: &str, pod: &pod::Pod, now: Timestamp) -> Option<(Arc<Lease>, Silence)> {
        let asks = asks(pod.metadata.annotations.as_ref());
        let lease = self.caches.leases.get(&ObjectKey::new(NODE_LEASES, node)).filter(|_| asks)?;
        let silence = self.silences.see(node, Some(&lease), now)?;
        Some((lease, silence))
    }
}

impl Controller for PodGc {
    type Key = ObjectKey;
    const NAME: &'static str = "pod-garbage-collector";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(pod) = self.caches.pods.get(key) else { return Ok(Plan::nothing()) };
        let name = pod::node_name(&pod);
        let node = self.caches.nodes.get(&ObjectKey::cluster(name));
        let missing_since = self.missing_since(name, node.is_some(), now);
        let silence = self.silence(name, &pod, now);
        let view = pod_gc::Snapshot { node, missing_since, silence };
        Ok(pod_gc::reconcile(&pod, &view, self.quarantine, now))
    }
}
