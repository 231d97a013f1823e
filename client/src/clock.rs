//! The one clock of a process: wall time at the start, carried on by the monotonic clock.
//!
//! Always holds: it never goes back and never jumps, so a corrected wall clock fires no timer, reorders no
//! timestamps of one process's life, and makes no node look silent.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    begun: Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { wall: Timestamp::now(), begun: Instant::now() }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.begun.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// When this time comes.
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        let wait = std::time::Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        tokio::time::Instant::now() + wait.min(std::time::Duration::from_secs(86_400))
    }
}
