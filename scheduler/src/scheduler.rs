//! The scheduler as a state machine: observations in, bindings and reports out.
//!
//! What always holds: a pod is queued, assumed on a node (its binding is in flight or done, the watch has
//! not shown it yet), placed by the word of the API server, or none of our business, and never two of
//! these. An assumed pod weighs on its node like a bound one, so that bindings can be pipelined; a binding
//! that fails takes the weight back and the pod tries again. Decisions are optimistic: the API server has
//! the last word about each binding. No clock, no client and no randomness of its own live here.

mod together;

use crate::budget::{Budget, Budgets};
use crate::changes::Changes;
use crate::decision::{self, Decision};
use crate::diagnosis::{Diagnosis, NodeExplanation};
use crate::gang::{Gangs, GroupInfo};
use crate::memo::Memo;
use crate::name::{NodeName, PodKey, PodUid};
use crate::node::NodeInfo;
use crate::nomination::Nominations;
use crate::pod::{PodInfo, Shape};
use crate::preemption::{self, Candidate};
use crate::queue::{Queue, Taken};
use crate::snapshot::{Snapshot, Version};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Bindings that may be under way at once. When all are, pods wait in the queue until one returns.
pub const BINDINGS_IN_FLIGHT: usize = 256;

/// Something the scheduler learns.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node exists like this.
    Node(NodeInfo),
    /// A node is gone.
    NodeGone(NodeName),
    /// A pod exists like this.
    Pod(PodInfo),
    /// A pod is gone.
    PodGone(PodKey),
    /// A disruption budget exists like this.
    Budget(Budget),
    /// A disruption budget is gone.
    BudgetGone(PodKey),
    /// A PodGroup exists like this.
    Group(GroupInfo),
    /// A PodGroup is gone.
    GroupGone(PodKey),
    /// A pod that was to be driven away will go; the watch tells when it is gone.
    Evicted,
    /// A pod that was to be driven away couldn't be.
    NotEvicted(PodUid),
    /// A binding was accepted or refused.
    Bound {
        /// The pod.
        pod: PodKey,
        /// Its incarnation.
        uid: PodUid,
        /// Whether the API server accepted it.
        accepted: bool,
    },
}

/// Something the scheduler wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Bind this pod to this node; answer with [`Event::Bound`].
    Bind {
        /// The pod.
        pod: PodKey,
        /// Its incarnation; another one must not be bound.
        uid: PodUid,
        /// Where to.
        node: NodeName,
    },
    /// Tell the user that this pod is unschedulable.
    Report {
        /// The pod.
        pod: PodKey,
        /// Its incarnation.
        uid: PodUid,
        /// The summary, in upstream's words.
        message: Arc<str>,
        /// Where room is being made for it.
        nominated: Option<NodeName>,
    },
    /// Drive this pod away, gracefully; answer with [`Event::Evicted`] or [`Event::NotEvicted`].
    Evict {
        /// The victim.
        pod: PodKey,
        /// Its incarnation; another one must not be touched.
        uid: PodUid,
        /// For whom.
        preemptor: PodUid,
        /// Where both are, or will be.
        node: NodeName,
    },
}

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
    name: Arc<str>,
    snapshot: Snapshot,
    memo: Memo,
    queue: Queue,
    assumed: HashMap<PodKey, Assumed>,
    in_flight: usize,
    changes: Changes,
    /// Decisions that no change has invalidated yet: pods of the same kind fail for the same reasons.
    refused: (Version, HashMap<Kind, Arc<Diagnosis>>),
    budgets: Budgets,
    nominations: Nominations,
    gangs: Gangs,
    /// Equal shapes share one allocation.
    shapes: HashSet<Arc<Shape>>,
}

impl Scheduler {
    /// A scheduler that serves pods whose `schedulerName` is `name`, and knows nothing yet.
    pub fn new(name: &str) -> Self {
        Scheduler {
            name: name.into(),
            snapshot: Snapshot::default(),
            memo: Memo::default(),
            queue: Queue::default(),
            assumed: HashMap::new(),
            in_flight: 0,
            changes: Changes::default(),
            refused: (Version::default(), HashMap::new()),
            budgets: Budgets::default(),
            nominations: Nominations::default(),
            gangs: Gangs::default(),
            shapes: HashSet::new(),
        }
    }

    /// Takes note of an event. Decisions are left to [`Scheduler::schedule`], so that many events can be
    /// taken in before the next one.
    pub fn observe(&mut self, event: Event, now: Instant) {
        match event {
            Event::Node(node) => {
                if let Some(slot) = self.snapshot.set_node(node) {
                    self.changes.node(slot);
                }
            }
            Event::NodeGone(name) => {
                if self.snapshot.remove_node(&name) {
                    self.changes.node_gone();
                    let waiting = self.nominations.node_gone(&name);
                    self.activate(&waiting);
                }
            }
            Event::Budget(budget) => self.budgets.set(budget),
            Event::BudgetGone(key) => self.budgets.remove(&key),
            Event::Group(group) => {
                let released = self.gangs.set(group);
                self.enqueue(released);
            }
            Event::GroupGone(key) => self.gangs.remove(&key),
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
        let mut effects = Vec::new();
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
        self.queue.next_wake()
    }

    /// What every rule says about every node for a queued or placed pod; `None` if it isn't known.
    pub fn explain(&mut self, key: &PodKey) -> Option<Vec<NodeExplanation>> {
        let pod = self.queue.get(key).or_else(|| self.snapshot.pod(key)).cloned()?;
        Some(decision::explain(&mut self.snapshot, &mut self.memo, &pod))
    }

    /// The pods that wait.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The cluster as it is known, with assumed pods in place.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

// Pods as the watch shows them.
impl Scheduler {
    fn pod_applied(&mut self, mut pod: PodInfo) {
        pod.shape = self.intern(pod.shape);
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
        self.end_nomination(&pod.key);
        let released = self.gangs.placed(&pod);
        self.enqueue(released);
        if let Some(known) = self.snapshot.pod(&pod.key).filter(|known| known.occupies_same(&pod)) {
            if known.started != pod.started {
                self.snapshot.renew(Arc::new(pod));
            }
            return;
        }
        if let Some(left) = self.snapshot.displace(&pod.key) {
            self.changes.pod_left(left);
        }
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
        let room_of = self.nominations.get(&pod.key).map(|one| &one.pod);
        if self.snapshot.pod(&pod.key).is_some_and(another) || room_of.is_some_and(another) {
            self.pod_gone(&pod.key);
        }
        if pod.terminating || pod.gated || pod.scheduler_name != self.name {
            self.queue.remove(&pod.key);
            self.gangs.gone(&pod.key);
            self.end_nomination(&pod.key);
            return;
        }
        let pod = Arc::new(pod);
        if let Some(node) = pod.nominated.clone().filter(|_| self.queue.get(&pod.key).is_none()) {
            // Room was being made for it before we began.
            self.nominations.set(pod.clone(), node, BTreeSet::new());
        }
        let ready = self.gangs.waits(pod);
        self.enqueue(ready);
    }

    fn enqueue(&mut self, pods: Vec<Arc<PodInfo>>) {
        pods.into_iter().for_each(|pod| self.queue.put(pod));
    }

    fn pod_gone(&mut self, key: &PodKey) {
        if let Some(uid) = self.snapshot.pod(key).map(|pod| pod.uid.clone()) {
            self.left(&uid);
        }
        self.queue.remove(key);
        self.gangs.gone(key);
        self.end_nomination(key);
        self.forget(key);
    }

    /// Whoever waits for that pod's leaving needn't, or in vain.
    fn left(&mut self, victim: &PodUid) {
        let waiting = self.nominations.left(victim);
        self.activate(&waiting);
    }

    fn activate(&mut self, pods: &[PodKey]) {
        self.refused.1.clear();
        pods.iter().for_each(|key| self.queue.activate(key));
    }

    /// What was reserved for the pod is free for others, too.
    fn end_nomination(&mut self, key: &PodKey) {
        let Some(nomination) = self.nominations.remove(key) else { return };
        self.refused.1.clear();
        if let Some(slot) = self.snapshot.slot(&nomination.node) {
            self.changes.pod_left(slot);
        }
    }

    /// Takes a pod off its node, whether it was assumed or known to be there.
    fn forget(&mut self, key: &PodKey) -> Option<Assumed> {
        if let Some(slot) = self.snapshot.displace(key) {
            self.changes.pod_left(slot);
        }
        self.assumed.remove(key)
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

// Decisions.
impl Scheduler {
    fn wake_parked(&mut self, now: Instant) {
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let (snapshot, memo) = (&mut self.snapshot, &mut self.memo);
        let apart = snapshot.distances().next().is_some();
        self.queue.wake(now, |pod, diagnosis| {
            changes.concern(pod, diagnosis, apart, |pod, slot| {
                decision::would_admit(snapshot, memo, pod, slot)
                    || !pod.never_preempts && preemption::has_room_below(snapshot, pod, slot)
            })
        });
    }

    fn schedule_one(&mut self, taken: Taken, now: Instant, random: u64, effects: &mut Vec<Effect>) {
        let Some(_) = self.gangs.hold(taken.pod.clone()) else { return };
        if let Some(gang) = self.gangs.gang(&taken.pod) {
            return self.schedule_gang(taken, gang, now, random, effects);
        }
        match self.decide(&taken.pod, random) {
            Ok(node) => effects.push(self.assume(taken, node)),
            Err(diagnosis) => self.refuse(taken, diagnosis, now, random, effects),
        }
    }

    /// Where the pod goes, with the room respected that is reserved for others.
    fn decide(&mut self, pod: &PodInfo, random: u64) -> Result<NodeName, Arc<Diagnosis>> {
        let version = self.snapshot.version();
        if self.refused.0 != version {
            self.refused = (version, HashMap::new());
        }
        if let Some(diagnosis) =
            self.refused.1.get(&kind(pod)).filter(|_| self.nominations.get(&pod.key).is_none())
        {
            return Err(diagnosis.clone());
        }
        let nominated = self.nominations.get(&pod.key).and_then(|one| self.snapshot.slot(&one.node));
        let decision = self.with_reservations(pod, |snapshot, memo| {
            let there = nominated.filter(|slot| decision::admits(snapshot, memo, pod, *slot));
            match there.and_then(|slot| snapshot.node(slot)) {
                Some(node) => Decision::Place(node.name.clone()),
                None => decision::decide(snapshot, memo, pod, random),
            }
        });
        match decision {
            Decision::Place(node) if self.stands_alone(pod, &node) => Ok(node),
            Decision::Place(_) => Err(Arc::new(self.diagnose(pod))),
            Decision::Unschedulable(diagnosis) => Err(Arc::new(diagnosis)),
        }
    }

    /// Whether the node is right even if the nominated pods never come: nobody may be near a reservation.
    fn stands_alone(&mut self, pod: &PodInfo, node: &NodeName) -> bool {
        if self.nominations.is_empty() || pod.shape.affinity.near.is_empty() && pod.shape.spread.is_empty() {
            return true;
        }
        let slot = self.snapshot.slot(node).expect("a pod is placed on a known node");
        decision::admits(&mut self.snapshot, &mut self.memo, pod, slot)
    }

    fn diagnose(&mut self, pod: &PodInfo) -> Diagnosis {
        decision::diagnose(&mut self.snapshot, &mut self.memo, pod)
    }

    /// Runs `think` on the cluster as it would be with the nominated pods of at least the pod's priority.
    fn with_reservations<T>(
        &mut self,
        pod: &PodInfo,
        think: impl FnOnce(&mut Snapshot, &mut Memo) -> T,
    ) -> T {
        let reserved = self.nominations.respected_by(pod);
        let version = self.snapshot.version();
        let reserved: Vec<_> =
            reserved.into_iter().filter(|(_, node)| self.snapshot.slot(node).is_some()).collect();
        for (other, node) in &reserved {
            self.snapshot.place(other.clone(), node);
        }
        let thought = think(&mut self.snapshot, &mut self.memo);
        for (other, _) in &reserved {
            self.snapshot.displace(&other.key);
        }
        self.snapshot.unchanged_since(version);
        thought
    }

    /// The pod fits nowhere: others are driven away for it, or it waits.
    fn refuse(
        &mut self,
        taken: Taken,
        diagnosis: Arc<Diagnosis>,
        now: Instant,
        random: u64,
        effects: &mut Vec<Effect>,
    ) {
        let pod = taken.pod.clone();
        let known = self.refused.1.get(&kind(&pod)).is_some_and(|known| Arc::ptr_eq(known, &diagnosis));
        if known || self.nominations.get(&pod.key).is_some_and(|one| !one.victims.is_empty()) {
            // It has been tried already, or those who are to leave are still leaving.
            effects.extend(self.park(taken, diagnosis, now));
            return;
        }
        let budgets = self.budgets.clone();
        let found = self.with_reservations(&pod, |snapshot, memo| {
            preemption::preempt(snapshot, memo, &budgets, &pod, random)
        });
        let diagnosis = match found {
            Ok(candidate) => {
                self.make_room(&pod, candidate, effects);
                diagnosis
            }
            Err(why) => {
                let nominated = self.nominations.get(&pod.key).is_some();
                self.end_nomination(&pod.key);
                let diagnosis = Arc::new((*diagnosis).clone().with_preemption(why));
                if !nominated {
                    self.refused.1.insert(kind(&pod), diagnosis.clone());
                }
                diagnosis
            }
        };
        effects.extend(self.park(taken, diagnosis, now));
    }

    /// Reserves the node for the pod and asks the victims to leave.
    fn make_room(&mut self, pod: &Arc<PodInfo>, candidate: Candidate, effects: &mut Vec<Effect>) {
        let Candidate { node, victims, .. } = candidate;
        let lower = self.nominations.below(&node, pod.priority);
        lower.iter().for_each(|key| self.end_nomination(key));
        self.activate(&lower);
        let evict = |victim: &Arc<PodInfo>| Effect::Evict {
            pod: victim.key.clone(),
            uid: victim.uid.clone(),
            preemptor: pod.uid.clone(),
            node: node.clone(),
        };
        effects.extend(victims.iter().filter(|victim| !victim.terminating).map(evict));
        let leaving = victims.iter().map(|victim| victim.uid.clone()).collect();
        self.refused.1.clear();
        self.nominations.set(pod.clone(), node, leaving);
    }

    fn assume(&mut self, taken: Taken, node: NodeName) -> Effect {
        let PodInfo { key, uid, .. } = &*taken.pod;
        let effect = Effect::Bind { pod: key.clone(), uid: uid.clone(), node: node.clone() };
        let placed = PodInfo { node: Some(node.clone()), ..(*taken.pod).clone() };
        self.end_nomination(key);
        self.snapshot.place(Arc::new(placed), &node);
        self.changes.pod_placed();
        self.in_flight += 1;
        self.assumed.insert(key.clone(), Assumed { uid: uid.clone(), retry: Some(taken) });
        effect
    }

    /// Parks a pod; reports it unless its condition already says the same.
    fn park(&mut self, mut taken: Taken, diagnosis: Arc<Diagnosis>, now: Instant) -> Option<Effect> {
        let message: Arc<str> = diagnosis.to_string().into();
        let pod = &taken.pod;
        let nominated = self.nominations.get(&pod.key).map(|one| one.node.clone());
        let news = pod.reported.as_ref() != Some(&message) || pod.nominated != nominated;
        let report = Effect::Report {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            message: message.clone(),
            nominated: nominated.clone(),
        };
        taken.pod = Arc::new(PodInfo { reported: Some(message), nominated, ..(**pod).clone() });
        self.queue.park(taken, diagnosis, now);
        news.then_some(report)
    }
}

fn kind(pod: &PodInfo) -> Kind {
    (pod.shape.clone(), pod.priority, pod.never_preempts)
}

#[cfg(test)]
#[path = "scheduler/script_tests.rs"]
mod script_tests;

#[cfg(test)]
#[path = "scheduler/oracle_tests.rs"]
mod oracle_tests;
