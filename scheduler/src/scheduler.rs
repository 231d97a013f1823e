//! The scheduler as a state machine: observations in, bindings and reports out.
//!
//! What always holds: a pod is queued, assumed on a node (its binding is in flight or done, the watch has
//! not shown it yet), placed by the word of the API server, or none of our business, and never two of
//! these. An assumed pod weighs on its node like a bound one, so that bindings can be pipelined; a binding
//! that fails takes the weight back and the pod tries again. Decisions are optimistic: the API server has
//! the last word about each binding. A pod whose claims wait for its node is assumed there, too, and bound when
//! its claims are ([`preparing`]). No clock, no client and no randomness of its own live here.

mod decisions;
mod message;
mod preparing;
mod together;

pub use message::{Effect, Event};
pub use preparing::ClaimWrite;
use preparing::Preparing;

use crate::budget::Budgets;
use crate::changes::Changes;
use crate::diagnosis::{Diagnosis, NodeExplanation};
use crate::gang::Gangs;
use crate::memo::Memo;
use crate::name::{NodeName, PodKey, PodUid};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Shape};
use crate::profile::{ProfileHandle, Profiles};
use crate::queue::{Backoff, Queue, Taken};
use crate::reservation::Reservations;
use crate::snapshot::{Snapshot, Version};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Bindings that may be under way at once. When all are, pods wait in the queue until one returns.
pub const BINDINGS_IN_FLIGHT: usize = 256;

/// A pod whose binding is under way or accepted, but which the watch still shows unbound.
#[derive(Debug)]
struct Assumed {
    uid: PodUid,
    /// To return it to the queue; `None` once the binding was accepted.
    retry: Option<Taken>,
}

impl Assumed {
    /// If the binding fails, the pod tries again as it is now.
    fn renew(&mut self, pod: PodInfo) {
        if let Some(taken) = &mut self.retry {
            taken.pod = Arc::new(pod);
        }
    }
}

/// Pods of one kind (shape, priority, whether they never preempt) fare alike.
type Kind = (Arc<Shape>, i32, bool);

/// The state. See the module's description.
#[derive(Debug)]
pub struct Scheduler {
    profiles: Profiles,
    snapshot: Snapshot,
    memo: Memo,
    queue: Queue,
    assumed: HashMap<PodKey, Assumed>,
    /// Of the assumed pods those whose claims aren't bound yet.
    preparing: BTreeMap<PodKey, Preparing>,
    in_flight: usize,
    changes: Changes,
    /// Decisions that no change has invalidated yet: pods of the same kind fail for the same reasons.
    refused: (Version, HashMap<Kind, Arc<Diagnosis>>),
    budgets: Budgets,
    /// Pods for which room is being made.
    reservations: Reservations,
    gangs: Gangs,
    /// Equal shapes share one allocation.
    shapes: HashSet<Arc<Shape>>,
}

impl Scheduler {
    /// A scheduler that serves pods whose `schedulerName` is `name`, by upstream's profile, and knows nothing yet.
    pub fn new(name: &str) -> Self {
        Scheduler::with(Profiles::upstream(name), Backoff::default())
    }

    /// A scheduler that serves the pods of these profiles, and knows nothing yet.
    pub fn with(profiles: Profiles, backoff: Backoff) -> Self {
        Scheduler {
            profiles,
            snapshot: Snapshot::default(),
            memo: Memo::default(),
            queue: Queue::new(backoff),
            assumed: HashMap::new(),
            preparing: BTreeMap::new(),
            in_flight: 0,
            changes: Changes::default(),
            refused: (Version::default(), HashMap::new()),
            budgets: Budgets::default(),
            reservations: Reservations::default(),
            gangs: Gangs::default(),
            shapes: HashSet::new(),
        }
    }

    /// Takes note of an event. Decisions are left to [`Scheduler::schedule`], so that many events can be
    /// taken in before the next one.
    pub fn observe(&mut self, event: Event, now: Instant) {
        match event {
            Event::Node(node) => self.node_applied(node),
            Event::NodeGone(name) => self.node_gone(&name),
            Event::Budget(budget) => self.budgets.set(budget),
            Event::BudgetGone(key) => self.budgets.remove(&key),
            Event::Group(group) => {
                let released = self.gangs.set(group);
                self.enqueue(released);
            }
            Event::GroupGone(key) => self.gangs.remove(&key),
            Event::Namespace(namespace) => self.changes.namespaces(self.snapshot.set_namespace(namespace)),
            Event::NamespaceGone(name) => self.changes.namespaces(self.snapshot.remove_namespace(&name)),
            Event::Storage(event) => {
                if self.snapshot.storage_mut().apply(event) {
                    self.changes.storage();
                }
            }
            Event::Prepared { pod, uid, accepted } => self.prepared(&pod, &uid, accepted, now),
            Event::Evicted => {}
            Event::NotEvicted(uid) => self.left(&uid),
            Event::Pod(pod) => self.pod_applied(pod),
            Event::PodGone(key) => self.pod_gone(&key),
            Event::Bound { pod, uid, accepted } => self.bound(&pod, &uid, accepted, now),
        }
    }

    /// Decides about up to `most` waiting pods. `random` breaks ties. Call again while it returns effects.
    pub fn schedule(&mut self, most: usize, now: Instant, random: &mut impl FnMut() -> u64) -> Vec<Effect> {
        self.wake_parked(now);
        let mut effects = self.bind_prepared(now);
        for _ in 0..most {
            if self.in_flight >= BINDINGS_IN_FLIGHT {
                break;
            }
            let Some(taken) = self.queue.pop(now) else { break };
            self.schedule_one(taken, now, random(), &mut effects);
        }
        effects
    }

    /// When `schedule` should be called again although nothing was observed.
    pub fn next_wake(&self) -> Option<Instant> {
        let given_up = self.preparing.values().map(|preparing| preparing.until).min();
        self.queue.next_wake().into_iter().chain(given_up).min()
    }

    /// What every rule says about every node for a queued or placed pod, with the room respected that is reserved
    /// for others; `None` if it isn't known.
    pub fn explain(&mut self, key: &PodKey) -> Option<Vec<NodeExplanation>> {
        let pod = self.queue.get(key).or_else(|| self.snapshot.pod(key)).cloned()?;
        let reserved = self.reservations.fill_for(&mut self.snapshot, &pod);
        Some(reserved.explain(&mut self.snapshot, &mut self.memo, &pod))
    }

    /// The pods that wait.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}

// Nodes as the watch shows them.
impl Scheduler {
    fn node_applied(&mut self, node: NodeInfo) {
        let name = node.name.clone();
        if let Some(slot) = self.snapshot.set_node(node) {
            self.changes.node(slot);
            self.reservations.node_appeared(&mut self.snapshot, &name);
        }
    }

    fn node_gone(&mut self, name: &NodeName) {
        if self.snapshot.remove_node(name) {
            self.changes.node_gone();
            let waiting = self.reservations.node_gone(&mut self.snapshot, name);
            self.activate(&waiting);
        }
    }
}

// Pods as the watch shows them.
impl Scheduler {
    fn pod_applied(&mut self, mut pod: PodInfo) {
        pod.shape = self.shape(&pod);
        if pod.finished {
            return self.pod_gone(&pod.key);
        }
        match pod.node.clone() {
            Some(node) => self.pod_is_on(pod, &node),
            None => self.pod_waits(pod),
        }
    }

    /// The API server says where the pod is; that ends every assumption about it.
    fn pod_is_on(&mut self, pod: PodInfo, node: &NodeName) {
        self.queue.remove(&pod.key);
        self.assumed.remove(&pod.key);
        self.end_preparing(&pod.key);
        self.end_nomination(&pod.key);
        let released = self.gangs.placed(&pod);
        self.enqueue(released);
        if let Some(known) = self.snapshot.pod(&pod.key).filter(|known| known.occupies_same(&pod)) {
            if known.started != pod.started {
                self.snapshot.renew(Arc::new(pod));
            }
            return;
        }
        self.take_off(&pod.key);
        self.snapshot.place(Arc::new(pod), node);
        self.changes.pod_placed();
    }

    fn pod_waits(&mut self, pod: PodInfo) {
        if let Some(assumed) = self.assumed.get_mut(&pod.key) {
            // The watch lags behind our binding, unless this is a new pod under the old name.
            if assumed.uid == pod.uid && !pod.terminating {
                return assumed.renew(pod);
            }
            self.forget(&pod.key);
        }
        let another = |known: &Arc<PodInfo>| known.uid != pod.uid;
        let room_of = self.reservations.get(&pod.key).map(|one| &one.pod);
        if self.snapshot.pod(&pod.key).is_some_and(another) || room_of.is_some_and(another) {
            self.pod_gone(&pod.key);
        }
        if pod.terminating || pod.gated || self.profiles.get(&pod.scheduler_name).is_none() {
            self.queue.remove(&pod.key);
            self.gangs.gone(&pod.key);
            self.end_nomination(&pod.key);
            return;
        }
        let pod = Arc::new(pod);
        if let Some(node) = pod.nominated.clone().filter(|_| self.queue.get(&pod.key).is_none()) {
            // Room was being made for it before we began.
            self.nominate(&pod, node, BTreeSet::new());
        }
        let ready = self.gangs.waits(pod);
        self.enqueue(ready);
    }

    fn enqueue(&mut self, pods: Vec<Arc<PodInfo>>) {
        pods.into_iter().for_each(|pod| self.queue.put(pod));
    }

    fn pod_gone(&mut self, key: &PodKey) {
        self.end_nomination(key);
        if let Some(uid) = self.snapshot.pod(key).map(|pod| pod.uid.clone()) {
            self.left(&uid);
        }
        self.queue.remove(key);
        self.gangs.gone(key);
        self.forget(key);
    }

    /// Whoever waits for that pod's leaving needn't, or in vain.
    fn left(&mut self, victim: &PodUid) {
        let waiting = self.reservations.left(victim);
        self.activate(&waiting);
    }

    fn activate(&mut self, pods: &[PodKey]) {
        self.refused.1.clear();
        pods.iter().for_each(|key| self.queue.activate(key));
    }

    /// Reserves the node for the pod, and only that one, until the victims have left and it is there.
    fn nominate(&mut self, pod: &Arc<PodInfo>, node: NodeName, victims: BTreeSet<PodUid>) {
        self.end_nomination(&pod.key);
        self.reservations.reserve(&mut self.snapshot, pod.clone(), node, victims);
        self.refused.1.clear();
        self.changes.pod_placed();
    }

    /// What was reserved for the pod is free for others, too.
    fn end_nomination(&mut self, key: &PodKey) {
        let Some(nomination) = self.reservations.release(&mut self.snapshot, key) else { return };
        self.refused.1.clear();
        if let Some(slot) = self.snapshot.slot(&nomination.node) {
            self.changes.pod_left(slot, &nomination.pod);
        }
    }

    /// Takes a pod off its node, whether it was assumed or known to be there.
    fn forget(&mut self, key: &PodKey) -> Option<Assumed> {
        self.take_off(key);
        self.end_preparing(key);
        self.assumed.remove(key)
    }

    fn take_off(&mut self, key: &PodKey) {
        let Some(pod) = self.snapshot.pod(key).cloned() else { return };
        if let Some(slot) = self.snapshot.displace(key) {
            self.changes.pod_left(slot, &pod);
        }
    }

    fn bound(&mut self, key: &PodKey, uid: &PodUid, accepted: bool, now: Instant) {
        self.in_flight = self.in_flight.checked_sub(1).expect("each binding answers once");
        let Some(assumed) = self.assumed.get_mut(key).filter(|assumed| assumed.uid == *uid) else {
            return; // The watch was faster: the pod is bound, or gone, or another one by now.
        };
        if accepted {
            assumed.retry = None;
        } else if let Some(taken) = self.forget(key).and_then(|assumed| assumed.retry) {
            self.queue.retry(taken, now);
        }
    }

    /// What decisions about the pod depend on, of which its profile is a part.
    fn shape(&mut self, pod: &PodInfo) -> Arc<Shape> {
        let profile = self.profiles.get(&pod.scheduler_name).filter(|one| **one != ProfileHandle::default());
        let shape = profile.map_or_else(|| pod.shape.clone(), |profile| Arc::new(pod.shape.under(profile)));
        self.intern(shape)
    }

    fn intern(&mut self, shape: Arc<Shape>) -> Arc<Shape> {
        if let Some(known) = self.shapes.get(&shape) {
            return known.clone();
        }
        // Shapes that no pod has any more are let go whenever the table would have to grow.
        if self.shapes.len() == self.shapes.capacity() {
            self.shapes.retain(|shape| Arc::strong_count(shape) > 1);
        }
        self.shapes.insert(shape.clone());
        shape
    }
}

#[cfg(test)]
mod script_tests;

#[cfg(test)]
mod oracle_tests;

#[cfg(test)]
mod shared_tests;
