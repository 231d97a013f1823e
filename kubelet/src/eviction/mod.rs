//! Who must go when the node runs out of something: thresholds, how long they have been crossed, and whom it
//! helps most to end.
//!
//! A value that is fed observations and hands back what to do (upstream's eviction manager, without its clock
//! and its measuring). One pod at a time is ended: the next observation shows whether that was enough.
//!
//! Always holds: critical pods are never chosen; a soft threshold ends nobody before its grace is over; a
//! condition holds at least as long as the transition period after it was last seen.

mod message;
mod rank;
pub mod storage;
pub mod threshold;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::eviction::message::message;
use crate::eviction::rank::by_urgency;
use crate::eviction::threshold::{Resource, Signal, Threshold};
use crate::pod::admission::qos_class;
use crate::pod::life::Verdict;
use crate::pod::static_pod::is_static;
use crate::pod::time::{later, seconds, since};
use crate::pod::{ContainerName, PodUid};

/// What a pod gets that is ended at once (upstream's).
pub const IMMEDIATELY: Duration = Duration::from_secs(1);
/// From this priority on a pod is critical to its cluster or node.
pub const CRITICAL: i32 = 2_000_000_000;

/// When pods are ended, and how.
#[derive(Clone, Debug)]
pub struct EvictionConfig {
    /// Of all signals, hard and soft.
    pub thresholds: Vec<Threshold>,
    /// The longest that a pod gets after a soft threshold.
    pub max_pod_grace: Duration,
    /// How long a condition holds after it was last seen.
    pub transition: Duration,
}

impl EvictionConfig {
    /// Nothing is watched.
    pub fn off() -> Self {
        let transition = Duration::from_secs(300);
        Self { thresholds: Vec::new(), max_pod_grace: Duration::ZERO, transition }
    }
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// Left.
    pub available: u64,
    /// In all.
    pub capacity: u64,
}

/// What a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// By container, in bytes.
    pub memory: BTreeMap<ContainerName, u64>,
    /// Files of its own on the node's disk, in bytes; 0 unless it was asked for.
    pub disk: u64,
    /// Their number.
    pub inodes: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// What was measured at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Of the node.
    pub supplies: BTreeMap<Signal, Supply>,
    /// Of the pods.
    pub pods: BTreeMap<PodUid, PodUsage>,
}

/// Which of the node's conditions hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `MemoryPressure`.
    pub memory: bool,
    /// `DiskPressure`.
    pub disk: bool,
    /// `PIDPressure`.
    pub processes: bool,
}

impl Pressure {
    /// The conditions' names, sorted.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.disk, Resource::Disk.condition()),
            (self.memory, Resource::Memory.condition()),
            (self.processes, Resource::Processes.condition()),
        ];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect()
    }
}

/// A pod that must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Which.
    pub pod: PodUid,
    /// `status.message`.
    pub message: String,
    /// How long it may take to end.
    pub grace: Duration,
}

/// What follows from an observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the node is short of, so that images and what has ended may make room first.
    pub short_of: Option<Resource>,
    /// Whom to end.
    pub victim: Option<Victim>,
}

/// The state between observations.
#[derive(Clone, Debug)]
pub struct Eviction {
    config: EvictionConfig,
    /// By place in the configuration: since when it has been crossed.
    crossed: BTreeMap<usize, Timestamp>,
    /// By the conditions' names: when they were last seen.
    seen: BTreeMap<&'static str, Timestamp>,
    pressure: Pressure,
}

impl Eviction {
    /// Has seen nothing yet.
    pub fn new(config: EvictionConfig) -> Self {
        Self { config, crossed: BTreeMap::new(), seen: BTreeMap::new(), pressure: Pressure::default() }
    }

    /// What the node is to report now.
    pub fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// Takes what was measured; `pods` are those of which something runs.
    pub fn observe(&mut self, seen: &Observation, pods: &[&Pod], now: Timestamp) -> Outcome {
        self.note_crossed(seen, now);
        self.note_pressure(now);
        let Some(threshold) = self.most_urgent(now) else { return Outcome::default() };
        let resource = threshold.signal.resource();
        let mut order: Vec<&&Pod> = pods.iter().filter(|pod| !is_critical(pod)).collect();
        order.sort_by(|a, b| by_urgency(resource, a, b, seen));
        let victim = order.first().map(|pod| self.victim(pod, threshold, seen));
        Outcome { short_of: Some(resource), victim }
    }

    /// One that was crossed stays so until as much more is there as it wants to have back.
    fn note_crossed(&mut self, seen: &Observation, now: Timestamp) {
        for (place, threshold) in self.config.thresholds.iter().enumerate() {
            let Some(supply) = seen.supplies.get(&threshold.signal) else { continue };
            let was = self.crossed.contains_key(&place);
            match threshold.is_crossed(*supply, was) {
                true => drop(self.crossed.entry(place).or_insert(now)),
                false => drop(self.crossed.remove(&place)),
            }
        }
    }

    fn note_pressure(&mut self, now: Timestamp) {
        for place in self.crossed.keys() {
            self.seen.insert(self.config.thresholds[*place].signal.resource().condition(), now);
        }
        let transition = self.config.transition;
        let holds = |resource: Resource| {
            let last = self.seen.get(resource.condition());
            last.is_some_and(|last| *last == now || since(now, *last) < transition)
        };
        self.pressure = Pressure {
            memory: holds(Resource::Memory),
            disk: holds(Resource::Disk),
            processes: holds(Resource::Processes),
        };
    }

    /// Of those whose grace is over: memory first, as it is lost soonest.
    fn most_urgent(&self, now: Timestamp) -> Option<&Threshold> {
        let over = |(place, since): (&usize, &Timestamp)| {
            let threshold = &self.config.thresholds[*place];
            (later(*since, threshold.grace.unwrap_or_default()) <= now).then_some(threshold)
        };
        let due = self.crossed.iter().filter_map(over);
        due.min_by_key(|threshold| (threshold.signal.resource(), threshold.grace.is_some()))
    }

    fn victim(&self, pod: &Pod, threshold: &Threshold, seen: &Observation) -> Victim {
        let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let grace = match threshold.grace {
            Some(_) => self.config.max_pod_grace.min(seconds(own)),
            None => IMMEDIATELY,
        };
        let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
        Victim { message: message(pod, threshold, seen), pod: uid, grace }
    }

    /// Refuses a pod that would make things worse.
    pub fn admit(&self, pod: &Pod) -> Result<(), Verdict> {
        let names = self.pressure.names();
        let only_memory = names == [Resource::Memory.condition()];
        let welcome = is_critical(pod) || only_memory && (qos_class(pod) != "BestEffort" || tolerates(pod));
        if names.is_empty() || welcome {
            return Ok(());
        }
        let message = format!("The node had condition: [{}]. ", names.join(" "));
        Err(Verdict::plain("Evicted", message))
    }
}

/// Needed by the cluster or the node itself, as everything is that runs from its files.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|it| it >= CRITICAL)
}

/// It says that it can do with little memory.
fn tolerates(pod: &Pod) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.into_iter().any(|toleration| {
        let everything = toleration.key.as_deref().unwrap_or_default().is_empty()
            && toleration.operator.as_deref() == Some("Exists");
        let this = toleration.key.as_deref() == Some("node.kubernetes.io/memory-pressure")
            && toleration.value.as_deref().unwrap_or_default().is_empty();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        (everything || this) && matches!(effect, "" | "NoSchedule")
    })
}

#[cfg(test)]
mod tests;
