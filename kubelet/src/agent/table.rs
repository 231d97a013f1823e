//! All pods of the node, as a value: events in, work out.
//!
//! Always holds: a pod that runs is only ended because the API server said so, after a complete list;
//! what is published is what was computed last; a pod's records go only after its processes.

mod logs;
mod room;
mod statics;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::cause::Cause;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::eviction::{Eviction, EvictionConfig};
use crate::pod::admission::Amounts;
use crate::pod::effect::{Effect, Note, PodEvent};
use crate::pod::env::{Reference, ReferenceKey, references, refers};
use crate::pod::life::{PodLife, Settings};
use crate::pod::static_pod::is_static;
use crate::pod::sysctls::Allowed;
use crate::pod::time::later;
use crate::pod::{ContainerId, PodRef, PodUid};
use crate::runtime::{Exit, FoundContainer, FoundState};

pub use logs::{LogRefusal, LogTarget};
use room::GoneBy;
use statics::Wanted;
pub use telling::Publication;
use telling::report;

/// How long pods that were down with their node wait for the API server before they are run again anyway.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something the driver must do for a pod.
#[derive(Debug)]
pub enum Work {
    /// What its life asks for.
    Effect(Arc<Pod>, Effect),
    /// Tell the API server of its status.
    Publish(Publication),
    /// Keep its record: pod and status.
    Save(Arc<Pod>),
    /// Follow what it refers to.
    Follow(PodRef, Vec<Reference>),
    /// All its containers have ended for good: what they shared may go.
    Release(PodRef),
    /// Remove its records and logs; follow nothing for it any more.
    Forget(PodRef),
    /// A container of a pod that no one knows any more.
    Kill(ContainerId),
}

struct Entry {
    life: PodLife,
    wake: Option<Timestamp>,
    published: Option<Publication>,
    /// What stands in the API for a pod that runs from a file.
    mirror: Option<PodUid>,
    /// The first, durable record was asked for.
    recorded: bool,
    forgotten: bool,
    /// What its containers shared was let go.
    released: bool,
}

/// All pods of the node.
pub struct PodTable {
    settings: Arc<Settings>,
    allocatable: Amounts,
    pods: BTreeMap<PodUid, Entry>,
    wakes: BTreeSet<(Timestamp, PodUid)>,
    /// Containers found at the start whose pod has no record.
    orphans: BTreeMap<PodUid, Vec<FoundContainer>>,
    /// Pods that were refused what they ask for, until somebody makes room.
    deferred: BTreeSet<PodUid>,
    eviction: Eviction,
    /// What kernel settings pods may have, and whether they have networks of their own.
    sysctls: (Allowed, bool),
    /// Which pods may have been replaced while the node was silent.
    given_up: GoneBy,
    /// Pods that run from files.
    wanted: Wanted,
    /// The node goes down.
    shutting_down: bool,
    /// The agent is being stopped: statuses are no longer published.
    stopping: bool,
}

impl PodTable {
    /// Without pods, on a node with this much to give.
    pub fn new(settings: Arc<Settings>, allocatable: Amounts) -> Self {
        Self {
            settings,
            allocatable,
            pods: BTreeMap::new(),
            wakes: BTreeSet::new(),
            orphans: BTreeMap::new(),
            deferred: BTreeSet::new(),
            eviction: Eviction::new(EvictionConfig::off()),
            sysctls: (Allowed::default(), true),
            given_up: GoneBy::default(),
            wanted: Wanted::new(),
            shutting_down: false,
            stopping: false,
        }
    }

    /// Takes up what was there before a restart of the agent.
    pub fn restore(&mut self, records: Vec<Pod>, found: Vec<FoundContainer>, now: Timestamp) -> Vec<Work> {
        for container in found {
            self.orphans.entry(container.pod.uid.clone()).or_default().push(container);
        }
        let mut work = Vec::new();
        for pod in records {
            let uid = self.take_up(Box::new(pod), now, &mut work);
            self.resume(&uid, now, &mut work);
        }
        work
    }

    /// What runs is tended at once. A pod of which nothing runs waits for word from the API server, since
    /// it may have been replaced elsewhere while this node was down; but not for a server that is away.
    fn resume(&mut self, uid: &PodUid, now: Timestamp, work: &mut Vec<Work>) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if !entry.life.is_quiet() {
            return self.step(uid, PodEvent::Tick, now, work);
        }
        let wake = later(now, PATIENCE);
        entry.wake = Some(wake);
        self.wakes.insert((wake, uid.clone()));
    }

    /// A pod with containers from before.
    fn take_up(&mut self, pod: Box<Pod>, now: Timestamp, work: &mut Vec<Work>) -> PodUid {
        let uid = PodRef::of(&pod).uid;
        let found = self.orphans.remove(&uid).unwrap_or_default();
        let (life, effects) = PodLife::restore(pod, self.settings.clone(), &found, now);
        let pod = Arc::new(life.pod().clone());
        work.push(Work::Follow(life.pod_ref().clone(), references(&pod)));
        work.extend(effects.into_iter().map(|effect| Work::Effect(pod.clone(), effect)));
        self.insert(uid.clone(), life, true);
        uid
    }

    fn insert(&mut self, uid: PodUid, life: PodLife, recorded: bool) {
        self.pods.insert(
            uid,
            Entry {
                life,
                wake: None,
                published: None,
                mirror: None,
                recorded,
                forgotten: false,
                released: false,
            },
        );
    }

    /// The API server told of a pod of this node.
    pub fn applied(&mut self, pod: &Pod, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        let uid = PodRef::of(pod).uid;
        if self.pods.contains_key(&uid) {
            self.step(&uid, PodEvent::Applied(Box::new(pod.clone())), now, &mut work);
            self.decide_resize(&uid, now, &mut work);
            self.reassert(&uid, pod, &mut work);
        } else if self.orphans.contains_key(&uid) {
            let uid = self.take_up(Box::new(pod.clone()), now, &mut work);
            self.step(&uid, PodEvent::Tick, now, &mut work);
        } else {
            self.admit(Box::new(pod.clone()), now, &mut work);
        }
        self.retry_deferred(now, &mut work);
        work
    }

    fn admit(&mut self, pod: Box<Pod>, now: Timestamp, work: &mut Vec<Work>) {
        let pod_ref = PodRef::of(&pod);
        let settings = self.settings.clone();
        let ending = pod.metadata.deletion_timestamp.is_some();
        let life = match self.welcome(&pod) {
            Err(verdict) if !ending => {
                let reason = Note::warning(verdict.reason.clone(), verdict.message.clone());
                work.push(Work::Effect(Arc::new((*pod).clone()), Effect::Record(reason)));
                PodLife::rejected(pod, settings, verdict, now)
            }
            _ => {
                work.push(Work::Follow(pod_ref.clone(), references(&pod)));
                PodLife::new(pod, settings, now)
            }
        };
        let again = PodEvent::Applied(Box::new(life.pod().clone()));
        self.insert(pod_ref.uid.clone(), life, false);
        self.step(&pod_ref.uid, again, now, work);
    }

    /// The API server told that a pod is gone.
    pub fn removed(&mut self, uid: &PodUid, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        self.step(uid, PodEvent::Removed, now, &mut work);
        self.retry_deferred(now, &mut work);
        work
    }

    /// The list is complete: what isn't on it is gone.
    pub fn synced(&mut self, present: &BTreeSet<PodUid>, now: Timestamp) -> Vec<Work> {
        let gone = |(uid, entry): &(&PodUid, &Entry)| !present.contains(uid) && !is_static(entry.life.pod());
        let gone: Vec<PodUid> = self.pods.iter().filter(gone).map(|(uid, _)| uid.clone()).collect();
        let mut work: Vec<Work> = gone.iter().flat_map(|uid| self.removed(uid, now)).collect();
        for (_, containers) in std::mem::take(&mut self.orphans) {
            work.extend(containers.into_iter().map(end_orphan));
        }
        work
    }

    /// A container ended.
    pub fn exited(&mut self, pod: &PodRef, id: ContainerId, exit: Exit, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        if self.pods.contains_key(&pod.uid) {
            self.step(&pod.uid, PodEvent::Exited { id, exit }, now, &mut work);
        } else if let Some(found) = self.orphans.get_mut(&pod.uid) {
            found.iter_mut().filter(|f| f.id == id).for_each(|f| f.state = FoundState::Exited(exit.clone()));
        } else {
            work.push(Work::Forget(pod.clone()));
        }
        self.retry_deferred(now, &mut work);
        work
    }

    /// A request of a pod's life was answered.
    pub fn answered(&mut self, uid: &PodUid, event: PodEvent, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        self.step(uid, event, now, &mut work);
        self.retry_deferred(now, &mut work);
        work
    }

    /// A ConfigMap or Secret changed.
    pub fn reference_changed(&mut self, changed: &ReferenceKey, now: Timestamp) -> Vec<Work> {
        let concerned = |entry: &Entry| refers(entry.life.pod(), |key| key == changed);
        let uids: Vec<PodUid> =
            self.pods.iter().filter(|(_, entry)| concerned(entry)).map(|(uid, _)| uid.clone()).collect();
        uids.iter().flat_map(|uid| self.answered(uid, PodEvent::ReferencesChanged, now)).collect()
    }

    /// What the pod's status answers: the pod as it was seen last.
    pub fn cause(&self, uid: &PodUid) -> Option<Cause> {
        Cause::of(self.pods.get(uid)?.life.pod())
    }

    /// When [`PodTable::tick`] is wanted next.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Timers are due.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        while let Some((at, uid)) = self.wakes.first().cloned().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, uid.clone()));
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.wake = None;
            }
            self.step(&uid, PodEvent::Tick, now, &mut work);
        }
        work
    }

    /// The agent is being stopped together with its pods; they are ended but not reported as failed.
    pub fn stop(&mut self, grace: Duration, now: Timestamp) -> Vec<Work> {
        self.stopping = true;
        let uids: Vec<PodUid> = self.pods.keys().cloned().collect();
        uids.iter().flat_map(|uid| self.answered(uid, PodEvent::AgentStopping { grace }, now)).collect()
    }

    /// No process of any pod runs.
    pub fn is_quiet(&self) -> bool {
        self.pods.values().all(|entry| entry.life.is_quiet())
    }

    /// Everything has been removed for this pod.
    pub fn forgotten(&mut self, uid: &PodUid) {
        if self.pods.get(uid).is_some_and(|entry| entry.forgotten) {
            self.pods.remove(uid);
        }
    }

    fn step(&mut self, uid: &PodUid, event: PodEvent, now: Timestamp, work: &mut Vec<Work>) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let effects = entry.life.step(event, now);
        if !effects.is_empty() {
            let pod = Arc::new(entry.life.allocated_pod().into_owned());
            work.extend(effects.into_iter().map(|effect| Work::Effect(pod.clone(), effect)));
        }
        if !self.stopping {
            report(entry, now, work);
        }
        if let Some(old) = entry.wake.take() {
            self.wakes.remove(&(old, uid.clone()));
        }
        entry.wake = entry.life.next_wake(now);
        self.wakes.extend(entry.wake.map(|at| (at, uid.clone())));
    }
}

/// Its end is told as an event, and then its records go.
fn end_orphan(container: FoundContainer) -> Work {
    match container.state {
        FoundState::Running { .. } => Work::Kill(container.id),
        FoundState::Created | FoundState::Exited(_) => Work::Forget(container.pod),
    }
}
