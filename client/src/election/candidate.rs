//! What a candidate does next, as a value: no client, no waiting, both clocks are arguments.

use super::ElectionConfig;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use std::time::{Duration, Instant};

/// The next step of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// There is no lease: create it.
    Create(Lease),
    /// Take or renew the lease, under the resourceVersion it carries.
    Update(Lease),
    /// Nothing to do before this instant unless the lease changes.
    WaitUntil(Instant),
}

/// A lease as we know it.
#[derive(Debug, Clone)]
struct Observed {
    lease: Lease,
    /// When our own clock first saw this state.
    since: Instant,
}

/// One candidate's view of the lease.
#[derive(Debug)]
pub struct Candidate {
    config: ElectionConfig,
    observed: Option<Observed>,
    /// When the last successful renewal was sent, if the lease was ours then.
    renewed: Option<Instant>,
}

impl Candidate {
    /// A candidate that knows nothing yet.
    pub fn new(config: ElectionConfig) -> Candidate {
        assert!(config.renew < config.lease, "a leader must stop acting before its lease is free");
        assert!(config.retry < config.renew, "a leader must renew more often than it may fail");
        Candidate { config, observed: None, renewed: None }
    }

    /// Notes the lease as the server has it now (none: there is none).
    pub fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        let Some(lease) = lease else {
            self.observed = None;
            self.renewed = None;
            return;
        };
        if !self.is_ours(&lease) {
            self.renewed = None;
        }
        let unchanged = |seen: &Observed| version(&seen.lease) == version(&lease);
        if !self.observed.as_ref().is_some_and(unchanged) {
            self.observed = Some(Observed { lease, since: now });
        }
    }

    /// As [`Candidate::observe`] for a lease from a watch, which may be older than our own last write.
    pub fn observe_if_newer(&mut self, lease: Lease, now: Instant) {
        let known = self.observed.as_ref().map(|seen| version(&seen.lease));
        if known.is_none_or(|known| known < version(&lease)) {
            self.observe(Some(lease), now);
        }
    }

    /// Notes our own successful write, sent at `sent`.
    pub fn wrote(&mut self, lease: Lease, sent: Instant) {
        self.renewed = self.is_ours(&lease).then_some(sent);
        self.observed = Some(Observed { lease, since: sent });
    }

    /// True while we may act.
    pub fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some() && now < self.valid_until()
    }

    /// Our term as servers check it: it differs from every earlier and later term.
    pub fn fence(&self) -> Option<String> {
        let lease = &self.observed.as_ref().filter(|_| self.renewed.is_some())?.lease;
        let transitions = lease.spec.as_ref()?.lease_transitions.unwrap_or(0);
        let ElectionConfig { namespace, name, identity, .. } = &self.config;
        Some(format!("{namespace}/{name}/{transitions}/{identity}"))
    }

    /// When our right to act ends without another renewal.
    pub fn valid_until(&self) -> Instant {
        match (self.renewed, &self.observed) {
            (Some(sent), _) => sent + self.config.renew,
            (None, Some(seen)) => seen.since,
            // Any instant in the past would do; the earliest known one is that of the question.
            (None, None) => Instant::now(),
        }
    }

    /// What to do now.
    pub fn decide(&self, now: Instant, wall: Timestamp) -> Decision {
        let Some(seen) = &self.observed else {
            return Decision::Create(self.claim(None, wall));
        };
        if let Some(sent) = self.renewed {
            let due = sent + self.config.retry;
            return if due <= now { self.update(seen, wall) } else { Decision::WaitUntil(due) };
        }
        let free = holder(&seen.lease).is_empty() || self.is_ours(&seen.lease);
        let expires = seen.since + self.duration_of(&seen.lease);
        if free || expires <= now { self.update(seen, wall) } else { Decision::WaitUntil(expires) }
    }

    /// The write that gives our lease up, if we hold one.
    pub fn release(&mut self, now: Instant, wall: Timestamp) -> Option<Decision> {
        if !self.leads(now) {
            return None;
        }
        let mut lease = self.observed.as_ref()?.lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(wall));
        self.renewed = None;
        Some(Decision::Update(lease))
    }

    fn update(&self, seen: &Observed, wall: Timestamp) -> Decision {
        Decision::Update(self.claim(Some(&seen.lease), wall))
    }

    /// The lease with us as its holder; `acquireTime` and the count of transitions as client-go keeps them.
    fn claim(&self, lease: Option<&Lease>, wall: Timestamp) -> Lease {
        let mut claim = lease.cloned().unwrap_or_else(|| self.new_lease());
        let ours = lease.is_some_and(|lease| self.is_ours(lease));
        let spec = claim.spec.get_or_insert_default();
        if !ours {
            spec.acquire_time = Some(MicroTime(wall));
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count + 1));
        }
        spec.holder_identity = Some(self.config.identity.clone());
        spec.lease_duration_seconds = Some(whole_seconds(self.config.lease));
        spec.renew_time = Some(MicroTime(wall));
        claim
    }

    fn new_lease(&self) -> Lease {
        Lease {
            metadata: ObjectMeta {
                namespace: Some(self.config.namespace.clone()),
                name: Some(self.config.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec::default()),
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        holder(lease) == self.config.identity
    }

    /// How long the holder of `lease` may be silent. The wire has whole seconds only, so a candidate
    /// with a shorter lease of its own trusts that all candidates are configured alike.
    fn duration_of(&self, lease: &Lease) -> Duration {
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        if seconds == whole_seconds(self.config.lease) {
            return self.config.lease;
        }
        Duration::from_secs(seconds.max(0) as u64)
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// Comparable since 1.35; anything unreadable counts as oldest.
fn version(lease: &Lease) -> u64 {
    lease.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}
