//! A bucket of tokens: so many may be spent at once, and so many come back in a second.

use jiff::Timestamp;
use std::time::Duration;

/// See the module's description. Time is an argument; one that goes back counts as standing still.
#[derive(Debug, Clone)]
pub struct Bucket {
    burst: f64,
    per_second: f64,
    /// Negative if tokens were spent that are yet to come.
    left: f64,
    at: Timestamp,
}

impl Bucket {
    /// A full one.
    pub fn full(burst: f64, per_second: f64, now: Timestamp) -> Bucket {
        Bucket { burst, per_second, left: burst, at: now }
    }

    /// Spends a token if there is one.
    pub fn spend(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }

    /// Spends a token that is there or will be; returns how long it takes to come.
    pub fn reserve(&mut self, now: Timestamp) -> Duration {
        self.refill(now);
        self.left -= 1.0;
        Duration::from_secs_f64((-self.left).max(0.0) / self.per_second)
    }

    fn refill(&mut self, now: Timestamp) {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(millis: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(millis)
    }

    #[test]
    fn a_burst_is_free_and_then_each_waits_for_its_token() {
        let mut bucket = Bucket::full(2.0, 10.0, at(0));
        let waits: Vec<u128> = (0..4).map(|_| bucket.reserve(at(0)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200]);
        assert_eq!(bucket.reserve(at(300)).as_millis(), 0, "what was waited for has come");
    }

    #[test]
    fn without_a_token_nothing_is_spent() {
        let mut bucket = Bucket::full(1.0, 1.0, at(0));
        let spent: Vec<bool> = [0, 500, 1000, 1000].map(|millis| bucket.spend(at(millis))).to_vec();
        assert_eq!(spent, [true, false, true, false]);
        assert!(!bucket.spend(at(0)), "a clock that goes back gives nothing");
    }
}
