//! Growing pauses with jitter, as a value.
//!
//! The randomness is an argument, so a test names the exact pause it expects; drivers pass
//! `rand::random()`. Jitter takes up to half of the pause away: many clients that lost the same server
//! must not come back in the same millisecond.

use std::time::Duration;

/// How pauses grow: doubled at each failure from `first` up to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub most: Duration,
}

impl Policy {
    /// For connections to the API server: a restarted or failed-over server is found again within a
    /// second or two, which the healing time of the whole cluster depends on.
    pub const CONNECT: Policy = Policy { first: Duration::from_millis(50), most: Duration::from_secs(2) };

    /// For a failing key in a work queue; client-go's rate limiter goes from 5 ms to 1000 s. Our upper
    /// end is 30 s, because a key that waits longer looks like one that was forgotten.
    pub const RETRY: Policy = Policy { first: Duration::from_millis(5), most: Duration::from_secs(30) };

    /// The pause after `failures` failures in a row; `random` in 0..1 takes up to half of it away.
    pub fn pause(&self, failures: u32, random: f64) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = 2u32.saturating_pow(failures - 1);
        let full = self.first.saturating_mul(doubled).min(self.most);
        full.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }
}

/// Counts failures in a row and hands out the pause before the next attempt.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub fn new(policy: Policy) -> Backoff {
        Backoff { policy, failures: 0 }
    }

    /// Notes a failure; `random` is in 0..1.
    pub fn failed(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.policy.pause(self.failures, random)
    }

    /// Notes a success: the next failure pauses shortly again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Policy};
    use std::time::Duration;

    const POLICY: Policy = Policy { first: Duration::from_millis(10), most: Duration::from_millis(70) };

    #[test]
    fn pauses_double_up_to_the_limit() {
        let pauses: Vec<u128> = (0..6).map(|n| POLICY.pause(n, 0.0).as_millis()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 70, 70]);
        assert_eq!(POLICY.pause(u32::MAX, 1.0), Duration::from_millis(35));
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(POLICY);
        backoff.failed(0.0);
        assert_eq!(backoff.failed(0.0), Duration::from_millis(20));
        backoff.succeeded();
        assert_eq!(backoff.failed(0.0), Duration::from_millis(10));
    }
}
