//! The nine guarantees of a watch, each a function of its own over what a watcher got and what really
//! happened.
//!
//! They overlap on purpose: each says in its own way what users rely on, and a broken watch is named by the
//! guarantee that it breaks first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::kv::{Event, EventKind, KeyRange, KeyValue, Revision, WatchMessage};

/// What really happened at each revision, without a gap from the first revision that anyone watched.
pub type History = BTreeMap<Revision, Arc<[Event]>>;

/// One watch and everything it delivered.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What was asked for.
    pub range: KeyRange,
    /// The first revision that was asked for.
    pub start: Revision,
    /// What came, in order.
    pub messages: Vec<WatchMessage>,
}

/// A promise of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// Only keys of the range come.
    Filter,
    /// Events come in the order of their revisions, and in the transaction's order within one.
    Ordered,
    /// No event comes twice.
    Unique,
    /// The events of one revision come together.
    Atomic,
    /// After progress to a revision nothing at or below it comes, and everything there has come.
    Bookmarkable,
    /// A watch from a past revision begins with the first event from there on, and with nothing older.
    Resumable,
    /// Nothing between what came is missing, and nothing came that didn't happen.
    Reliable,
    /// An event tells the pair as it was before.
    PreviousValue,
    /// An event tells whether it created the key.
    IsCreate,
}

/// A promise that wasn't kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub guarantee: Guarantee,
    /// What happened.
    pub what: String,
}

type Check = fn(&Watched, &History) -> Result<(), String>;

/// All validators.
const CHECKS: [(Guarantee, Check); 9] = [
    (Guarantee::Filter, filter),
    (Guarantee::Ordered, ordered),
    (Guarantee::Unique, unique),
    (Guarantee::Atomic, atomic),
    (Guarantee::Bookmarkable, bookmarkable),
    (Guarantee::Resumable, resumable),
    (Guarantee::Reliable, reliable),
    (Guarantee::PreviousValue, previous_value),
    (Guarantee::IsCreate, is_create),
];

/// Checks all nine guarantees.
///
/// # Errors
/// The first that is broken.
pub fn check(watched: &Watched, history: &History) -> Result<(), Broken> {
    CHECKS.iter().try_for_each(|(guarantee, check)| {
        check(watched, history).map_err(|what| Broken { guarantee: *guarantee, what })
    })
}

impl Watched {
    /// Revisions with their events, as delivered.
    fn deliveries(&self) -> impl Iterator<Item = (Revision, &Arc<[Event]>)> {
        self.messages.iter().filter_map(|message| match message {
            WatchMessage::Events { revision, events } => Some((*revision, events)),
            _ => None,
        })
    }

    fn events(&self) -> impl Iterator<Item = (Revision, &Event)> {
        self.deliveries().flat_map(|(revision, events)| events.iter().map(move |event| (revision, event)))
    }

    /// The events of the range that happened from `from` on and before `end`.
    fn expected<'a>(
        &'a self,
        history: &'a History,
        from: Revision,
        end: Revision,
    ) -> impl Iterator<Item = (Revision, &'a Event)> {
        let between = (from < end).then(|| history.range(from..end)).into_iter().flatten();
        between
            .flat_map(|(revision, events)| events.iter().map(|event| (*revision, event)))
            .filter(|(_, event)| self.range.contains(&event.kv.key))
    }
}

fn filter(watched: &Watched, _: &History) -> Result<(), String> {
    match watched.events().find(|(_, event)| !watched.range.contains(&event.kv.key)) {
        Some((revision, event)) => {
            Err(format!("key {:?} at {revision} is outside of the range", event.kv.key))
        }
        None => Ok(()),
    }
}

fn ordered(watched: &Watched, history: &History) -> Result<(), String> {
    let mut last = Revision(0);
    for (revision, events) in watched.deliveries() {
        if revision < last {
            return Err(format!("revision {revision} came after {last}"));
        }
        last = revision;
        let places = history.get(&revision).map(|happened| places(events, happened)).unwrap_or_default();
        if !places.is_sorted() {
            return Err(format!("the events of revision {revision} came in another order: {places:?}"));
        }
    }
    Ok(())
}

/// Where each of `events` stands in its transaction.
fn places(events: &[Event], happened: &[Event]) -> Vec<usize> {
    let place =
        |event: &Event| happened.iter().position(|h| h.kv.key == event.kv.key && h.kind == event.kind);
    events.iter().filter_map(place).collect()
}

fn unique(watched: &Watched, _: &History) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match watched.events().find(|(revision, event)| !seen.insert((*revision, event.kv.key.clone()))) {
        Some((revision, event)) => Err(format!("key {:?} at {revision} came twice", event.kv.key)),
        None => Ok(()),
    }
}

fn atomic(watched: &Watched, history: &History) -> Result<(), String> {
    for (revision, events) in watched.deliveries() {
        let whole = watched.expected(history, revision, after(revision)).count();
        if events.len() != whole {
            return Err(format!("{} of {whole} events of revision {revision} came together", events.len()));
        }
    }
    Ok(())
}

fn bookmarkable(watched: &Watched, history: &History) -> Result<(), String> {
    let (mut told, mut delivered) = (Revision(watched.start.0.saturating_sub(1)), 0);
    for message in &watched.messages {
        match message {
            WatchMessage::Events { revision, events } if *revision > told => delivered += events.len(),
            WatchMessage::Events { revision, .. } => {
                return Err(format!("revision {revision} came after progress to {told}"));
            }
            WatchMessage::Progress(revision) => {
                if *revision < told {
                    return Err(format!(
                        "progress to {revision} came after progress to {told}, or before the start"
                    ));
                }
                told = *revision;
                let expected = watched.expected(history, watched.start, after(told)).count();
                if delivered < expected {
                    return Err(format!("progress to {told} overtook {} events", expected - delivered));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn resumable(watched: &Watched, history: &History) -> Result<(), String> {
    let Some((first, events)) = watched.deliveries().next() else { return Ok(()) };
    if first < watched.start {
        return Err(format!("revision {first} came to a watch from {}", watched.start));
    }
    let expected = watched.expected(history, watched.start, after(first)).next();
    match (expected, events.first()) {
        (Some((revision, event)), Some(got)) if revision == first && event.kv == got.kv => Ok(()),
        (expected, got) => {
            Err(format!("a watch from {} began with {got:?}, not with {expected:?}", watched.start))
        }
    }
}

fn reliable(watched: &Watched, history: &History) -> Result<(), String> {
    let Some((last, _)) = watched.deliveries().last() else { return Ok(()) };
    let mut got = watched.events();
    for (revision, event) in watched.expected(history, watched.start, after(last)) {
        match got.next() {
            Some((at, same)) if at == revision && same.kv == event.kv && same.kind == event.kind => {}
            other => return Err(format!("{event:?} at {revision} was due, but {other:?} came")),
        }
    }
    match got.next() {
        Some((revision, event)) => Err(format!("{event:?} came at {revision} and never happened")),
        None => Ok(()),
    }
}

fn previous_value(watched: &Watched, history: &History) -> Result<(), String> {
    for (revision, event) in watched.events() {
        let happened = history.get(&revision).into_iter().flat_map(|events| events.iter());
        let Some(real) = happened.into_iter().find(|real| real.kv.key == event.kv.key) else { continue };
        if event.prev != real.prev {
            return Err(format!("before {revision} was {:?}, but {:?} was told", real.prev, event.prev));
        }
        let named = event.prev.as_ref().map(|prev: &KeyValue| &prev.key);
        if named.is_some_and(|key: &Bytes| *key != event.kv.key) {
            return Err(format!("{event:?} tells the pair of another key"));
        }
    }
    Ok(())
}

fn is_create(watched: &Watched, _: &History) -> Result<(), String> {
    for (revision, event) in watched.events() {
        let kv = &event.kv;
        let version = event.prev.as_ref().map_or(0, |prev| prev.version);
        let says_created = kv.create_revision == kv.mod_revision;
        let right = match event.kind {
            EventKind::Put => says_created == event.prev.is_none() && kv.version == version + 1,
            EventKind::Delete => event.prev.is_some() && kv.version == 0,
        };
        if !right || kv.mod_revision != revision {
            return Err(format!("{event:?} at {revision} doesn't fit what was before"));
        }
    }
    Ok(())
}

fn after(revision: Revision) -> Revision {
    Revision(revision.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, create: u64, modified: u64, version: u64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: format!("{key}{modified}").into(),
            create_revision: Revision(create),
            mod_revision: Revision(modified),
            version,
            lease: None,
        }
    }

    fn put(kv: KeyValue, prev: Option<KeyValue>) -> Event {
        Event { kind: EventKind::Put, kv, prev }
    }

    /// 1: a, b; 2: a; 3: c; 4: a, b.
    fn history() -> History {
        let (a1, b1, a2) = (kv("a", 1, 1, 1), kv("b", 1, 1, 1), kv("a", 1, 2, 2));
        let events = [
            (1, vec![put(a1.clone(), None), put(b1.clone(), None)]),
            (2, vec![put(a2.clone(), Some(a1))]),
            (3, vec![put(kv("c", 3, 3, 1), None)]),
            (4, vec![put(kv("a", 1, 4, 3), Some(a2)), put(kv("b", 1, 4, 2), Some(b1))]),
        ];
        events.into_iter().map(|(revision, events)| (Revision(revision), events.into())).collect()
    }

    fn events(revision: u64, select: impl Fn(&[Event]) -> Vec<Event>) -> WatchMessage {
        let happened = &history()[&Revision(revision)];
        WatchMessage::Events { revision: Revision(revision), events: select(happened).into() }
    }

    fn whole(revision: u64) -> WatchMessage {
        events(revision, <[Event]>::to_vec)
    }

    fn progress(revision: u64) -> WatchMessage {
        WatchMessage::Progress(Revision(revision))
    }

    fn judge(start: u64, messages: Vec<WatchMessage>) -> Option<Guarantee> {
        // Everything but c.
        let range = KeyRange::between("a", "c");
        let watched = Watched { range, start: Revision(start), messages };
        check(&watched, &history()).err().map(|broken| broken.guarantee)
    }

    #[test]
    fn each_guarantee_is_seen_broken() {
        let first = |events: &[Event]| vec![events[0].clone()];
        let changed = |change: fn(&mut Event)| {
            events(2, move |events| {
                let mut event = events[0].clone();
                change(&mut event);
                vec![event]
            })
        };
        let backwards = |events: &[Event]| events.iter().rev().cloned().collect();
        let cases = [
            (1, vec![whole(1), whole(2), progress(3), whole(4), progress(4)], None),
            (2, vec![progress(1), whole(2), progress(2)], None),
            (9, vec![progress(8)], None),
            (1, vec![whole(1), whole(2), whole(3)], Some(Guarantee::Filter)),
            (1, vec![whole(1), whole(4), whole(2)], Some(Guarantee::Ordered)),
            (1, vec![events(1, backwards)], Some(Guarantee::Ordered)),
            (1, vec![whole(1), whole(1), whole(2)], Some(Guarantee::Unique)),
            (1, vec![events(1, first), whole(2)], Some(Guarantee::Atomic)),
            (1, vec![whole(1), progress(2), whole(2)], Some(Guarantee::Bookmarkable)),
            (1, vec![whole(1), progress(4)], Some(Guarantee::Bookmarkable)),
            (3, vec![progress(1)], Some(Guarantee::Bookmarkable)),
            (1, vec![whole(2)], Some(Guarantee::Resumable)),
            (1, vec![whole(1), whole(4)], Some(Guarantee::Reliable)),
            (2, vec![changed(|event| event.prev = None)], Some(Guarantee::PreviousValue)),
            (2, vec![changed(|event| event.kv.value = "other".into())], Some(Guarantee::Resumable)),
        ];
        for (number, (start, messages, expected)) in cases.into_iter().enumerate() {
            assert_eq!(judge(start, messages), expected, "case {number}");
        }
    }

    #[test]
    fn a_creation_is_known_by_its_revisions() {
        let watched = |event: Event| Watched {
            range: KeyRange::prefix(""),
            start: Revision(2),
            messages: vec![WatchMessage::Events { revision: Revision(2), events: [event].into() }],
        };
        let a1 = kv("a", 1, 1, 1);
        assert!(is_create(&watched(put(kv("a", 1, 2, 2), Some(a1.clone()))), &History::new()).is_ok());
        assert!(is_create(&watched(put(kv("a", 2, 2, 1), None)), &History::new()).is_ok());
        assert!(is_create(&watched(put(kv("a", 2, 2, 1), Some(a1.clone()))), &History::new()).is_err());
        assert!(is_create(&watched(put(kv("a", 1, 2, 1), Some(a1))), &History::new()).is_err());
        assert!(is_create(&watched(put(kv("a", 1, 2, 2), None)), &History::new()).is_err());
    }
}
