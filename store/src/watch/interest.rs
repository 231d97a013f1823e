//! Who wants the events of a key: an index of watchers' ranges, so that an event costs what its own
//! watchers cost, however many others there are.
//!
//! Single keys and prefixes, which is what nearly everyone watches, are found by hashing: a key is looked up
//! whole and cut to each length of prefix that anyone watches. Other ranges are compared one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::hub::WatchId;
use crate::kv::{Event, KeyRange};

/// The ranges of all watchers.
#[derive(Debug, Default)]
pub struct Interest {
    keys: HashMap<Bytes, BTreeSet<WatchId>>,
    prefixes: HashMap<Bytes, BTreeSet<WatchId>>,
    /// How many prefixes have each length.
    lengths: BTreeMap<usize, usize>,
    others: BTreeMap<WatchId, KeyRange>,
}

enum Shape {
    Key,
    Prefix,
    Other,
}

impl Interest {
    /// A watcher comes.
    pub fn add(&mut self, id: WatchId, range: &KeyRange) {
        match shape(range) {
            Shape::Key => drop(self.keys.entry(range.start.clone()).or_default().insert(id)),
            Shape::Prefix => {
                let watchers = self.prefixes.entry(range.start.clone()).or_default();
                if watchers.is_empty() {
                    *self.lengths.entry(range.start.len()).or_default() += 1;
                }
                watchers.insert(id);
            }
            Shape::Other => drop(self.others.insert(id, range.clone())),
        }
    }

    /// A watcher goes; with the range that it came with.
    pub fn remove(&mut self, id: WatchId, range: &KeyRange) {
        match shape(range) {
            Shape::Key => drop(take(&mut self.keys, &range.start, id)),
            Shape::Prefix => {
                if take(&mut self.prefixes, &range.start, id) {
                    self.forget_length(range.start.len());
                }
            }
            Shape::Other => drop(self.others.remove(&id)),
        }
    }

    fn forget_length(&mut self, length: usize) {
        let count = self.lengths.get_mut(&length).expect("counted when the prefix came");
        *count -= 1;
        if *count == 0 {
            self.lengths.remove(&length);
        }
    }

    /// Each watcher that wants any of the events of a revision, with those that it wants. Watchers who want
    /// the same share one allocation.
    pub fn matches(&self, events: &Arc<[Event]>) -> Vec<(WatchId, Arc<[Event]>)> {
        let mut out = Vec::new();
        if let [event] = &events[..] {
            self.each(&event.kv.key, |id| out.push((id, events.clone())));
            return out;
        }
        let mut wanted: BTreeMap<WatchId, Vec<usize>> = BTreeMap::new();
        for (at, event) in events.iter().enumerate() {
            self.each(&event.kv.key, |id| wanted.entry(id).or_default().push(at));
        }
        let mut shared: HashMap<Vec<usize>, Arc<[Event]>> = HashMap::new();
        for (id, places) in wanted {
            let part = if places.len() == events.len() {
                events.clone()
            } else {
                let pick = |places: &Vec<usize>| places.iter().map(|at| events[*at].clone()).collect();
                shared.entry(places).or_insert_with_key(pick).clone()
            };
            out.push((id, part));
        }
        out
    }

    /// Calls `tell` once for each watcher of `key`.
    fn each(&self, key: &[u8], mut tell: impl FnMut(WatchId)) {
        let prefixes = self.lengths.keys().take_while(|length| **length <= key.len());
        let of_prefixes = prefixes.filter_map(|length| self.prefixes.get(&key[..*length]));
        let by_hash = self.keys.get(key).into_iter().chain(of_prefixes).flatten();
        let by_comparison = self.others.iter().filter(|(_, range)| range.contains(key)).map(|(id, _)| id);
        by_hash.chain(by_comparison).for_each(|id| tell(*id));
    }
}

fn shape(range: &KeyRange) -> Shape {
    match range.end.as_deref().and_then(|end| end.split_last()) {
        Some((0, key)) if key == range.start.as_ref() => Shape::Key,
        _ if KeyRange::prefix(range.start.clone()).end == range.end => Shape::Prefix,
        _ => Shape::Other,
    }
}

/// Removes a watcher; true if nobody is left there.
fn take(map: &mut HashMap<Bytes, BTreeSet<WatchId>>, key: &Bytes, id: WatchId) -> bool {
    let Some(watchers) = map.get_mut(key) else { return false };
    watchers.remove(&id);
    let empty = watchers.is_empty();
    if empty {
        map.remove(key);
    }
    empty
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::{EventKind, KeyValue, Revision};

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(0xff)], 0..4).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            key().prop_map(KeyRange::key),
            key().prop_map(KeyRange::prefix),
            (key(), key()).prop_map(|(start, end)| KeyRange::between(start, end)),
            key().prop_map(|start| KeyRange { start, end: None }),
        ]
    }

    fn event(key: Bytes) -> Event {
        let kv = KeyValue {
            key,
            value: Bytes::new(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: None,
        };
        Event { kind: EventKind::Put, kv, prev: None }
    }

    proptest! {
        #[test]
        fn finds_whom_comparing_would_find(
            ranges in prop::collection::vec((range(), any::<bool>()), 0..12),
            keys in prop::collection::vec(key(), 1..5),
        ) {
            let mut interest = Interest::default();
            for (id, (range, _)) in (0..).zip(&ranges) {
                interest.add(WatchId(id), range);
            }
            for (id, (range, leaves)) in (0..).zip(&ranges) {
                if *leaves {
                    interest.remove(WatchId(id), range);
                }
            }
            let events: Arc<[Event]> = keys.into_iter().map(event).collect();
            let mut found = interest.matches(&events);
            found.sort_by_key(|(id, _)| *id);
            let wants = |range: &KeyRange| -> Arc<[Event]> {
                events.iter().filter(|event| range.contains(&event.kv.key)).cloned().collect()
            };
            let staying = (0..).zip(&ranges).filter(|(_, (_, leaves))| !leaves);
            let expected: Vec<(WatchId, Arc<[Event]>)> = staying
                .map(|(id, (range, _))| (WatchId(id), wants(range)))
                .filter(|(_, events)| !events.is_empty())
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
