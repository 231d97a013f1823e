//! The delay between a failed try and the next: doubled each time, forgotten after a long good run.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Backoff;
use crate::pod::time::{later, since};

/// The delay in force for one container (or one image).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// `None` until the first failure: the first restart comes at once, as upstream's does.
    current: Option<Duration>,
    /// When a try was last begun; the past is forgotten once a run lasted [`Backoff::reset`].
    begun: Timestamp,
}

impl Delay {
    /// No failure yet.
    pub fn none(now: Timestamp) -> Self {
        Self { current: None, begun: now }
    }

    /// What `tries` restarts without a reset have led to; used after a restart of the agent.
    pub fn after_restarts(restarts: u32, begun: Timestamp, backoff: &Backoff) -> Self {
        let doubled = |n: u32| backoff.initial.saturating_mul(1 << n.min(20)).min(backoff.max);
        Self { current: restarts.checked_sub(1).map(doubled), begun }
    }

    /// When the try after one that ended at `ended` may begin.
    pub fn next_try(&self, ended: Timestamp, backoff: &Backoff) -> Timestamp {
        later(ended, self.in_force(ended, backoff))
    }

    /// How long the next try waits after one that ended at `ended`.
    pub fn in_force(&self, ended: Timestamp, backoff: &Backoff) -> Duration {
        if self.is_forgotten(ended, backoff) { Duration::ZERO } else { self.current.unwrap_or_default() }
    }

    /// When the try after the one begun last is due, if that one failed at once.
    pub fn due(&self, backoff: &Backoff) -> Timestamp {
        self.next_try(self.begun, backoff)
    }

    /// A try begins, `ended` after the previous one.
    pub fn begin(&mut self, ended: Timestamp, now: Timestamp, backoff: &Backoff) {
        let doubled = match self.current {
            Some(current) if !self.is_forgotten(ended, backoff) => current.saturating_mul(2).min(backoff.max),
            _ => backoff.initial,
        };
        *self = Self { current: Some(doubled), begun: now };
    }

    fn is_forgotten(&self, ended: Timestamp, backoff: &Backoff) -> bool {
        since(ended, self.begun) > backoff.reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("small")
    }

    #[test]
    fn doubles_to_the_maximum_and_starts_over_after_a_long_run() {
        let backoff = Backoff::default();
        let mut delay = Delay::none(at(0));
        let mut waits = Vec::new();
        let mut now = at(0);
        for _ in 0..8 {
            let ended = now;
            let next = delay.next_try(ended, &backoff);
            waits.push(since(next, ended).as_secs());
            delay.begin(ended, next, &backoff);
            now = next;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let ended = later(now, Duration::from_secs(601));
        assert_eq!(delay.next_try(ended, &backoff), ended);
        delay.begin(ended, ended, &backoff);
        assert_eq!(delay.in_force(ended, &backoff), Duration::from_secs(10));
    }

    #[test]
    fn a_restarted_agent_knows_the_delay_from_the_number_of_restarts() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..8)
            .map(|n| Delay::after_restarts(n, at(0), &backoff).in_force(at(1), &backoff).as_secs())
            .collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }
}
