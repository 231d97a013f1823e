//! The pods that wait for a node.
//!
//! Three places: *active* pods are decided about next, by priority and age; pods in *back-off* failed
//! recently and wait some seconds; *parked* pods fit nowhere and wait for a relevant change, however long.
//! Every pod is in exactly one place. Time is an argument; nothing polls.

use crate::changes::Hopes;
use crate::name::PodKey;
use crate::pod::{PodInfo, Shape};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a pod that failed waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failed attempt; it doubles with each further one.
    pub first: Duration,
    /// And doesn't become longer than this.
    pub longest: Duration,
}

impl Default for Backoff {
    /// Upstream's.
    fn default() -> Self {
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) }
    }
}

impl Backoff {
    fn after(self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest)
    }
}

/// Order among active pods: higher priority, then longer waiting, then by name.
type Rank = (Reverse<i32>, Timestamp, PodKey);

/// Why a pod is in back-off, which decides whether an idle scheduler may take it early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// It fitted nowhere, and then something relevant changed. Back-off only keeps it from crowding out
    /// others, so it ends early when nobody else waits (upstream does so since 1.33).
    Woken,
    /// Its binding failed; the API server gets time to recover.
    Failed,
}

/// Parked pods for which the same answer holds: shape, priority, whether they never preempt, what they wait for.
type Group = (Arc<Shape>, i32, bool, Hopes);

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Active,
    Backoff(Instant, Cause),
    Parked(Hopes),
}

#[derive(Clone, Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    /// Attempts that failed since the pod was last changed by its owner.
    failures: u32,
    last_failure: Option<Instant>,
}

/// The waiting pods. See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    entries: HashMap<PodKey, Entry>,
    active: BTreeSet<Rank>,
    backoff: BTreeSet<(Instant, PodKey)>,
    /// One question answers for all pods of a group.
    parked: HashMap<Group, BTreeSet<PodKey>>,
    pause: Backoff,
}

/// A pod taken from the queue for a decision. It comes back by `park` or `retry`, or is done with.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The pod.
    pub pod: Arc<PodInfo>,
    failures: u32,
}

fn rank(pod: &PodInfo) -> Rank {
    (Reverse(pod.priority), pod.created, pod.key.clone())
}

fn group(pod: &PodInfo, hopes: Hopes) -> Group {
    (pod.shape.clone(), pod.priority, pod.never_preempts, hopes)
}

impl Queue {
    /// An empty queue.
    pub fn new(pause: Backoff) -> Self {
        Queue { pause, ..Queue::default() }
    }

    /// Adds a pod, or takes note of its change. A change of what it demands makes it active at once; any
    /// other (its status, its labels) leaves it where it waits.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        match self.entries.get_mut(&pod.key) {
            Some(entry) if entry.pod.demands_same(&pod) => entry.pod = pod,
            _ => {
                self.remove(&pod.key);
                self.insert(Entry { pod, place: Place::Active, failures: 0, last_failure: None });
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, key: &PodKey) -> Option<Arc<PodInfo>> {
        let entry = self.entries.remove(key)?;
        match entry.place {
            Place::Active => self.active.remove(&rank(&entry.pod)),
            Place::Backoff(until, _) => self.backoff.remove(&(until, key.clone())),
            Place::Parked(hopes) => self.unpark(&entry.pod, hopes),
        };
        Some(entry.pod)
    }

    /// The next pod to decide about: an active one, or else one whose back-off is over or needless.
    pub fn pop(&mut self, now: Instant) -> Option<Taken> {
        self.end_backoffs(now);
        let key = match self.active.first() {
            Some((_, _, key)) => key.clone(),
            None => self.first_woken()?,
        };
        self.take(&key)
    }

    /// Takes a certain pod, wherever it waits.
    pub fn take(&mut self, key: &PodKey) -> Option<Taken> {
        let failures = self.entries.get(key)?.failures;
        Some(Taken { pod: self.remove(key)?, failures })
    }

    /// Parks a pod that fits nowhere, until [`Queue::wake`] finds a reason to try again.
    pub fn park(&mut self, taken: Taken, hopes: Hopes, now: Instant) {
        self.insert_failed(taken, Place::Parked(hopes), now);
    }

    /// Puts a pod whose binding failed into back-off.
    pub fn retry(&mut self, taken: Taken, now: Instant) {
        let until = now + self.pause.after(taken.failures + 1);
        self.insert_failed(taken, Place::Backoff(until, Cause::Failed), now);
    }

    /// Lets parked pods try again of whose group `hopeful` says so, after what is left of their back-off.
    /// It is asked once per group, with one pod of it and what the group waits for.
    pub fn wake(&mut self, now: Instant, mut hopeful: impl FnMut(&PodInfo, Hopes) -> bool) {
        let entries = &self.entries;
        let first = |pods: &BTreeSet<PodKey>| pods.first().and_then(|key| entries.get(key));
        let woken = self
            .parked
            .iter()
            .filter(|((.., hopes), pods)| first(pods).is_some_and(|entry| hopeful(&entry.pod, *hopes)));
        let woken: Vec<(PodKey, Hopes)> =
            woken.flat_map(|((.., hopes), pods)| pods.iter().map(|key| (key.clone(), *hopes))).collect();
        woken.iter().for_each(|(key, hopes)| self.wake_one(key, *hopes, now));
    }

    /// Lets a pod try again now, whatever it waits for.
    pub fn activate(&mut self, key: &PodKey) {
        let Some(Taken { pod, failures }) = self.take(key) else { return };
        self.insert(Entry { pod, place: Place::Active, failures, last_failure: None });
    }

    /// When the next back-off ends, if any pod is in back-off.
    pub fn next_wake(&self) -> Option<Instant> {
        self.backoff.first().map(|(until, _)| *until)
    }

    /// The queued pod of that name.
    pub fn get(&self, key: &PodKey) -> Option<&Arc<PodInfo>> {
        self.entries.get(key).map(|entry| &entry.pod)
    }

    /// Where a pod waits, in words; `None` if it isn't queued.
    pub fn place(&self, key: &PodKey) -> Option<&'static str> {
        Some(match self.entries.get(key)?.place {
            Place::Active => "active",
            Place::Backoff(..) => "back-off",
            Place::Parked(_) => "parked",
        })
    }

    /// How many pods are active, in back-off and parked.
    pub fn lengths(&self) -> (usize, usize, usize) {
        let waiting = self.active.len() + self.backoff.len();
        (self.active.len(), self.backoff.len(), self.entries.len() - waiting)
    }

    fn insert_failed(&mut self, taken: Taken, place: Place, now: Instant) {
        let failures = taken.failures.saturating_add(1);
        self.insert(Entry { pod: taken.pod, place, failures, last_failure: Some(now) });
    }

    fn insert(&mut self, entry: Entry) {
        let key = entry.pod.key.clone();
        match &entry.place {
            Place::Active => drop(self.active.insert(rank(&entry.pod))),
            Place::Backoff(until, _) => drop(self.backoff.insert((*until, key.clone()))),
            Place::Parked(hopes) => {
                self.parked.entry(group(&entry.pod, *hopes)).or_default().insert(key.clone());
            }
        }
        let before = self.entries.insert(key, entry);
        assert!(before.is_none(), "a pod is queued in one place only");
    }

    fn wake_one(&mut self, key: &PodKey, hopes: Hopes, now: Instant) {
        let Some(mut entry) = self.entries.remove(key) else { return };
        self.unpark(&entry.pod, hopes);
        let until = entry.last_failure.map(|failed| failed + self.pause.after(entry.failures));
        entry.place = match until.filter(|until| *until > now) {
            Some(until) => Place::Backoff(until, Cause::Woken),
            None => Place::Active,
        };
        self.insert(entry);
    }

    fn unpark(&mut self, pod: &PodInfo, hopes: Hopes) -> bool {
        let group = group(pod, hopes);
        let Some(pods) = self.parked.get_mut(&group) else { return false };
        let removed = pods.remove(&pod.key);
        if pods.is_empty() {
            self.parked.remove(&group);
        }
        removed
    }

    fn end_backoffs(&mut self, now: Instant) {
        while let Some((_, key)) = self.backoff.first().filter(|(until, _)| *until <= now).cloned() {
            self.backoff.pop_first();
            let entry = self.entries.get_mut(&key).expect("a pod in back-off is queued");
            entry.place = Place::Active;
            self.active.insert(rank(&entry.pod));
        }
    }

    fn first_woken(&self) -> Option<PodKey> {
        let woken = |key: &PodKey| matches!(self.entries[key].place, Place::Backoff(_, Cause::Woken));
        self.backoff.iter().map(|(_, key)| key).find(|key| woken(key)).cloned()
    }
}

#[cfg(test)]
impl Queue {
    /// Every parked pod.
    pub fn parked(&self) -> Vec<Arc<PodInfo>> {
        let parked = self.entries.values().filter(|entry| matches!(entry.place, Place::Parked(_)));
        parked.map(|entry| entry.pod.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
