//! Self-fencing: a pod that asks for it ends by itself when its node can no longer say that it lives, so that it can be
//! replaced without asking the node. What both sides know of each other is the node's Lease:
//!
//! - On the node such a pod may run until the end of a promise, counted from before the renewal was *sent* that the API
//!   server has confirmed ([`promise`]). The container's supervisor keeps it by its own timer; it needs neither the
//!   agent nor the network for that.
//! - The controllers give the pod up when they have seen no other renewal for [`surely_over`], counted from when they
//!   saw the last one, which is later ([`Silence`]). Nobody compares clocks: each counts by its own, which may run a
//!   little faster or slower ([`DRIFT`]). Before they delete it they mark the Lease, on the condition that it is still
//!   as they know it.
//! - Every renewal is on the condition that the Lease is as the agent left it, so it can't miss the mark. An agent that
//!   finds one promises nothing before it has said of each pod of its node that asks for it that it has failed, as the
//!   server lists them *after* the agent has come back ([`Tenure`]): what was given up never begins there again.

#[cfg(test)]
mod simulation;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::k8s::api::coordination::v1::Lease;

/// `"true"` on a pod asks for it; on a node's Lease it says that the node's supervisors keep its promises.
pub const ANNOTATION: &str = "amoeba.dev/self-fence";
/// On a node's Lease: pods of the node may have been replaced.
pub const GIVEN_UP: &str = "amoeba.dev/given-up";
/// What the controllers write there.
pub const SILENT: &str = "silent";
/// What the agent writes there while it sees to its pods. The controllers may delete none of them on the strength of
/// their own mark any more.
pub const BACK: &str = "back";
/// Why a pod has failed that was ended so, and what its containers say.
pub const REASON: &str = "SelfFenced";
/// For people, of such a pod.
pub const MESSAGE: &str =
    "The node could not tell the control plane in time that it lives, and the pod asks to be ended then";
/// One part in so many by which a clock may run faster or slower than another.
pub const DRIFT: u32 = 100;
/// What ending a process, or beginning one, may take beyond the promise.
pub const MARGIN: Duration = Duration::from_secs(2);

type Annotations = BTreeMap<String, String>;

/// Whether a pod with these annotations asks for it.
pub fn asks(annotations: Option<&Annotations>) -> bool {
    says(annotations, ANNOTATION) == Some("true")
}

fn says<'a>(annotations: Option<&'a Annotations>, key: &str) -> Option<&'a str> {
    annotations?.get(key).map(String::as_str)
}

/// Whether the supervisors of this Lease's node keep its promises.
pub fn is_kept(lease: &Lease) -> bool {
    says(lease.metadata.annotations.as_ref(), ANNOTATION) == Some("true")
}

fn mark(lease: &Lease) -> Option<&str> {
    says(lease.metadata.annotations.as_ref(), GIVEN_UP)
}

/// How long after the last renewal was seen the pods have surely ended, on the clock of who saw it.
pub fn surely_over(lease: Duration) -> Duration {
    lease.saturating_add(lease / DRIFT).saturating_add(MARGIN)
}

/// What a renewal promises once it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Until when pods may run, on the node's clock.
    pub until: Duration,
    /// `leaseDurationSeconds` of the renewal, by which the controllers count.
    pub seconds: i32,
}

/// The promise of a renewal that is sent now, for this long. What was promised before is never taken back, since
/// supervisors believe it: a lease that becomes shorter says so only once the longer one has run out.
pub fn promise(lasts: Duration, sent: Duration, before: Option<Duration>) -> Promise {
    let until = before.unwrap_or_default().max(sent.saturating_add(lasts));
    let left = until - sent;
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    Promise { until, seconds: i32::try_from(seconds).unwrap_or(i32::MAX) }
}

/// What the agent does next about its Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read it, or make it.
    Read,
    /// Renew it.
    Renew {
        /// On the condition that it is of this `resourceVersion`.
        version: String,
        /// [`GIVEN_UP`] as it is from then on.
        mark: Option<&'static str>,
    },
    /// End every pod of this node that asks for it and isn't over, as the server lists them now, and have the server
    /// know that they have failed.
    EndPods,
}

/// How an agent keeps its node's Lease: asked for the next step, told what came of it.
#[derive(Clone, Debug, Default)]
pub struct Tenure(Phase);

#[derive(Clone, Debug, Default)]
enum Phase {
    /// Nothing is known of the Lease.
    #[default]
    Unknown,
    /// Its version, and whether it is marked.
    Known(String, bool),
    /// The agent has said that it is back, by this version.
    Back(String),
    /// And has seen to its pods.
    Clean(String),
}

impl Tenure {
    /// What to do now.
    pub fn next(&self) -> Step {
        match &self.0 {
            Phase::Unknown => Step::Read,
            Phase::Known(version, marked) => {
                Step::Renew { version: version.clone(), mark: marked.then_some(BACK) }
            }
            Phase::Back(_) => Step::EndPods,
            Phase::Clean(version) => Step::Renew { version: version.clone(), mark: None },
        }
    }

    /// The Lease was read or made.
    pub fn read(&mut self, lease: &Lease) {
        self.0 = Phase::Known(version(lease), mark(lease).is_some());
    }

    /// The Lease was renewed and is like this now. Returns whether the renewal's promise holds.
    pub fn renewed(&mut self, lease: &Lease) -> bool {
        let free = mark(lease).is_none();
        self.0 = if free { Phase::Known(version(lease), false) } else { Phase::Back(version(lease)) };
        free
    }

    /// No pod that asks for it will begin here that was given up.
    pub fn pods_ended(&mut self) {
        if let Phase::Back(version) = &mut self.0 {
            self.0 = Phase::Clean(std::mem::take(version));
        }
    }

    /// A step failed, or nobody knows whether it did.
    pub fn failed(&mut self) {
        self.0 = Phase::Unknown;
    }
}

fn version(lease: &Lease) -> String {
    lease.metadata.resource_version.clone().unwrap_or_default()
}

/// A node's Lease as a controller has come to know it, on its own clock.
#[derive(Clone, Debug)]
pub struct Silence {
    version: String,
    /// How long its renewal promises.
    lasts: Duration,
    /// It was marked, and nobody has renewed it since: the agent would have said so.
    marked: bool,
    /// The supervisors of the node keep its promises.
    kept: bool,
    since: Timestamp,
}

/// What may be done about pods of a node that fence themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: they may run.
    Wait {
        /// When it may be otherwise; never, if nobody on the node ends them.
        until: Option<Timestamp>,
    },
    /// They have ended: mark the Lease as it is known, then they may be deleted.
    GiveUp,
    /// The Lease is marked. As long as it is as it is known, they may be deleted.
    GivenUp,
}

impl Silence {
    /// Seen for the first time.
    pub fn of(lease: &Lease, now: Timestamp) -> Self {
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(i32::MAX);
        Self {
            version: version(lease),
            lasts: Duration::from_secs(seconds.unsigned_abs().into()),
            marked: mark(lease) == Some(SILENT),
            kept: is_kept(lease),
            since: now,
        }
    }

    /// Seen again. Any change may be a sign of life.
    pub fn see(&mut self, lease: &Lease, now: Timestamp) {
        if version(lease) != self.version {
            *self = Self::of(lease, now);
        }
    }

    /// What may be done now.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        let over = SignedDuration::try_from(surely_over(self.lasts)).unwrap_or(SignedDuration::MAX);
        match self.since.saturating_add(over).unwrap_or(Timestamp::MAX) {
            _ if !self.kept => Verdict::Wait { until: None },
            _ if self.marked => Verdict::GivenUp,
            until if until > now => Verdict::Wait { until: Some(until) },
            _ => Verdict::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::api::coordination::v1::LeaseSpec;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_asked_for_in_one_word() {
        let with = |value: &str| BTreeMap::from([(ANNOTATION.to_owned(), value.to_owned())]);
        assert!(asks(Some(&with("true"))));
        assert!(!asks(Some(&with("yes"))) && !asks(Some(&BTreeMap::new())) && !asks(None));
    }

    #[test]
    fn a_promise_is_never_shorter_than_one_before() {
        let first = promise(seconds(300), seconds(1000), None);
        assert_eq!(first, Promise { until: seconds(1300), seconds: 300 });
        // The agent is restarted with a shorter lease.
        let at = Duration::from_millis(1_010_500);
        assert_eq!(
            promise(seconds(40), at, Some(first.until)),
            Promise { until: seconds(1300), seconds: 290 }
        );
        let later = promise(seconds(40), seconds(1290), Some(first.until));
        assert_eq!(later, Promise { until: seconds(1330), seconds: 40 });
    }

    #[test]
    fn nobody_is_given_up_whose_node_does_not_end_him() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let spec = LeaseSpec { lease_duration_seconds: Some(40), ..LeaseSpec::default() };
        let mut lease = Lease { spec: Some(spec), ..Lease::default() };
        assert_eq!(Silence::of(&lease, at(0)).verdict(at(100_000)), Verdict::Wait { until: None });
        let kept = BTreeMap::from([(ANNOTATION.to_owned(), "true".to_owned())]);
        lease.metadata.annotations = Some(kept);
        let silence = Silence::of(&lease, at(0));
        let until = Timestamp::from_millisecond(42_400).expect("a time");
        assert_eq!(silence.verdict(at(42)), Verdict::Wait { until: Some(until) }, "40 s, 1 % and 2 s");
        assert_eq!(silence.verdict(at(43)), Verdict::GiveUp);
    }
}
