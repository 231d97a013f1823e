//! The work queue between observing and reconciling.
//!
//! What always holds: a key is queued at most once and never runs twice at the same time; a key added
//! while it runs runs once more afterwards; so the queue is never longer than the number of objects.
//! [`Core`] decides this as a value with the time as an argument, [`WorkQueue`] is the thin driver. The
//! queue doesn't know what a key means, nor what happened to it.

use crate::{
    Shutdown,
    backoff::Policy,
    cause::{self, Cause},
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Debug,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// What running a key led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until something changes; earlier failures are forgotten.
    Done,
    /// As [`Outcome::Done`], and look again after this time, because a deadline passes then.
    After(Duration),
    /// It failed: look again after a growing pause.
    Retry,
}

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Running,
    /// Added again while running.
    RunningDirty,
}

/// The queue as a value: no clock, no waiting.
#[derive(Debug)]
pub struct Core<K> {
    policy: Policy,
    ready: VecDeque<K>,
    places: HashMap<K, Place>,
    /// Keys that become ready later; the number makes equal instants distinct.
    timers: BTreeMap<(Instant, u64), K>,
    /// The one timer of a key: the earliest wins, since a run sets a new one if it still wants it.
    timer_of: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    /// The newest cause of each key that is ready, running or waiting, if it has one.
    causes: HashMap<K, Cause>,
    sequence: u64,
}

impl<K: Clone + Eq + Hash> Core<K> {
    /// An empty queue whose failing keys pause by `policy`.
    pub fn new(policy: Policy) -> Core<K> {
        Core {
            policy,
            ready: VecDeque::new(),
            places: HashMap::new(),
            timers: BTreeMap::new(),
            timer_of: HashMap::new(),
            failures: HashMap::new(),
            causes: HashMap::new(),
            sequence: 0,
        }
    }

    /// Makes `key` ready now, unless it already is; returns whether something changed.
    pub fn add(&mut self, key: K) -> bool {
        match self.places.get(&key) {
            Some(Place::Ready | Place::RunningDirty) => false,
            Some(Place::Running) => {
                self.places.insert(key, Place::RunningDirty);
                true
            }
            None => {
                self.places.insert(key.clone(), Place::Ready);
                self.ready.push_back(key);
                true
            }
        }
    }

    /// Notes why `key` was added; the newest of several causes counts, until a run of the key ends for good.
    pub fn blame(&mut self, key: K, cause: Cause) {
        let newest = self.causes.entry(key).or_insert(cause);
        *newest = cause.max(*newest);
    }

    /// The newest cause of `key`.
    pub fn cause(&self, key: &K) -> Option<Cause> {
        self.causes.get(key).copied()
    }

    /// Makes `key` ready at `when`; an earlier timer of the same key stays.
    pub fn add_at(&mut self, key: K, when: Instant) {
        if let Some(timer) = self.timer_of.get(&key).copied() {
            if timer.0 <= when {
                return;
            }
            self.timers.remove(&timer);
        }
        self.sequence += 1;
        let timer = (when, self.sequence);
        self.timers.insert(timer, key.clone());
        self.timer_of.insert(key, timer);
    }

    /// The next key to run, now marked as running; [`Core::done`] must follow.
    pub fn next(&mut self, now: Instant) -> Option<K> {
        self.fire_timers(now);
        let key = self.ready.pop_front()?;
        self.places.insert(key.clone(), Place::Running);
        Some(key)
    }

    /// When the next timer fires, if no key is ready before.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((when, _), _)| *when)
    }

    /// Notes the end of a run; `random` in 0..1 is the jitter of a retry.
    pub fn done(&mut self, key: K, outcome: Outcome, now: Instant, random: f64) {
        let place = self.places.remove(&key);
        assert!(
            matches!(place, Some(Place::Running | Place::RunningDirty)),
            "only a running key can be done"
        );
        self.settle(&key, outcome, now, random);
        if place == Some(Place::RunningDirty) {
            self.add(key);
        } else if !self.timer_of.contains_key(&key) {
            self.causes.remove(&key);
        }
    }

    /// Number of keys that are ready, running or waiting for a timer.
    pub fn len(&self) -> usize {
        self.places.len() + self.timer_of.keys().filter(|key| !self.places.contains_key(*key)).count()
    }

    /// True if nothing is ready, running or waiting.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.timers.is_empty()
    }

    fn fire_timers(&mut self, now: Instant) {
        while self.next_timer().is_some_and(|when| when <= now) {
            let Some((_, key)) = self.timers.pop_first() else { return };
            self.timer_of.remove(&key);
            self.add(key);
        }
    }

    fn settle(&mut self, key: &K, outcome: Outcome, now: Instant, random: f64) {
        match outcome {
            Outcome::Done => {
                self.failures.remove(key);
            }
            Outcome::After(pause) => {
                self.failures.remove(key);
                self.add_at(key.clone(), now + pause);
            }
            Outcome::Retry => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                let pause = self.policy.pause(*failures, random);
                self.add_at(key.clone(), now + pause);
            }
        }
    }
}

/// A shared handle of a queue; clones are the same queue.
#[derive(Debug)]
pub struct WorkQueue<K>(Arc<Shared<K>>);

#[derive(Debug)]
struct Shared<K> {
    core: Mutex<Core<K>>,
    /// Wakes the one runner; a permit is kept if it isn't waiting right now.
    changed: Notify,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> Self {
        WorkQueue::new(Policy::RETRY)
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue whose failing keys pause by `policy`.
    pub fn new(policy: Policy) -> WorkQueue<K> {
        WorkQueue(Arc::new(Shared { core: Mutex::new(Core::new(policy)), changed: Notify::new() }))
    }

    /// Makes `key` ready now, because of what is told just now ([`cause::current`]). Never waits; the queue is
    /// bounded by the number of distinct keys.
    pub fn add(&self, key: K) {
        self.add_because(key, cause::current());
    }

    /// As [`WorkQueue::add`], because of `cause`.
    pub fn add_because(&self, key: K, cause: Option<Cause>) {
        let mut core = self.0.core.lock();
        if let Some(cause) = cause {
            core.blame(key.clone(), cause);
        }
        if core.add(key) {
            self.0.changed.notify_one();
        }
    }

    /// Makes `key` ready after `pause`; an earlier timer of the same key stays.
    pub fn add_after(&self, key: K, pause: Duration) {
        self.0.core.lock().add_at(key, Instant::now() + pause);
        self.0.changed.notify_one();
    }

    /// Takes all keys that are ready, as if each had run: for tests of what feeds a queue.
    pub fn take_ready(&self) -> Vec<K> {
        let mut core = self.0.core.lock();
        let ready = core.ready.drain(..).collect::<Vec<K>>();
        for key in &ready {
            core.places.remove(key);
            core.causes.remove(key);
        }
        ready
    }

    /// Number of keys that are ready, running or waiting for a timer.
    pub fn len(&self) -> usize {
        self.0.core.lock().len()
    }

    /// True if nothing is ready, running or waiting.
    pub fn is_empty(&self) -> bool {
        self.0.core.lock().is_empty()
    }

    /// Runs keys with their newest causes until `shutdown`, at most `concurrency` at a time, each within
    /// this task. Running keys are finished before it returns; dropping the future drops them at once.
    pub async fn run<F, R>(&self, concurrency: usize, shutdown: Shutdown, reconcile: F)
    where
        F: Fn(K, Option<Cause>) -> R,
        R: Future<Output = Outcome>,
    {
        let mut running = FuturesUnordered::new();
        loop {
            while !shutdown.is_requested() && running.len() < concurrency {
                let Some((key, cause)) = self.next() else { break };
                running.push(reconcile(key.clone(), cause).map(move |outcome| (key, outcome)));
            }
            if shutdown.is_requested() && running.is_empty() {
                return;
            }
            let accepts = !shutdown.is_requested() && running.len() < concurrency;
            tokio::select! {
                Some((key, outcome)) = running.next() => self.finished(key, outcome),
                () = self.wait_for_work(), if accepts => {}
                () = shutdown.requested(), if !shutdown.is_requested() => {}
            }
        }
    }

    fn next(&self) -> Option<(K, Option<Cause>)> {
        let mut core = self.0.core.lock();
        let key = core.next(Instant::now())?;
        let cause = core.cause(&key);
        Some((key, cause))
    }

    fn finished(&self, key: K, outcome: Outcome) {
        self.0.core.lock().done(key, outcome, Instant::now(), rand::random());
    }

    async fn wait_for_work(&self) {
        let timer = self.0.core.lock().next_timer();
        match timer {
            Some(when) => tokio::select! {
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep_until(when.into()) => {}
            },
            None => self.0.changed.notified().await,
        }
    }
}

#[cfg(test)]
mod tests;
