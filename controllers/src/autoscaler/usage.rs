//! From what was measured to a number of pods.

use super::Proposal;
use api::quantity::Quantity;
use k8s_openapi::{
    api::autoscaling::v2::{MetricSpec, MetricTarget, MetricValueStatus},
    apimachinery::pkg::api::resource::Quantity as Amount,
};
use serde_json::{Value, json};

/// One metric as it was measured; amounts are in thousandths.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// Of each pod.
    PerPod(Vec<Sample>),
    /// Of something else, in total, with the number of ready pods that share it.
    Total {
        /// How much.
        value: i64,
        /// Ready pods.
        ready: usize,
    },
}

/// One pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name.
    pub pod: String,
    /// What it uses, if that was measured.
    pub used: Option<i64>,
    /// What it asks for, if it asks for any.
    pub requested: Option<i64>,
    /// Whether it counts as one that takes load.
    pub is_ready: bool,
}

type Refusal = (&'static str, String);

/// The number of pods that a metric asks for.
pub fn propose(
    spec: &MetricSpec,
    measured: &Measured,
    current: i32,
    tolerances: [f64; 2],
) -> Result<Proposal, Refusal> {
    let source = source(spec).ok_or_else(|| unknown(&spec.type_))?;
    let target: MetricTarget =
        serde_json::from_value(source["target"].clone()).map_err(|_| unknown(&spec.type_))?;
    let milli = |amount: &Option<Amount>| {
        // What fits no i64 is refused by validation.
        let parsed = amount.as_ref().and_then(|amount| Quantity::parse(&amount.0).ok());
        parsed.and_then(|amount| i64::try_from(amount.as_milli()).ok()).filter(|amount| *amount > 0)
    };
    let counted =
        match (measured, milli(&target.average_value), milli(&target.value), target.average_utilization) {
            (Measured::PerPod(samples), _, _, Some(percent)) => {
                by_use(samples, current, tolerances, Goal::Percent(percent.into()))?
            }
            (Measured::PerPod(samples), Some(average), ..) => {
                by_use(samples, current, tolerances, Goal::Average(average))?
            }
            (Measured::Total { value, .. }, Some(average), ..) => {
                by_average(*value, average, current, tolerances)
            }
            (Measured::Total { value, ready }, None, Some(goal), _) => {
                let ratio = *value as f64 / goal as f64;
                let replicas =
                    if tolerable(ratio, tolerances) { current } else { ceil(ratio * *ready as f64) };
                Counted { replicas, average: None, percent: None, value: Some(*value) }
            }
            _ => return Err(unknown(&spec.type_)),
        };
    let status = json!({"type": spec.type_, field(&spec.type_): status(&source, &counted)});
    let status = serde_json::from_value(status).map_err(|_| unknown(&spec.type_))?;
    Ok(Proposal { replicas: counted.replicas, name: name(&spec.type_, &source, &target), status })
}

fn unknown(type_: &str) -> Refusal {
    ("InvalidMetricSourceType", format!("unknown metric source type {type_:?} or incomplete target"))
}

/// `Resource` is in `resource`.
fn field(type_: &str) -> String {
    let mut letters = type_.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn source(spec: &MetricSpec) -> Option<Value> {
    serde_json::to_value(spec).ok()?.get(field(&spec.type_)).cloned()
}

fn name(type_: &str, source: &Value, target: &MetricTarget) -> String {
    let text = |pointer: &str| source.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let percentage =
        if target.average_utilization.is_some() { " utilization (percentage of request)" } else { "" };
    match type_ {
        "Resource" => format!("{} resource{percentage}", text("/name")),
        "ContainerResource" => format!("{} container resource{percentage}", text("/name")),
        "Pods" => format!("pods metric {}", text("/metric/name")),
        "Object" => format!("{} metric {}", text("/describedObject/kind"), text("/metric/name")),
        _ => format!("external metric {}", text("/metric/name")),
    }
}

fn status(source: &Value, counted: &Counted) -> Value {
    let amount = |milli: i64| Amount(Quantity::from_milli(milli).to_string());
    let current = MetricValueStatus {
        average_utilization: counted.percent,
        average_value: counted.average.map(amount),
        value: counted.value.map(amount),
    };
    let mut status = source.clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("target");
        fields.insert("current".to_owned(), json!(current));
    }
    status
}

/// The count and the figures behind it.
struct Counted {
    replicas: i32,
    average: Option<i64>,
    percent: Option<i32>,
    value: Option<i64>,
}

#[derive(Clone, Copy)]
enum Goal {
    Percent(i64),
    Average(i64),
}

fn tolerable(ratio: f64, [up, down]: [f64; 2]) -> bool {
    (1.0 - down..=1.0 + up).contains(&ratio)
}

fn ceil(count: f64) -> i32 {
    // Casting saturates; bounds of the spec come afterwards.
    count.ceil() as i32
}

fn by_average(value: i64, average: i64, current: i32, tolerances: [f64; 2]) -> Counted {
    let ratio = value as f64 / (average as f64 * f64::from(current.max(1)));
    let replicas = if tolerable(ratio, tolerances) { current } else { ceil(value as f64 / average as f64) };
    let each = value / i64::from(current.max(1));
    Counted { replicas, average: Some(each), percent: None, value: None }
}

/// Pods that don't take load yet, or whose use isn't known, weigh against the direction of the change.
fn by_use(samples: &[Sample], current: i32, tolerances: [f64; 2], goal: Goal) -> Result<Counted, Refusal> {
    if samples.is_empty() {
        return Err(refused("no pods returned by selector while calculating replica count"));
    }
    if let (Goal::Percent(_), Some(lacks)) = (goal, samples.iter().find(|sample| sample.requested.is_none()))
    {
        return Err(refused(&format!("missing request in pod {}", lacks.pod)));
    }
    let known: Vec<&Sample> =
        samples.iter().filter(|sample| sample.is_ready && sample.used.is_some()).collect();
    if known.is_empty() {
        return Err(refused("did not receive metrics for targeted pods (pods might be unready)"));
    }
    let used = |sample: &&Sample| sample.used.unwrap_or(0);
    let ratio = ratio(known.iter().map(|sample| (used(sample), *sample)), goal);
    let total: i64 = known.iter().map(used).sum();
    let counted = |replicas| Counted {
        replicas,
        average: Some(total / known.len() as i64),
        percent: matches!(goal, Goal::Percent(_)).then(|| percent(&known)),
        value: None,
    };
    let lack = samples.iter().filter(|sample| sample.used.is_none() && sample.is_ready);
    let unready = samples.iter().filter(|sample| !sample.is_ready && ratio > 1.0);
    let others: Vec<(i64, &Sample)> = lack
        .map(|sample| (if ratio < 1.0 { assumed(sample, goal) } else { 0 }, sample))
        .chain(unready.map(|sample| (0, sample)))
        .collect();
    if others.is_empty() {
        let replicas = if tolerable(ratio, tolerances) { current } else { ceil(ratio * known.len() as f64) };
        return Ok(counted(replicas));
    }
    let all = known.iter().map(|sample| (used(sample), *sample)).chain(others.iter().copied());
    let new = self::ratio(all, goal);
    let replicas = ceil(new * (known.len() + others.len()) as f64);
    let turned = (ratio < 1.0) != (new < 1.0);
    let wrong_way = (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current);
    Ok(counted(if tolerable(new, tolerances) || turned || wrong_way { current } else { replicas }))
}

fn refused(why: &str) -> Refusal {
    ("FailedGetResourceMetric", why.to_owned())
}

/// What a pod whose use isn't known is taken to use when others use less than they should.
fn assumed(sample: &Sample, goal: Goal) -> i64 {
    match goal {
        Goal::Percent(percent) => sample.requested.unwrap_or(0) * percent.max(100) / 100,
        Goal::Average(average) => average,
    }
}

fn ratio<'a>(uses: impl Iterator<Item = (i64, &'a Sample)>, goal: Goal) -> f64 {
    let (mut used, mut requested, mut count) = (0, 0, 0);
    for (amount, sample) in uses {
        used += amount;
        requested += sample.requested.unwrap_or(0);
        count += 1;
    }
    match goal {
        // Upstream rounds the percentage down before it divides.
        Goal::Percent(percent) => (used * 100 / requested.max(1)) as f64 / percent.max(1) as f64,
        Goal::Average(average) => used as f64 / (average * count.max(1)) as f64,
    }
}

fn percent(known: &[&Sample]) -> i32 {
    let used: i64 = known.iter().filter_map(|sample| sample.used).sum();
    let requested: i64 = known.iter().filter_map(|sample| sample.requested).sum();
    i32::try_from(used * 100 / requested.max(1)).unwrap_or(i32::MAX)
}
