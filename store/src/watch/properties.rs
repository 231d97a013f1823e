//! Property: whatever is published, compacted, replaced by snapshots and read from disk in whatever order,
//! and however slowly watchers take their messages, each gets exactly what it asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::hub::{Hub, Step, WatchId};
use crate::kv::{Event, EventKind, KeyRange, KeyValue, Revision, WatchMessage};
use crate::mvcc::read::RevisionEvents;

#[derive(Clone, Debug)]
enum Action {
    /// So many revisions, which change these keys.
    Publish(Vec<Vec<u8>>),
    Watch(KeyRange, Option<u64>),
    /// A watcher takes up to so many messages; loads are answered with so many revisions.
    Take(usize, usize, usize),
    AskProgress(usize),
    SetAside(usize),
    TellProgress,
    Compact(u64),
    /// Revisions that nobody is told of, then a snapshot.
    Install(Vec<Vec<u8>>),
    Leave(usize),
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..3u8, 1..4)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => (0..3u8).prop_map(|key| KeyRange::key(name(key))),
        1 => Just(KeyRange::prefix("k")),
        1 => (0..3u8).prop_map(|key| KeyRange { start: name(key), end: None }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec(keys(), 1..5).prop_map(Action::Publish),
        1 => prop::collection::vec(keys(), 100..120).prop_map(Action::Publish),
        2 => (range(), prop::option::of(0..200u64)).prop_map(|(range, start)| Action::Watch(range, start)),
        8 => (0..6usize, 1..20usize, 1..9usize).prop_map(|(who, most, load)| Action::Take(who, most, load)),
        2 => (0..6usize).prop_map(Action::AskProgress),
        2 => (0..6usize).prop_map(Action::SetAside),
        2 => Just(Action::TellProgress),
        1 => (0..200u64).prop_map(Action::Compact),
        1 => prop::collection::vec(keys(), 0..4).prop_map(Action::Install),
        1 => (0..6usize).prop_map(Action::Leave),
    ]
}

fn name(key: u8) -> Bytes {
    Bytes::from(format!("k{key}"))
}

/// What a watcher has yet to get.
struct Expectation {
    range: KeyRange,
    next: u64,
    floor: u64,
    told: u64,
    asked: bool,
}

struct World {
    hub: Hub,
    /// All revisions, from 1.
    history: Vec<RevisionEvents>,
    compacted: u64,
    watchers: BTreeMap<WatchId, Expectation>,
}

impl World {
    fn newest(&self) -> u64 {
        self.history.len() as u64
    }

    fn append(&mut self, keys: &[u8]) -> RevisionEvents {
        let revision = Revision(self.newest() + 1);
        let event = |key: &u8| {
            let kv = KeyValue {
                key: name(*key),
                value: "v".into(),
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                lease: None,
            };
            Event { kind: EventKind::Put, kv, prev: None }
        };
        let events: Arc<[Event]> = keys.iter().map(event).collect();
        self.history.push((revision, events));
        self.history[self.history.len() - 1].clone()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Publish(revisions) => {
                let events = revisions.iter().map(|keys| self.append(keys)).collect();
                self.hub.publish(events, Revision(self.newest()), Revision(self.compacted));
            }
            Action::Watch(range, start) => self.watch(range, start),
            Action::Take(who, most, load) => {
                if let Some(id) = self.watchers.keys().nth(who).copied() {
                    self.take(id, most, load);
                }
            }
            Action::AskProgress(who) => {
                if let Some((id, watcher)) = self.watchers.iter_mut().nth(who) {
                    watcher.asked = true;
                    self.hub.request_progress(*id);
                }
            }
            Action::SetAside(who) => {
                if let Some(id) = self.watchers.keys().nth(who) {
                    self.hub.set_aside(*id);
                }
            }
            Action::TellProgress => {
                let mut told = Vec::new();
                self.hub.progress(|id, message| {
                    told.push((id, message));
                    id.0 % 2 == 0
                });
                for (id, message) in told {
                    self.check(id, &message, id.0 % 2 == 0);
                }
            }
            Action::Compact(at) => {
                self.compacted = self.compacted.max(at.min(self.newest()));
                self.hub.publish(Vec::new(), Revision(self.newest()), Revision(self.compacted));
            }
            Action::Install(revisions) => {
                revisions.iter().for_each(|keys| drop(self.append(keys)));
                self.hub.reset(Revision(self.newest()), Revision(self.compacted));
            }
            Action::Leave(who) => {
                if let Some(id) = self.watchers.keys().nth(who).copied() {
                    self.hub.remove(id);
                    self.watchers.remove(&id);
                    assert!(self.hub.next(id).is_none());
                }
            }
        }
    }

    fn watch(&mut self, range: KeyRange, start: Option<u64>) {
        let next = start.unwrap_or(self.newest() + 1);
        let registered = self.hub.register(range.clone(), start.map(Revision));
        assert_eq!(registered.is_err(), next <= self.compacted);
        let Ok((id, revision)) = registered else { return };
        assert_eq!(revision.0, self.newest());
        let floor = start.unwrap_or(self.newest());
        self.watchers.insert(id, Expectation { range, next, floor, told: 0, asked: false });
    }

    fn take(&mut self, id: WatchId, most: usize, load: usize) {
        for _ in 0..most {
            match self.hub.next(id).expect("it is registered") {
                Step::Wait => {
                    let watcher = &self.watchers[&id];
                    let missed = self.expected(watcher);
                    assert!(missed.is_none(), "it waits, but has to get {missed:?}");
                    assert!(
                        !watcher.asked || watcher.floor > self.newest(),
                        "it wants to know how far it is"
                    );
                    return;
                }
                Step::Send(message) => self.check(id, &message, true),
                Step::Load(from) => {
                    let at = usize::try_from(from.0 - 1).unwrap();
                    let end = (at + load).min(self.history.len());
                    let newest = Revision(self.newest());
                    self.hub.loaded(from, self.history[at..end].to_vec(), newest);
                }
                Step::End(message) => {
                    let WatchMessage::Compacted(at) = message else { panic!("ended by {message:?}") };
                    assert_eq!(at.0, self.compacted);
                    assert!(self.watchers[&id].next <= self.compacted, "nothing that it needs is gone");
                    self.watchers.remove(&id);
                    return;
                }
            }
        }
    }

    /// The next events that a watcher must get.
    fn expected(&self, watcher: &Expectation) -> Option<(Revision, Vec<Event>)> {
        self.history.iter().filter(|(revision, _)| revision.0 >= watcher.next).find_map(
            |(revision, events)| {
                let wanted = |event: &&Event| watcher.range.contains(&event.kv.key);
                let events: Vec<Event> = events.iter().filter(wanted).cloned().collect();
                (!events.is_empty()).then_some((*revision, events))
            },
        )
    }

    fn check(&mut self, id: WatchId, message: &WatchMessage, taken: bool) {
        let watcher = &self.watchers[&id];
        let expected = self.expected(watcher);
        match message {
            WatchMessage::Events { revision, events } => {
                assert_eq!(Some((*revision, events.to_vec())), expected, "watcher {id:?}");
                let watcher = self.watchers.get_mut(&id).unwrap();
                (watcher.next, watcher.told) = (revision.0 + 1, revision.0);
            }
            WatchMessage::Progress(at) => {
                assert!(expected.is_none_or(|(revision, _)| revision > *at), "progress overtakes events");
                assert!(at.0 >= watcher.floor, "progress {at} below the start {}", watcher.floor);
                assert!(at.0 >= watcher.told && at.0 <= self.newest());
                if taken {
                    let watcher = self.watchers.get_mut(&id).unwrap();
                    (watcher.next, watcher.told) = (watcher.next.max(at.0 + 1), at.0);
                    watcher.asked = false;
                }
            }
            WatchMessage::Compacted(_) => panic!("sent as if the watch went on"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_watcher_gets_what_it_asked_for_once_and_in_order(
        ring in prop_oneof![Just(0usize), Just(1500), Just(1 << 20)],
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let hub = Hub::new(Revision(0), Revision(0), ring);
        let mut world = World { hub, history: Vec::new(), compacted: 0, watchers: BTreeMap::new() };
        actions.into_iter().for_each(|action| world.act(action));
        let ids: Vec<WatchId> = world.watchers.keys().copied().collect();
        ids.into_iter().for_each(|id| world.take(id, usize::MAX, 7));
    }
}
