//! Who may have how much of the node: admission, resizes, and who must go when something runs out.

use std::collections::BTreeSet;
use std::time::Duration;

use api::self_fence;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Entry, PodTable, Work};
use crate::eviction::storage::{StorageUsage, exceeded};
use crate::eviction::{self, Eviction, EvictionConfig, IMMEDIATELY, Observation, Pressure, Victim};
use crate::pod::admission::{Amounts, add, admit, admit_ports, admit_profiles, admit_system, requests};
use crate::pod::effect::{Effect, Note, PodEvent};
use crate::pod::life::{PodLife, Verdict};
use crate::pod::resize::{Decision, judge};
use crate::pod::sysctls::Allowed;
use crate::pod::{PodRef, PodUid};

impl PodTable {
    /// Ends pods when the node runs out of something.
    pub fn with_eviction(self, config: EvictionConfig) -> Self {
        Self { eviction: Eviction::new(config), ..self }
    }

    /// Admits pods with these kernel settings beside the safe ones. `own_network`: pods have networks of their own.
    pub fn with_sysctls(self, allowed: Allowed, own_network: bool) -> Self {
        Self { sysctls: (allowed, own_network), ..self }
    }

    /// Whether a pod that is new to this node may run here.
    pub(super) fn welcome(&self, pod: &Pod) -> Result<(), Verdict> {
        if self.shutting_down {
            let message = "Pod was rejected as the node is shutting down.".to_owned();
            return Err(Verdict::plain("NodeShutdown", message));
        }
        self.given_up.admit(pod)?;
        self.sysctls.0.admit(pod, self.sysctls.1)?;
        self.eviction.admit(pod)?;
        admit_system(pod)?;
        admit_profiles(pod)?;
        let (used, count) = self.used(None);
        admit(pod, &used, count, &self.allocatable)?;
        let others = self.pods.values().map(|entry| &entry.life).filter(|life| !life.is_over());
        admit_ports(pod, others.map(PodLife::pod))
    }

    /// What the pods that aren't over were promised, and how many they are; one may be left out. Those whose objects
    /// are gone don't count, though their processes may still be ending: the scheduler has given their room to others,
    /// who would fail for good if they were refused (upstream's kubelet counts likewise).
    fn used(&self, but: Option<&PodUid>) -> (Amounts, usize) {
        let mut total = Amounts::new();
        let counts = |(uid, entry): &(&PodUid, &Entry)| {
            Some(*uid) != but && !entry.life.is_over() && !entry.life.is_disowned()
        };
        let active = || self.pods.iter().filter(counts);
        active().for_each(|(_, entry)| add(&mut total, &requests(&entry.life.allocated_pod())));
        (total, active().count())
    }

    /// Decides about what the pod asks for now, if that isn't what it was promised.
    pub(super) fn decide_resize(&mut self, uid: &PodUid, now: Timestamp, work: &mut Vec<Work>) {
        self.deferred.remove(uid);
        let Some(life) = self.pods.get(uid).map(|entry| &entry.life).filter(|life| life.wants_resize())
        else {
            return;
        };
        let (used, others) = self.used(Some(uid));
        let decision = judge(life.pod(), &life.allocated_pod(), &used, others, &self.allocatable);
        if matches!(decision, Decision::Deferred(_)) {
            self.deferred.insert(uid.clone());
        }
        if life.refused_resize() != Some(&decision) {
            self.step(uid, PodEvent::ResizeDecided(decision), now, work);
        }
    }

    /// Room may have been made: the most important are asked first.
    pub(super) fn retry_deferred(&mut self, now: Timestamp, work: &mut Vec<Work>) {
        let mut waiting: Vec<(i32, PodUid)> =
            self.deferred.iter().map(|uid| (-self.priority(uid), uid.clone())).collect();
        waiting.sort();
        waiting.iter().for_each(|(_, uid)| self.decide_resize(uid, now, work));
    }

    fn priority(&self, uid: &PodUid) -> i32 {
        self.pods.get(uid).map_or(0, |entry| priority(&entry.life))
    }

    /// The node was measured: at most one pod must go.
    pub fn observed(&mut self, seen: &Observation, now: Timestamp) -> Vec<Work> {
        let running = |entry: &&Entry| !entry.life.is_quiet() && !entry.life.is_ending();
        let pods: Vec<&Pod> = self.pods.values().filter(running).map(|entry| entry.life.pod()).collect();
        let Some(Victim { pod, message, grace }) = self.eviction.observe(seen, &pods, now).victim else {
            return Vec::new();
        };
        self.evict(&pod, message, grace, now)
    }

    fn evict(&mut self, pod: &PodUid, message: String, grace: Duration, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        if let Some(entry) = self.pods.get(pod) {
            let note = Effect::Record(Note::warning("Evicted", message.clone()));
            work.push(Work::Effect(entry.life.pod().clone().into(), note));
        }
        let verdict = Verdict::disruption("Evicted", message);
        self.step(pod, PodEvent::Evicted { verdict, grace }, now, &mut work);
        work
    }

    /// A pod's files were measured: it must go if they are more than it has said.
    pub fn stored(&mut self, pod: &PodUid, used: &StorageUsage, now: Timestamp) -> Vec<Work> {
        let life = self.pods.get(pod).map(|entry| &entry.life).filter(|life| !life.is_ending());
        match life.and_then(|life| exceeded(life.pod(), used)) {
            Some(message) => self.evict(pod, message, IMMEDIATELY, now),
            None => Vec::new(),
        }
    }

    /// The node was silent for so long that pods that fence themselves may run elsewhere: those that are listed, and
    /// those of this version or older. None of them begins here any more.
    pub fn give_up(&mut self, listed: BTreeSet<PodUid>, until: u64, now: Timestamp) -> Vec<Work> {
        self.given_up = GoneBy { listed, until };
        let given_up = |entry: &&Entry| self.given_up.has(entry.life.pod()) && !entry.life.is_over();
        let uids: Vec<PodUid> =
            self.pods.values().filter(given_up).map(|entry| entry.life.pod_ref().uid.clone()).collect();
        let mut work = Vec::new();
        for uid in uids {
            let event = PodEvent::Evicted { verdict: Verdict::fenced(), grace: Duration::ZERO };
            self.step(&uid, event, now, &mut work);
        }
        work
    }

    /// No process of a pod that was given up runs or is on its way.
    pub fn given_up_have_ended(&self) -> bool {
        self.pods().filter(|life| self.given_up.has(life.pod())).all(PodLife::is_quiet)
    }

    /// What the node is to report of itself.
    pub fn pressure(&self) -> Pressure {
        self.eviction.pressure()
    }

    /// The node goes down: nobody is admitted any more.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    /// Ends those that are critical, or those that aren't, because the node goes down.
    pub fn end_for_shutdown(&mut self, critical: bool, grace: Duration, now: Timestamp) -> Vec<Work> {
        let group = |entry: &&Entry| is_critical(&entry.life) == critical && !entry.life.is_over();
        let uids: Vec<PodUid> =
            self.pods.values().filter(group).map(|entry| PodRef::of(entry.life.pod()).uid).collect();
        let mut work = Vec::new();
        for uid in uids {
            let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
            let verdict = Verdict::disruption("Terminated", message);
            self.step(&uid, PodEvent::Evicted { verdict, grace }, now, &mut work);
        }
        work
    }

    /// No process runs of those that are critical, or of those that aren't.
    pub fn has_ended(&self, critical: bool) -> bool {
        let mut group = self.pods().filter(|life| is_critical(life) == critical);
        group.all(PodLife::is_quiet)
    }
}

/// Pods that fence themselves and may have been replaced.
#[derive(Debug, Default)]
pub(super) struct GoneBy {
    listed: BTreeSet<PodUid>,
    until: u64,
}

impl GoneBy {
    fn has(&self, pod: &Pod) -> bool {
        let version = pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        self_fence::asks(pod.metadata.annotations.as_ref())
            && (self.listed.contains(&PodRef::of(pod).uid) || version.unwrap_or(0_u64) <= self.until)
    }

    /// A watch that lags behind may tell of one that is gone.
    fn admit(&self, pod: &Pod) -> Result<(), Verdict> {
        if self.until > 0 && self.has(pod) { Err(Verdict::fenced()) } else { Ok(()) }
    }
}

fn priority(life: &PodLife) -> i32 {
    life.pod().spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

fn is_critical(life: &PodLife) -> bool {
    eviction::is_critical(life.pod())
}
