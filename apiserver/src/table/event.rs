//! Events: what happened to what, and when last.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NAME, Spec, age_cell, field, int, number, str_at, text};

pub(super) const COLUMNS: &[Spec] = &[
    text("Last Seen", "Time since it happened last.", last_seen),
    field("Type", "Normal or Warning.", "/type"),
    field("Reason", "What happened, in one word.", "/reason"),
    text("Object", "To what it happened.", object),
    field("Subobject", "To which part of it.", "/involvedObject/fieldPath").wide(),
    text("Source", "Who reports it.", source).wide(),
    text("Message", "What happened.", |event, _| json!(str_at(event, "/message").trim())),
    text("First Seen", "Time since it happened first.", first_seen).wide(),
    number("Count", "How often it happened.", count).wide(),
    NAME.wide(),
];

fn first_seen(event: &Value, now: Timestamp) -> Value {
    let first = event.get("firstTimestamp").filter(|time| time.is_string());
    age_cell(first.or_else(|| event.get("eventTime")), now)
}

fn last_seen(event: &Value, now: Timestamp) -> Value {
    let series = event.pointer("/series/lastObservedTime").filter(|time| time.is_string());
    let last = series.or_else(|| event.get("lastTimestamp").filter(|time| time.is_string()));
    match last {
        Some(time) => age_cell(Some(time), now),
        None => first_seen(event, now),
    }
}

fn object(event: &Value, _now: Timestamp) -> Value {
    let kind = str_at(event, "/involvedObject/kind").to_lowercase();
    match str_at(event, "/involvedObject/name") {
        "" => json!(kind),
        name => json!(format!("{kind}/{name}")),
    }
}

fn source(event: &Value, _now: Timestamp) -> Value {
    let first = |a, b| match str_at(event, a) {
        "" => str_at(event, b),
        text => text,
    };
    let component = first("/source/component", "/reportingComponent");
    let instance = first("/source/host", "/reportingInstance");
    let given: Vec<&str> = [component, instance].into_iter().filter(|text| !text.is_empty()).collect();
    json!(given.join(", "))
}

fn count(event: &Value, _now: Timestamp) -> Value {
    let series = int(event, "/series/count");
    let count = if series != 0 { series } else { int(event, "/count") };
    json!(count.max(1))
}
