//! `spec.behavior`: how long recommendations stand, and how fast the count may change.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler};

/// A scale-down waits so long for a higher recommendation, unless `behavior` says otherwise.
const DOWN_WINDOW: i32 = 300;
/// Nothing that happened longer ago than any window or period may be counts.
const LONGEST: SignedDuration = SignedDuration::from_secs(3600);
/// How far use may be from its target without consequence.
const TOLERANCE: f64 = 0.1;

/// What was recommended and done lately, of one autoscaler.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    recommended: Vec<(Timestamp, i32)>,
    /// By how much, up or down.
    changes: Vec<(Timestamp, i32)>,
}

/// What kept the count from being the desired one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Nothing did.
    No,
    /// `minReplicas`.
    TooFew,
    /// `maxReplicas`.
    TooMany,
    /// The policies for scaling up.
    UpRate,
    /// The policies for scaling down.
    DownRate,
}

fn rules(hpa: &HorizontalPodAutoscaler, up: bool) -> HPAScalingRules {
    let behavior = hpa.spec.behavior.clone().unwrap_or_default();
    let given = if up { behavior.scale_up } else { behavior.scale_down };
    let policy = |type_: &str, value| HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 };
    let default = match up {
        true => vec![policy("Pods", 4), policy("Percent", 100)],
        false => vec![policy("Percent", 100)],
    };
    let mut rules = given.unwrap_or_default();
    rules.policies = Some(rules.policies.unwrap_or(default));
    rules.stabilization_window_seconds =
        Some(rules.stabilization_window_seconds.unwrap_or(if up { 0 } else { DOWN_WINDOW }));
    rules
}

/// How far use may be above and below its target.
pub fn tolerances(hpa: &HorizontalPodAutoscaler) -> [f64; 2] {
    let of = |up| {
        let given = rules(hpa, up).tolerance.and_then(|given| api::quantity::Quantity::parse(&given.0).ok());
        // Tolerances are small fractions; a double holds their thousandths exactly enough.
        given.map_or(TOLERANCE, |given| given.as_milli() as f64 / 1000.0)
    };
    [of(true), of(false)]
}

fn since(now: Timestamp, seconds: i32) -> Timestamp {
    now.saturating_sub(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MIN)
}

impl Memory {
    /// At the first look the present count is what was recommended; what is too old is forgotten.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
        let oldest = now.saturating_sub(LONGEST).unwrap_or(Timestamp::MIN);
        self.recommended.retain(|(at, _)| *at >= oldest);
        self.changes.retain(|(at, _)| *at >= oldest);
    }

    /// Notes a change of the count.
    pub fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        self.changes.push((now, to - from));
    }

    /// The recommendation after those of the windows: at least the lowest of the one for scaling up, at most the
    /// highest of the one for scaling down.
    pub fn stabilize(
        &mut self,
        hpa: &HorizontalPodAutoscaler,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> i32 {
        let window = |up| since(now, rules(hpa, up).stabilization_window_seconds.unwrap_or(0));
        let (up_since, down_since) = (window(true), window(false));
        let within = |from: Timestamp| {
            self.recommended.iter().filter(move |(at, _)| *at > from).map(|(_, count)| *count)
        };
        let lowest = within(up_since).min().map_or(wanted, |lowest| lowest.min(wanted));
        let highest = within(down_since).max().map_or(wanted, |highest| highest.max(wanted));
        self.recommended.push((now, wanted));
        current.max(lowest).min(highest)
    }

    /// The count that policies and bounds allow.
    pub fn limit(
        &self,
        hpa: &HorizontalPodAutoscaler,
        current: i32,
        wanted: i32,
        [least, most]: [i32; 2],
        now: Timestamp,
    ) -> (i32, Limited) {
        if wanted > current {
            let reach = self.reach(&rules(hpa, true), current, true, now).max(current);
            let (bound, limited) =
                if reach < most { (reach, Limited::UpRate) } else { (most, Limited::TooMany) };
            return if wanted > bound { (bound, limited) } else { (wanted, Limited::No) };
        }
        if wanted < current {
            let reach = self.reach(&rules(hpa, false), current, false, now).min(current);
            let (bound, limited) =
                if reach > least { (reach, Limited::DownRate) } else { (least, Limited::TooFew) };
            return if wanted < bound { (bound, limited) } else { (wanted, Limited::No) };
        }
        (wanted, Limited::No)
    }

    /// How far the policies let the count go now, given what was changed within their periods.
    fn reach(&self, rules: &HPAScalingRules, current: i32, up: bool, now: Timestamp) -> i32 {
        let select = rules.select_policy.as_deref().unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let each = rules.policies.iter().flatten().map(|policy| {
            let from = since(now, policy.period_seconds);
            let of_direction = |change: i32| if up { change.max(0) } else { change.min(0) };
            let changed: i32 = self
                .changes
                .iter()
                .filter(|(at, _)| *at > from)
                .map(|(_, change)| of_direction(*change))
                .sum();
            let start = current - changed;
            match (policy.type_.as_str(), up) {
                ("Pods", true) => start + policy.value,
                ("Pods", false) => start - policy.value,
                // Counts of pods are far below what a double holds exactly.
                (_, true) => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
                (_, false) => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        let furthest = (select == "Max") == up;
        let chosen = if furthest { each.max() } else { each.min() };
        chosen.unwrap_or(current)
    }
}
