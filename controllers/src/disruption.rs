//! PodDisruptionBudget: how many of its pods may be evicted now.
//!
//! What always holds: an eviction that the API server has granted counts as a loss until its pod is gone, or two
//! minutes have passed; if it isn't known how many pods there should be, none may go. Upstream's
//! `pkg/controller/disruption` gives the rules and the words.

use crate::{
    plan::{Plan, Severity, Target},
    pod::{self, Pod},
};
use api::selector::LabelSelector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};
use kube::{Resource, ResourceExt};
use std::{collections::BTreeMap, sync::Arc};

/// So long an eviction may take to show.
const EVICTION: SignedDuration = SignedDuration::from_mins(2);
const ALLOWED: &str = "DisruptionAllowed";

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The pods that the budget's selector matches.
    pub pods: Vec<Arc<Pod>>,
    /// How many pods each of their controllers wants, by its uid; none for one that doesn't say.
    pub scales: BTreeMap<String, Option<i32>>,
}

/// The pods that `budget` is about; without a selector none.
pub fn matches(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector
        .and_then(|selector| LabelSelector::from_object(selector).ok())
        .is_some_and(|it| it.matches(pod.labels()))
}

/// What to do for `budget` now.
pub fn reconcile(budget: &PodDisruptionBudget, view: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let old = budget.status.clone().unwrap_or_default();
    let new = match wanted(budget, view) {
        Ok(wanted) => counted(budget, view, wanted, now, &mut plan),
        Err(message) => {
            let message = format!("Failed to calculate the number of expected pods: {message}");
            plan.event(
                budget.object_ref(&()),
                Severity::Warning,
                "CalculateExpectedPodCountFailed",
                message.clone(),
            );
            let status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..old.clone() };
            with_condition(budget, status, ("False", "SyncFailed", &message), now)
        }
    };
    plan.status(Target::of(budget), &old, &new, "status");
    plan
}

/// How many pods there should be, and how many of them must stay healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    expected: i32,
    healthy: i32,
}

fn wanted(budget: &PodDisruptionBudget, view: &Snapshot) -> Result<Wanted, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    if let Some(value) = &spec.max_unavailable {
        let expected = expected_scale(view)?;
        return Ok(Wanted { expected, healthy: (expected - scaled(value, expected)).max(0) });
    }
    match &spec.min_available {
        Some(IntOrString::Int(count)) => Ok(Wanted { expected: view.pods.len() as i32, healthy: *count }),
        Some(value) => {
            let expected = expected_scale(view)?;
            Ok(Wanted { expected, healthy: scaled(value, expected) })
        }
        None => Ok(Wanted { expected: view.pods.len() as i32, healthy: 0 }),
    }
}

/// The sum of what the pods' controllers want; pods without one don't count.
fn expected_scale(view: &Snapshot) -> Result<i32, String> {
    let mut sum: i32 = 0;
    for (owner, scale) in &view.scales {
        sum = sum.saturating_add(
            scale.ok_or_else(|| format!("controller {owner} does not implement the scale subresource"))?,
        );
    }
    Ok(sum)
}

/// A count, or a share of `total` rounded up.
fn scaled(value: &IntOrString, total: i32) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            i32::try_from((i64::from(total) * percent + 99).div_euclid(100)).unwrap_or(i32::MAX)
        }
    }
}

fn counted(
    budget: &PodDisruptionBudget,
    view: &Snapshot,
    wanted: Wanted,
    now: Timestamp,
    plan: &mut Plan,
) -> PodDisruptionBudgetStatus {
    let disrupted = still_disrupted(budget, view, now, plan);
    let healthy = |pod: &&Arc<Pod>| {
        pod::is_ready(pod) && !pod::is_terminating(pod) && !disrupted.contains_key(&pod.name_any())
    };
    let current = view.pods.iter().filter(healthy).count() as i32;
    let allowed = if wanted.expected <= 0 { 0 } else { (current - wanted.healthy).max(0) };
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(current),
        desired_healthy: Some(wanted.healthy),
        expected_pods: Some(wanted.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: budget.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let condition =
        if allowed > 0 { ("True", "SufficientPods", "") } else { ("False", "InsufficientPods", "") };
    with_condition(budget, status, condition, now)
}

/// Granted evictions whose pods are still there, and not for too long.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    view: &Snapshot,
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let granted = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let stays =
        |name: &String| view.pods.iter().any(|pod| pod.name_any() == *name && !pod::is_terminating(pod));
    let mut disrupted = BTreeMap::new();
    for (name, at) in granted.into_iter().filter(|(name, _)| stays(name)) {
        let end = at.0 + EVICTION;
        if end > now {
            plan.look_again(end);
            disrupted.insert(name, at);
        } else {
            let message =
                format!("Pod {name} was expected by PDB {} to be deleted but it wasn't", budget.name_any());
            plan.event(budget.object_ref(&()), Severity::Warning, "NotDeleted", message);
        }
    }
    disrupted
}

fn with_condition(
    budget: &PodDisruptionBudget,
    mut status: PodDisruptionBudgetStatus,
    (state, reason, message): (&str, &str, &str),
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let mut conditions = status.conditions.take().unwrap_or_default();
    let old = conditions
        .iter()
        .position(|condition| condition.type_ == ALLOWED)
        .map(|place| conditions.remove(place));
    let since = old.filter(|old| old.status == state).map(|old| old.last_transition_time);
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    });
    PodDisruptionBudgetStatus { conditions: Some(conditions), ..status }
}
