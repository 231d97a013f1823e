//! Horizontal autoscaling: how many pods the measured use asks for. Upstream's `pkg/controller/podautoscaler` gives
//! the arithmetic, the texts of conditions and events, and the meaning of `spec.behavior`.
//!
//! What was recommended and scaled in the last minutes is remembered in [`Memory`], as upstream's controller does; a
//! restart begins with the present count as its only recommendation.

mod behavior;
pub mod sample;
mod usage;

pub use behavior::Memory;
pub use usage::Measured;

use crate::plan::{Part, Plan, Severity, Target};
use behavior::Limited;
use client::recorder::reference;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::autoscaling::v2::{
        HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
        MetricStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::core::ApiResource;
use serde_json::json;
use std::cmp::Ordering;

/// How often use is measured. Upstream: 15 s.
const PERIOD: SignedDuration = SignedDuration::from_secs(15);

/// What is to be scaled.
#[derive(Debug, Clone)]
pub struct Scaled {
    /// Its kind.
    pub kind: ApiResource,
    /// Its uid.
    pub uid: String,
    /// How many pods it is asked to have.
    pub wanted: i32,
    /// How many it has.
    pub present: i32,
}

/// What an autoscaler's decision depends on.
#[derive(Debug, Clone)]
pub struct View {
    /// The target, or why it could not be read.
    pub scaled: Result<Scaled, String>,
    /// What was measured for each metric of the spec, or why it could not be: reason and message.
    pub measured: Vec<Result<Measured, (&'static str, String)>>,
}

/// What a pod has of a metric that isn't a resource.
pub fn plain_sample((pod, value): (String, i64)) -> usage::Sample {
    usage::Sample { pod, used: Some(value), requested: None, is_ready: true }
}

/// One metric's answer.
struct Proposal {
    replicas: i32,
    name: String,
    status: MetricStatus,
}

/// What a look has decided.
struct Decision {
    desired: i32,
    reason: String,
    metrics: Option<Vec<MetricStatus>>,
}

/// What to do for `hpa`; `memory` is brought up to date.
pub fn reconcile(hpa: &HorizontalPodAutoscaler, view: &View, memory: &mut Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if hpa.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    plan.look_again(now + PERIOD);
    let mut sheet = Sheet::of(hpa, now);
    match &view.scaled {
        Err(why) => {
            let message = format!("the HPA controller was unable to get the target's current scale: {why}");
            sheet.set("AbleToScale", false, "FailedGetScale", message);
            plan.event(reference(hpa), Severity::Warning, "FailedGetScale", why.clone());
        }
        Ok(scaled) => scale(hpa, scaled, view, memory, &mut sheet, &mut plan),
    }
    let old = hpa.status.clone().unwrap_or_default();
    plan.status(Target::of(hpa), &old, &sheet.status, "status");
    plan
}

fn scale(
    hpa: &HorizontalPodAutoscaler,
    scaled: &Scaled,
    view: &View,
    memory: &mut Memory,
    sheet: &mut Sheet,
    plan: &mut Plan,
) {
    let (now, current) = (sheet.now, scaled.wanted);
    let message = "the HPA controller was able to get the target's current scale";
    sheet.set("AbleToScale", true, "SucceededGetScale", message);
    sheet.status.current_replicas = Some(current);
    memory.begin(current, now);
    let decision = match decide(hpa, scaled, view, sheet) {
        Ok(decision) => decision,
        Err((reason, message)) => {
            sheet.status.desired_replicas = current;
            return plan.event(reference(hpa), Severity::Warning, reason, message);
        }
    };
    sheet.status.current_metrics = decision.metrics.clone().or(sheet.status.current_metrics.take());
    let desired = match &decision.metrics {
        Some(_) => bounded(hpa, current, decision.desired, memory, sheet),
        None => decision.desired,
    };
    sheet.status.desired_replicas = desired;
    if desired != current {
        memory.scaled(current, desired, now);
        rescale(hpa, scaled, desired, &decision.reason, sheet, plan);
    }
}

fn least(hpa: &HorizontalPodAutoscaler) -> i32 {
    hpa.spec.min_replicas.unwrap_or(1)
}

fn most(hpa: &HorizontalPodAutoscaler) -> i32 {
    hpa.spec.max_replicas
}

/// Outside its bounds the target is brought back at once; inside, the metrics decide.
fn decide(
    hpa: &HorizontalPodAutoscaler,
    scaled: &Scaled,
    view: &View,
    sheet: &mut Sheet,
) -> Result<Decision, (&'static str, String)> {
    let (current, least, most) = (scaled.wanted, least(hpa), most(hpa));
    let at_once = |desired, reason: &str| Ok(Decision { desired, reason: reason.to_owned(), metrics: None });
    if current == 0 && least != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        sheet.set("ScalingActive", false, "ScalingDisabled", message);
        return at_once(0, "");
    }
    if current > most {
        return at_once(most, "Current number of replicas above Spec.MaxReplicas");
    }
    if current < least {
        return at_once(least, "Current number of replicas below Spec.MinReplicas");
    }
    by_metrics(hpa, current, view, sheet)
}

/// The largest proposal wins. If some metric is unknown, nothing is scaled down.
fn by_metrics(
    hpa: &HorizontalPodAutoscaler,
    current: i32,
    view: &View,
    sheet: &mut Sheet,
) -> Result<Decision, (&'static str, String)> {
    let specs = hpa.spec.metrics.as_deref().unwrap_or_default();
    let tolerances = behavior::tolerances(hpa);
    let answers = specs.iter().zip(&view.measured).map(|(spec, measured)| {
        measured.clone().and_then(|measured| usage::propose(spec, &measured, current, tolerances))
    });
    let (good, bad): (Vec<_>, Vec<_>) = answers.partition(Result::is_ok);
    let good: Vec<Proposal> = good.into_iter().flatten().collect();
    let first_bad = bad.into_iter().find_map(Result::err);
    let best = good.iter().max_by_key(|proposal| proposal.replicas);
    match (best.map(|best| (best.replicas, best.name.clone())), first_bad) {
        (Some((desired, name)), bad) if bad.is_none() || desired >= current => {
            let message = format!("the HPA was able to successfully calculate a replica count from {name}");
            sheet.set("ScalingActive", true, "ValidMetricFound", message);
            let reason = match desired.cmp(&current) {
                Ordering::Less => "All metrics below target".to_owned(),
                Ordering::Equal => String::new(),
                Ordering::Greater => format!("{name} above target"),
            };
            let metrics = Some(good.into_iter().map(|proposal| proposal.status).collect());
            Ok(Decision { desired, reason, metrics })
        }
        (_, Some((reason, why))) => {
            let message = format!("the HPA was unable to compute the replica count: {why}");
            sheet.set("ScalingActive", false, reason, message.clone());
            Err((reason, why))
        }
        (_, None) => Err(("InvalidMetricSourceType", "no metric is specified".to_owned())),
    }
}

/// What the metrics ask for, within what behaviour and bounds allow.
fn bounded(
    hpa: &HorizontalPodAutoscaler,
    current: i32,
    wanted: i32,
    memory: &mut Memory,
    sheet: &mut Sheet,
) -> i32 {
    let stable = memory.stabilize(hpa, current, wanted, sheet.now);
    match stable == wanted {
        true => {
            let message = "recommended size matches current size";
            sheet.set("AbleToScale", true, "ReadyForNewScale", message);
        }
        false if stable > wanted => {
            let message = "recent recommendations were higher than current one, applying the highest recent recommendation";
            sheet.set("AbleToScale", true, "ScaleDownStabilized", message);
        }
        false => {
            let message = "recent recommendations were lower than current one, applying the lowest recent recommendation";
            sheet.set("AbleToScale", true, "ScaleUpStabilized", message);
        }
    }
    let (desired, limited) = memory.limit(hpa, current, stable, [least(hpa), most(hpa)], sheet.now);
    let (reason, message) = match limited {
        Limited::No => ("DesiredWithinRange", "the desired count is within the acceptable range"),
        Limited::TooFew => {
            ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
        }
        Limited::TooMany => {
            ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
        }
        Limited::UpRate => {
            ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
        }
        Limited::DownRate => {
            ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
        }
    };
    sheet.set("ScalingLimited", limited != Limited::No, reason, message);
    desired
}

fn rescale(
    hpa: &HorizontalPodAutoscaler,
    scaled: &Scaled,
    desired: i32,
    reason: &str,
    sheet: &mut Sheet,
    plan: &mut Plan,
) {
    let name = &hpa.spec.scale_target_ref.name;
    let namespace = hpa.metadata.namespace.clone().unwrap_or_default();
    let target = Target::named(scaled.kind.clone(), &namespace, name, &scaled.uid);
    plan.patch(
        target,
        Part::Scale,
        json!({"spec": {"replicas": desired}}),
        format!("from {}: {reason}", scaled.wanted),
    );
    let message = format!("New size: {desired}; reason: {reason}");
    plan.event(reference(hpa), Severity::Normal, "SuccessfulRescale", message);
    let message = format!("the HPA controller was able to update the target scale to {desired}");
    sheet.set("AbleToScale", true, "SucceededRescale", message);
    sheet.status.last_scale_time = Some(Time(sheet.now));
}

/// The status under construction.
struct Sheet {
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
}

impl Sheet {
    fn of(hpa: &HorizontalPodAutoscaler, now: Timestamp) -> Sheet {
        let mut status = hpa.status.clone().unwrap_or_default();
        status.observed_generation = hpa.metadata.generation;
        Sheet { status, now }
    }

    fn set(&mut self, name: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let known = conditions.iter().position(|condition| condition.type_ == name);
        let at = known.unwrap_or_else(|| {
            conditions
                .push(HorizontalPodAutoscalerCondition { type_: name.to_owned(), ..Default::default() });
            conditions.len() - 1
        });
        let condition = &mut conditions[at];
        if condition.status != status {
            condition.last_transition_time = Some(Time(self.now));
        }
        status.clone_into(&mut condition.status);
        (condition.reason, condition.message) = (Some(reason.to_owned()), Some(message.into()));
    }
}

#[cfg(test)]
mod tests;
