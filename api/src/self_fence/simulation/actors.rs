//! Who takes part: a node with its agent and its supervisors, and the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Bug, Lease, NODES, Pod, SECOND};
use crate::self_fence::{DRIFT, Silence, Tenure, Verdict};
use crate::testing::Random;

/// A clock that runs up to half of the drift faster or slower than the true time, of which it knows nothing else.
#[derive(Clone, Copy)]
struct Clock {
    base: u64,
    /// In thousandths of half of the drift.
    rate: i64,
}

impl Clock {
    fn new(random: &mut Random) -> Self {
        Self { base: random.below(1000 * SECOND), rate: random.below(2001) as i64 - 1000 }
    }

    fn scale(&self) -> i128 {
        i128::from(self.rate)
    }

    fn read(&self, time: u64) -> u64 {
        let part = i128::from(time) * self.scale() / 1_000 / (2 * i128::from(DRIFT));
        self.base + u64::try_from(i128::from(time) + part).expect("clocks run forwards")
    }

    /// The first moment at which it shows at least that.
    fn when(&self, reading: u64) -> u64 {
        let whole = 1_000 * 2 * i128::from(DRIFT);
        let past = i128::from(reading.saturating_sub(self.base));
        let mut time =
            u64::try_from(past * whole / (whole + self.scale())).expect("a time").saturating_sub(2);
        while self.read(time) < reading {
            time += 1;
        }
        time
    }
}

/// A machine: what outlives its agent, and the agent.
pub struct Node {
    clock: Clock,
    /// Until when pods may run, by its clock, as its supervisors read it.
    pub promised: Option<Duration>,
    /// The pod whose process runs.
    pub running: Option<u64>,
    /// Pods on record that will never run here again.
    pub refused: BTreeSet<u64>,
    pub stopped_until: u64,
    pub agent: Agent,
}

/// What an agent forgets when it is killed.
pub struct Agent {
    pub life: u64,
    pub tenure: Tenure,
    /// Of its requests, the newest.
    pub attempt: u64,
    pub lease: Duration,
    /// The node's pod, as far as the agent has heard; it may have heard of none at all yet.
    pub pod: Option<Pod>,
    heard: bool,
    /// Its list has reached the server, and its watch follows.
    pub listing: bool,
    /// When it hears last of what has happened so far.
    pub told: u64,
    /// A pod that is to be told of as failed, and the newest of all when it was listed.
    pub to_fail: Option<(u64, u64)>,
    /// Pods up to this one were given up.
    given_up: u64,
}

impl Agent {
    fn new(lease: Duration) -> Self {
        Self {
            life: 0,
            tenure: Tenure::default(),
            attempt: 0,
            lease,
            pod: None,
            heard: false,
            listing: false,
            told: 0,
            to_fail: None,
            given_up: 0,
        }
    }

    /// The one that comes after it.
    pub fn next(&self, lease: Duration) -> Self {
        Self { life: self.life + 1, attempt: self.attempt + 1, ..Self::new(lease) }
    }

    pub fn hear(&mut self, life: u64, pod: Option<Pod>) {
        if life == self.life {
            self.pod = pod;
            self.heard = true;
        }
    }
}

impl Node {
    pub fn new(random: &mut Random) -> Self {
        Self {
            clock: Clock::new(random),
            promised: None,
            running: None,
            refused: BTreeSet::new(),
            stopped_until: 0,
            agent: Agent::new(Duration::from_secs(10)),
        }
    }

    pub fn clock(&self, now: u64) -> Duration {
        Duration::from_micros(self.clock.read(now))
    }

    pub fn true_time(&self, reading: Duration) -> u64 {
        self.clock.when(u64::try_from(reading.as_micros()).expect("a time"))
    }

    /// The pod that should run and doesn't, if it may.
    pub fn wants(&self, clock: Duration) -> Option<u64> {
        let pod = self.agent.pod.as_ref().filter(|pod| !pod.failed && !self.refused.contains(&pod.uid))?;
        let pod = Some(pod).filter(|pod| pod.uid > self.agent.given_up)?;
        let may = self.promised.is_some_and(|until| clock < until);
        (may && self.running.is_none()).then_some(pod.uid)
    }

    pub fn end(&mut self, uid: u64) {
        if self.running == Some(uid) {
            self.running = None;
        }
    }

    /// What runs although its pod is gone.
    pub fn stray(&self) -> Option<u64> {
        let pod = self.agent.pod.as_ref().map(|pod| pod.uid);
        self.running.filter(|uid| self.agent.heard && pod != Some(*uid))
    }

    /// Pods up to this one were given up: what the agent knows of them is put on record, and what it hears of
    /// others is old.
    pub fn end_up_to(&mut self, newest: u64) {
        self.agent.given_up = newest;
        self.refused.extend(self.agent.pod.as_ref().map(|pod| pod.uid).filter(|uid| *uid <= newest));
        self.running = self.running.filter(|uid| *uid > newest);
    }

    /// Nothing runs, nothing is promised, and the clock is another.
    pub fn reboot(&mut self, now: u64) {
        self.running = None;
        self.promised = None;
        self.clock.base = now % 1000;
    }
}

/// The controller that replaces pods of silent nodes.
pub struct Controller {
    clock: Clock,
    seen: BTreeMap<usize, (Silence, String)>,
    /// When it hears last of what has happened so far, by node.
    pub told: Vec<u64>,
}

impl Controller {
    pub fn new(random: &mut Random) -> Self {
        Self { clock: Clock::new(random), seen: BTreeMap::new(), told: vec![0; NODES] }
    }

    fn now(&self, now: u64) -> Timestamp {
        Timestamp::from_microsecond(self.clock.read(now) as i64).expect("a time")
    }

    pub fn see(&mut self, node: usize, lease: &Lease, now: u64) {
        let (version, at) = (lease.metadata.resource_version.clone().unwrap_or_default(), self.now(now));
        let (silence, known) =
            self.seen.entry(node).or_insert_with(|| (Silence::of(lease, at), version.clone()));
        silence.see(lease, at);
        *known = version;
    }

    /// Another one takes over, and lists.
    pub fn restart(&mut self, leases: &[Lease], now: u64) {
        self.seen.clear();
        leases.iter().enumerate().for_each(|(node, lease)| self.see(node, lease, now));
    }

    /// The version of the Lease on whose strength the node's pod may be deleted, and whether it is to be marked.
    pub fn gives_up(&self, node: usize, now: u64, bug: Bug) -> Option<(String, bool)> {
        let (silence, version) = self.seen.get(&node)?;
        let now = self.now(now);
        if bug == Bug::NoAllowance {
            let lasts = SignedDuration::try_from(silence.lasts).ok()?;
            return (silence.since + lasts <= now).then(|| (version.clone(), !silence.marked));
        }
        match silence.verdict(now) {
            Verdict::Wait { .. } => None,
            Verdict::GiveUp => Some((version.clone(), true)),
            Verdict::GivenUp => Some((version.clone(), false)),
        }
    }
}
