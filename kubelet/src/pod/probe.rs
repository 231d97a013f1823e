//! When a probe is due and what a row of answers means.
//!
//! As upstream's prober: one probe in flight at a time, a result changes only after a threshold of
//! equal answers in a row, and a failed liveness or startup probe stays failed until the next run.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;

use crate::pod::effect::ProbeKind;
use crate::pod::time::{later, seconds};

/// The state of one probe of one run of a container.
#[derive(Clone, Debug)]
pub struct Prober {
    kind: ProbeKind,
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    /// When the next probe is due; `None` while one is in flight or none will follow.
    next: Option<Timestamp>,
    last: Option<bool>,
    in_a_row: u32,
    result: Option<bool>,
}

/// How often and how patiently, with upstream's defaults for missing values.
fn at_least_one(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

impl Prober {
    /// A prober for a run that began at `started`.
    pub fn new(kind: ProbeKind, spec: &Probe, started: Timestamp) -> Self {
        let initial_delay = seconds(spec.initial_delay_seconds.unwrap_or(0).into());
        Self {
            kind,
            period: Duration::from_secs(at_least_one(spec.period_seconds, 10).into()),
            success_threshold: at_least_one(spec.success_threshold, 1),
            failure_threshold: at_least_one(spec.failure_threshold, 3),
            next: Some(later(started, initial_delay)),
            last: None,
            in_a_row: 0,
            result: None,
        }
    }

    /// Takes up a run that was already known as good before the agent was restarted, so that its
    /// readiness doesn't flap.
    pub fn assume_success(&mut self) {
        self.result = Some(true);
        if self.kind == ProbeKind::Startup {
            self.next = None;
        }
    }

    /// Not before the startup probe has succeeded at `now`.
    pub fn hold_until(&mut self, now: Timestamp) {
        self.next = self.next.map(|next| next.max(now));
    }

    /// When the next probe is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Takes the turn if it has come; the caller sends the probe.
    pub fn take_turn(&mut self, now: Timestamp) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = None;
        }
        due
    }

    /// The settled result; `None` until a threshold was reached.
    pub fn result(&self) -> Option<bool> {
        self.result
    }

    /// Takes an answer and returns the settled result if this answer changed it.
    pub fn answer(&mut self, success: bool, now: Timestamp) -> Option<bool> {
        self.count(success);
        let before = self.result;
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.in_a_row >= threshold {
            self.result = Some(success);
        }
        self.skip(now);
        (self.result != before).then_some(success)
    }

    /// Nobody could be asked: all is as before.
    pub fn skip(&mut self, now: Timestamp) {
        self.next = self.goes_on().then(|| later(now, self.period));
    }

    fn count(&mut self, success: bool) {
        self.in_a_row = if self.last == Some(success) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(success);
    }

    /// Whether another probe of this run makes sense.
    fn goes_on(&self) -> bool {
        match self.kind {
            ProbeKind::Readiness => true,
            ProbeKind::Liveness => self.result != Some(false),
            ProbeKind::Startup => self.result.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("small")
    }

    fn run(kind: ProbeKind, probe: &Probe, answers: &str) -> String {
        let mut prober = Prober::new(kind, probe, at(0));
        answers
            .chars()
            .enumerate()
            .map(|(i, c)| {
                let now = at(i as i64 * 10);
                if !prober.take_turn(now) {
                    return '-';
                }
                match prober.answer(c == '+', now) {
                    Some(true) => 'U',
                    Some(false) => 'D',
                    None => '.',
                }
            })
            .collect()
    }

    #[test]
    fn thresholds_and_holds() {
        let two_up = Probe { success_threshold: Some(2), failure_threshold: Some(2), ..Probe::default() };
        let default = Probe::default();
        for (kind, probe, answers, want) in [
            (ProbeKind::Readiness, &default, "+---+", "U..DU"),
            (ProbeKind::Readiness, &default, "---+", "..DU"),
            (ProbeKind::Readiness, &two_up, "+-++--", "...U.D"),
            (ProbeKind::Liveness, &default, "+--+---+", "U.....D-"),
            (ProbeKind::Startup, &default, "--+++", "..U--"),
            (ProbeKind::Startup, &default, "---++", "..D--"),
        ] {
            assert_eq!(run(kind, probe, answers), want, "{kind:?} {answers}");
        }
    }

    #[test]
    fn waits_for_the_initial_delay_and_the_period() {
        let probe = Probe { initial_delay_seconds: Some(5), period_seconds: Some(3), ..Probe::default() };
        let mut prober = Prober::new(ProbeKind::Liveness, &probe, at(0));
        assert!(!prober.take_turn(at(4)));
        assert!(prober.take_turn(at(5)));
        assert!(!prober.take_turn(at(100)), "one probe in flight at a time");
        prober.answer(true, at(6));
        assert_eq!(prober.next(), Some(at(9)));
    }
}
