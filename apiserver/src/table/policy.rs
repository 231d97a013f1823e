//! Disruption budgets, autoscalers, scales, priority classes, and what is used.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, Spec, UNKNOWN, field, int, items, number, str_at, text};

pub(super) const DISRUPTION_BUDGET: &[Spec] = &[
    NAME,
    text("Min Available", "How many pods must stay.", |object, _| amount(object, "/spec/minAvailable")),
    text("Max Unavailable", "How many pods may be missing.", |object, _| {
        amount(object, "/spec/maxUnavailable")
    }),
    number("Allowed Disruptions", "How many pods may go now.", |object, _| {
        json!(int(object, "/status/disruptionsAllowed"))
    }),
    AGE,
];
pub(super) const AUTOSCALER: &[Spec] = &[
    NAME,
    text("Reference", "What it scales.", |object, _| {
        let target = "/spec/scaleTargetRef";
        json!(format!(
            "{}/{}",
            str_at(object, &format!("{target}/kind")),
            str_at(object, &format!("{target}/name"))
        ))
    }),
    text("Targets", "What it aims at, and where that stands.", targets),
    text("MinPods", "Never fewer.", |object, _| amount(object, "/spec/minReplicas")),
    number("MaxPods", "Never more.", |object, _| json!(int(object, "/spec/maxReplicas"))),
    number("Replicas", "Pods there are.", |object, _| json!(int(object, "/status/currentReplicas"))),
    AGE,
];
pub(super) const SCALE: &[Spec] = &[
    NAME,
    number("Desired", "Pods there should be.", |object, _| json!(int(object, "/spec/replicas"))),
    number("Available", "Pods there are.", |object, _| json!(int(object, "/status/replicas"))),
    AGE,
];
pub(super) const PRIORITY_CLASS: &[Spec] = &[
    NAME,
    number("Value", "Higher comes first.", |object, _| json!(int(object, "/value"))),
    text("Global-Default", "Whether pods without a class have it.", |object, _| {
        json!(object["globalDefault"].as_bool().unwrap_or_default().to_string())
    }),
    AGE,
    field("PreemptionPolicy", "Whether its pods drive others away.", "/preemptionPolicy").wide(),
];

pub(super) const USAGE: &[Spec] = &[
    NAME,
    text("CPU", "Processor time in use.", |object, _| used(object, "cpu")),
    text("Memory", "Memory in use.", |object, _| used(object, "memory")),
    field("Window", "The time it was measured over.", "/window"),
];

/// What a node uses, or all containers of a pod together.
fn used(object: &Value, what: &str) -> Value {
    let own = object["usage"][what].as_str().into_iter();
    let parts = items(object, "/containers").iter().filter_map(|container| container["usage"][what].as_str());
    // "12n" and "34Ki": all parts have the same unit.
    let (mut sum, mut unit) = (0, "");
    for part in own.chain(parts) {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        sum += part[..digits].parse::<u64>().unwrap_or_default();
        unit = &part[digits..];
    }
    json!(format!("{sum}{unit}"))
}

/// A number or a percentage; kubectl's "N/A" if there is none.
fn amount(object: &Value, pointer: &str) -> Value {
    match object.pointer(pointer) {
        None | Some(Value::Null) => json!("N/A"),
        Some(Value::String(text)) => json!(text),
        Some(number) => json!(number.to_string()),
    }
}

fn targets(autoscaler: &Value, _now: Timestamp) -> Value {
    let metrics = items(autoscaler, "/spec/metrics");
    if metrics.is_empty() {
        return json!("<none>");
    }
    let current = items(autoscaler, "/status/currentMetrics");
    let texts: Vec<String> =
        metrics.iter().enumerate().map(|(index, metric)| target(metric, current.get(index))).collect();
    match texts.len() {
        count if count > 2 => json!(format!("{} + {} more...", texts[..2].join(", "), count - 2)),
        _ => json!(texts.join(", ")),
    }
}

/// `cpu: 10%/80%`, or with unknown where nothing was measured.
fn target(metric: &Value, current: Option<&Value>) -> String {
    let kind = str_at(metric, "/type");
    let place = format!("/{}{}", kind[..kind.len().min(1)].to_lowercase(), kind.get(1..).unwrap_or_default());
    let (goal, now) = (format!("{place}/target"), format!("{place}/current"));
    let name = match str_at(metric, &format!("{place}/name")) {
        "" => String::new(),
        name => format!("{name}: "),
    };
    let percent = format!("{goal}/averageUtilization");
    if metric.pointer(&percent).is_some() {
        let measured = current.and_then(|metric| metric.pointer(&format!("{now}/averageUtilization")));
        let measured = measured.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value}%"));
        return format!("{name}{measured}/{}%", int(metric, &percent));
    }
    let value = |metric: &Value, at: &str| {
        let text = [format!("{at}/averageValue"), format!("{at}/value")];
        text.iter().map(|pointer| str_at(metric, pointer).to_owned()).find(|text| !text.is_empty())
    };
    let measured = current.and_then(|metric| value(metric, &now)).unwrap_or_else(|| UNKNOWN.to_owned());
    format!("{name}{measured}/{}", value(metric, &goal).unwrap_or_default())
}
