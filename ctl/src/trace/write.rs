//! One write, as the journal has it, in few words.

use jiff::Timestamp;
use serde_json::Value;

/// Fields of a status that are steps on an object's way; other status writes are details.
const STEPS: [&str; 8] = [
    "status.phase",
    "status.conditions[type=Ready]",
    "status.conditions[type=PodScheduled]",
    "status.conditions[type=Complete]",
    "status.conditions[type=Failed]",
    "status.availableReplicas",
    "status.succeeded",
    "status.failed",
];

/// Changes that are named; of more only the first.
const NAMED: usize = 2;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// `pod/web-1`
    pub object: String,
    /// The controller of the object.
    pub owner: Option<String>,
    /// Where it stands in the order of all writes.
    pub revision: u64,
    /// When, by the store's clock.
    pub time: Timestamp,
    /// The agent, or the user.
    pub by: String,
    /// `created`, `bound to n1`, …
    pub what: String,
    /// The revision that it answers.
    pub cause: Option<u64>,
    /// Whether it is a step, and not a detail of a status.
    pub is_step: bool,
    /// Whether it changed what is asked for, as people do.
    pub is_asked: bool,
}

impl Write {
    /// Of an item of an `ObjectHistory`; none if it has no revision or time.
    pub fn of(item: &Value, object: &str, owner: Option<String>) -> Option<Write> {
        let text = |field: &str| item[field].as_str().unwrap_or_default();
        let by = if text("agent").is_empty() { text("user") } else { text("agent") };
        let changes: Vec<&Value> = item["changes"].as_array().into_iter().flatten().collect();
        let paths = || changes.iter().map(|change| change["path"].as_str().unwrap_or_default());
        let is_bound = paths().any(|path| path == "spec.nodeName");
        let modified = text("type") == "Modified";
        let is_asked = modified && !is_bound && paths().any(|path| path.starts_with("spec"));
        let is_step = !modified
            || paths()
                .any(|path| !path.starts_with("status") || STEPS.iter().any(|step| path.starts_with(step)));
        Some(Write {
            object: object.to_owned(),
            owner,
            revision: text("revision").parse().ok()?,
            time: text("time").parse().ok()?,
            by: by.split(" (").next().unwrap_or_default().to_owned(),
            what: what(text("type"), &changes),
            cause: text("cause").parse().ok(),
            is_step,
            is_asked,
        })
    }
}

fn what(sort: &str, changes: &[&Value]) -> String {
    if sort != "Modified" {
        return sort.to_lowercase();
    }
    let mut told: Vec<(u8, String)> = changes.iter().map(|change| told(change)).collect();
    told.sort();
    let steps = told.iter().filter(|(rank, _)| *rank <= 1).count();
    // Beside a step its details say nothing.
    told.truncate(if steps > 0 { steps.min(NAMED) } else { NAMED });
    let words: Vec<String> = told.into_iter().map(|(_, words)| words).collect();
    if words.is_empty() { "touched".to_owned() } else { words.join(", ") }
}

/// A change in words; the lower its rank, the more it says.
fn told(change: &Value) -> (u8, String) {
    let path = change["path"].as_str().unwrap_or_default();
    let value = |field: &str| match &change[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(map) => map.get("status").and_then(Value::as_str).unwrap_or("{…}").to_owned(),
        Value::Array(_) => "[…]".to_owned(),
        plain => plain.to_string(),
    };
    let (from, to) = (value("from"), value("to"));
    match path {
        "spec.nodeName" => (0, format!("bound to {to}")),
        "status.phase" => (0, to.to_lowercase()),
        "metadata.deletionTimestamp" => (0, "deletion begins".to_owned()),
        "metadata.generation" => (9, format!("generation {to}")),
        _ => match path.strip_prefix("status.conditions[type=").and_then(|rest| rest.split_once(']')) {
            Some((condition, "" | ".status")) if STEPS.iter().any(|step| path.starts_with(step)) => {
                (1, format!("{condition} is {to}"))
            }
            Some((condition, _)) => (8, format!("{condition} is {to}")),
            None if path.starts_with("spec") => (1, format!("{path}: {from} → {to}")),
            None if STEPS.contains(&path) => (1, format!("{path}: {from} → {to}")),
            None => (5, format!("{path}: {from} → {to}")),
        },
    }
}
