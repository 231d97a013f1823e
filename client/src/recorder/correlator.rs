//! Which events become a new Event, which raise a count, which are dropped: as a value.
//!
//! The rules and figures are client-go's: events equal in everything share one Event; more than ten
//! that differ only in their message within ten minutes are combined; an object has 25 events to spend
//! and gets one back every five minutes.

use super::Severity;
use super::bucket::Bucket;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::{HashMap, VecDeque};

/// Similar events within [`WINDOW_SECONDS`] before they are combined.
const SIMILAR: usize = 10;
const WINDOW_SECONDS: i64 = 600;
/// Events an object may have in a burst, and seconds until it may have one more.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// Remembered series and objects; the oldest are forgotten, which at worst starts a count anew.
const REMEMBERED: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// The object it happened to.
    pub regarding: ObjectReference,
    /// How bad it is.
    pub severity: Severity,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Who saw it, if not the recorder's own component.
    pub component: Option<String>,
}

/// What to write: a new Event if `count` is 1, otherwise the known one with a new count.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The event as it is to be written.
    pub note: Note,
    /// Namespace of the Event: the object's, or `default` for cluster-scoped objects.
    pub namespace: String,
    /// Name of the Event.
    pub name: String,
    /// How often it has happened.
    pub count: i32,
    /// When it happened first.
    pub first: Timestamp,
    /// When it happened last.
    pub last: Timestamp,
}

/// Everything but the message.
type Group = (String, String, Severity, Option<String>);
/// A group and the message.
type Series = (Group, String);

/// Remembers recent events.
#[derive(Debug, Default)]
pub struct Correlator {
    groups: Recent<Group, VecDeque<Timestamp>>,
    series: Recent<Series, Record>,
    budgets: Recent<String, Bucket>,
}

impl Correlator {
    /// What to write for `note`, or nothing if its object has had too many; `random` makes the name.
    pub fn correlate(&mut self, note: Note, now: Timestamp, random: u64) -> Option<Record> {
        if !self.spend(&note, now) {
            return None;
        }
        let note = self.combine(note, now);
        let series = series_of(&note);
        let record = match self.series.get(&series) {
            Some(known) => Record { count: known.count + 1, last: now, note, ..known.clone() },
            None => first_of(note, now, random),
        };
        self.series.put(series, record.clone());
        Some(record)
    }

    /// Forgets a record that couldn't be written, so that the next one is written as new.
    pub fn forget(&mut self, record: &Record) {
        self.series.remove(&series_of(&record.note));
    }

    fn spend(&mut self, note: &Note, now: Timestamp) -> bool {
        let object = object_of(&note.regarding);
        let full = || Bucket::full(BURST, 1.0 / REFILL_SECONDS, now);
        let mut budget = self.budgets.remove(&object).unwrap_or_else(full);
        let allowed = budget.spend(now);
        self.budgets.put(object, budget);
        allowed
    }

    fn combine(&mut self, mut note: Note, now: Timestamp) -> Note {
        let group = group_of(&note);
        let mut times = self.groups.remove(&group).unwrap_or_default();
        times.retain(|time| seconds_between(*time, now) < WINDOW_SECONDS as f64);
        // A repetition of a known event is counted, it isn't a new similar one.
        if !self.series.contains(&(group.clone(), note.message.clone())) {
            times.push_back(now);
        }
        if times.len() > SIMILAR {
            times.pop_front();
            note.message = format!("(combined from similar events): {}", note.message);
        }
        self.groups.put(group, times);
        note
    }
}

fn first_of(note: Note, now: Timestamp, random: u64) -> Record {
    let namespace = note.regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
    let object = note.regarding.name.clone().unwrap_or_default();
    Record {
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        name: format!("{object}.{random:016x}"),
        count: 1,
        first: now,
        last: now,
        note,
    }
}

fn object_of(object: &ObjectReference) -> String {
    let fields = [&object.kind, &object.namespace, &object.name, &object.uid, &object.field_path];
    fields.map(|field| field.clone().unwrap_or_default()).join("/")
}

fn group_of(note: &Note) -> Group {
    (object_of(&note.regarding), note.reason.clone(), note.severity, note.component.clone())
}

/// Combined events are one series, whatever they say.
fn series_of(note: &Note) -> Series {
    let combined = note.message.starts_with("(combined from similar events): ");
    (group_of(note), if combined { String::new() } else { note.message.clone() })
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// A map that forgets its oldest entries beyond [`REMEMBERED`].
#[derive(Debug)]
struct Recent<K, V> {
    values: HashMap<K, (u64, V)>,
    order: VecDeque<(u64, K)>,
    sequence: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { values: HashMap::new(), order: VecDeque::new(), sequence: 0 }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Recent<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    fn contains(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.values.remove(key).map(|(_, value)| value)
    }

    fn put(&mut self, key: K, value: V) {
        self.sequence += 1;
        self.values.insert(key.clone(), (self.sequence, value));
        self.order.push_back((self.sequence, key));
        while self.order.len() > 2 * REMEMBERED || self.values.len() > REMEMBERED {
            let Some((sequence, oldest)) = self.order.pop_front() else { return };
            // An entry that was written again stands further back as well.
            if self.values.get(&oldest).is_some_and(|(newest, _)| *newest == sequence) {
                self.values.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Correlator, Note, REMEMBERED, Record};
    use crate::recorder::Severity;
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::api::core::v1::ObjectReference;

    fn note(object: &str, message: &str) -> Note {
        let regarding = ObjectReference { name: Some(object.to_owned()), ..ObjectReference::default() };
        let (reason, message) = ("Failed".to_owned(), message.to_owned());
        Note { regarding, severity: Severity::Warning, reason, message, component: None }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn tell(correlator: &mut Correlator, message: &str, seconds: i64) -> Option<Record> {
        correlator.correlate(note("web", message), at(seconds), 7)
    }

    #[test]
    fn equal_events_are_counted() {
        let mut correlator = Correlator::default();
        let first = tell(&mut correlator, "disk full", 0).expect("written");
        let second = tell(&mut correlator, "disk full", 9).expect("written");
        assert_eq!((first.count, first.name.as_str()), (1, "web.0000000000000007"));
        assert_eq!((second.count, second.first, second.last), (2, at(0), at(9)));
        assert_eq!((first.name, first.namespace.as_str()), (second.name, "default"));
        assert_eq!(
            correlator.correlate(note("db", "disk full"), at(9), 8).map(|record| record.count),
            Some(1)
        );
    }

    #[test]
    fn similar_events_are_combined() {
        let mut correlator = Correlator::default();
        let records: Vec<Record> =
            (0..13).filter_map(|n| tell(&mut correlator, &format!("try {n}"), n)).collect();
        assert!(records[..10].iter().all(|record| record.count == 1));
        assert_eq!(records[10].note.message, "(combined from similar events): try 10");
        assert_eq!((records[11].count, &records[11].name), (2, &records[10].name));
        assert_eq!(records[12].count, 3);
    }

    #[test]
    fn an_object_has_a_budget() {
        let mut correlator = Correlator::default();
        let written = (0..40).filter(|_| tell(&mut correlator, "again", 0).is_some()).count();
        assert_eq!(written, 25);
        assert!(tell(&mut correlator, "again", 299).is_none());
        assert!(tell(&mut correlator, "again", 301).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for n in 0..3 * REMEMBERED {
            correlator.correlate(note(&format!("pod-{n}"), "x"), at(0), n as u64);
        }
        assert!(correlator.series.values.len() <= REMEMBERED);
        assert!(correlator.series.order.len() <= 2 * REMEMBERED + 1);
    }
}
