//! Whether the container runtime can run pods, by what it answers: a node whose runtime can't isn't ready.

use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::node::object::Health;
use crate::runtime::Runtime;

/// How often it is asked within the time that it may be silent, as upstream: every 5 s of 30 s.
const QUESTIONS: u32 = 6;
/// Between two questions, however little patience there is.
const LEAST: Duration = Duration::from_millis(10);

/// What is known of the runtime.
#[derive(Debug)]
struct RuntimeState {
    patience: Duration,
    /// When it last answered.
    heard: Instant,
    /// What it complained of then.
    troubles: Vec<String>,
}

impl RuntimeState {
    /// It has just answered.
    fn new(patience: Duration, now: Instant) -> Self {
        Self { patience, heard: now, troubles: Vec::new() }
    }

    fn answered(&mut self, troubles: Vec<String>, now: Instant) {
        (self.heard, self.troubles) = (now, troubles);
    }

    /// What is wrong, in upstream's words.
    fn troubles(&self, now: Instant) -> Vec<String> {
        let silent = now.duration_since(self.heard) >= self.patience;
        let down = silent.then(|| "container runtime is down".to_owned());
        down.into_iter().chain(self.troubles.iter().cloned()).collect()
    }
}

/// Asks until asked to stop, and tells what is wrong whenever that changes.
pub async fn watch(
    runtime: Arc<dyn Runtime>,
    patience: Duration,
    health: watch::Sender<Health>,
    shutdown: Shutdown,
) {
    let every = (patience / QUESTIONS).max(LEAST);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = RuntimeState::new(patience, Instant::now());
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        match timeout(every, runtime.troubles()).await {
            Ok(Ok(troubles)) => state.answered(troubles, Instant::now()),
            Ok(Err(error)) => tracing::debug!(error = %error.chain(), "ask the container runtime"),
            Err(_) => tracing::debug!("the container runtime doesn't answer in time"),
        }
        let troubles = state.troubles(Instant::now());
        health.send_if_modified(|told| {
            let changed = told.runtime != troubles;
            told.runtime = troubles;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_down_when_it_was_silent_for_too_long() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut state = RuntimeState::new(Duration::from_secs(30), start);
        assert!(state.troubles(at(29)).is_empty());
        assert_eq!(state.troubles(at(30)), ["container runtime is down"]);
        state.answered(vec!["no network".to_owned()], at(31));
        assert_eq!(state.troubles(at(60)), ["no network"]);
        assert_eq!(state.troubles(at(61)), ["container runtime is down", "no network"]);
        state.answered(Vec::new(), at(62));
        assert!(state.troubles(at(63)).is_empty());
    }
}
