//! All objects in memory, as new as the store, and the recent changes of each resource.
//!
//! One watch over the whole store feeds everything, so that the cache knows exactly up to which revision
//! it is complete: a read at revision R waits until R has passed here. Objects are kept in their stored
//! form and shared with the changes; nothing is decoded.
//!
//! Invariant: whoever reads revision R from [`Cache::revision`] finds the effects of all revisions up to R
//! in every resource.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use store::kv::{Event, EventKind, KeyRange, Revision};
use tokio::sync::watch;

use crate::config::Limits;
use crate::storage::change::Change;
use crate::storage::history::{FellBehind, History};
use crate::storage::key;
use crate::storage::object::Stored;

/// Is told of every change, in order, before any reader can see it.
pub trait Observer: Send + Sync + 'static {
    /// Everything is read anew.
    fn reset(&self, objects: &mut dyn Iterator<Item = &Arc<Stored>>);
    /// One object changed.
    fn changed(&self, change: &Change);
}

/// Several observers, told one after another.
impl<const N: usize> Observer for [Box<dyn Observer>; N] {
    fn reset(&self, objects: &mut dyn Iterator<Item = &Arc<Stored>>) {
        let all: Vec<&Arc<Stored>> = objects.collect();
        self.iter().for_each(|observer| observer.reset(&mut all.iter().copied()));
    }

    fn changed(&self, change: &Change) {
        self.iter().for_each(|observer| observer.changed(change));
    }
}

/// The cache of all resources.
pub struct Cache {
    resources: RwLock<HashMap<Bytes, Arc<ResourceCache>>>,
    revision: watch::Sender<Revision>,
    observer: Box<dyn Observer>,
    limits: Limits,
}

/// The objects of one resource.
#[derive(Debug)]
pub struct ResourceCache {
    state: RwLock<ResourceState>,
    /// The revision of the last change here; wakes the watchers of this resource only.
    changed: watch::Sender<Revision>,
}

#[derive(Debug)]
struct ResourceState {
    objects: BTreeMap<Bytes, Arc<Stored>>,
    history: History,
}

/// Some objects of one resource as they were at one revision.
#[derive(Debug)]
pub struct Snapshot {
    /// The objects in key order.
    pub objects: Vec<Arc<Stored>>,
    /// The revision.
    pub revision: Revision,
}

impl Cache {
    /// An empty cache at revision 0.
    pub fn new(limits: Limits, observer: Box<dyn Observer>) -> Self {
        Self {
            resources: RwLock::default(),
            revision: watch::Sender::new(Revision::default()),
            observer,
            limits,
        }
    }

    /// The revision up to which the cache is complete.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until the cache is complete up to `revision`; false if that takes too long.
    pub async fn wait_for(&self, revision: Revision, patience: Duration) -> bool {
        let mut passed = self.revision.subscribe();
        let reached = passed.wait_for(|now| *now >= revision);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }

    /// The cache of the resource whose keys begin with `prefix`.
    pub fn resource(&self, prefix: &[u8]) -> Arc<ResourceCache> {
        if let Some(resource) = self.resources.read().get(prefix) {
            return resource.clone();
        }
        let mut resources = self.resources.write();
        // The revision is read under the lock that `apply` needs to add a resource: nothing was missed.
        let floor = self.revision();
        let limits = &self.limits;
        let made = resources
            .entry(Bytes::copy_from_slice(prefix))
            .or_insert_with(|| Arc::new(ResourceCache::new(floor, limits)));
        made.clone()
    }

    /// The object at `key`, as the cache has it.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Stored>> {
        self.resource(key::prefix_of(key)?).state.read().objects.get(key).cloned()
    }

    /// The objects in `range`, which must lie in one resource, as they are now.
    pub fn snapshot(&self, prefix: &[u8], range: &KeyRange) -> Snapshot {
        let resource = self.resource(prefix);
        let state = resource.state.read();
        // A change may be visible here before the whole store is known up to its revision.
        let revision = self.revision().max(*resource.changed.borrow());
        Snapshot { objects: state.range(range).cloned().collect(), revision }
    }

    /// How many objects the resource has whose keys begin with `prefix`.
    pub fn count(&self, prefix: &[u8]) -> usize {
        self.resources.read().get(prefix).map_or(0, |resource| resource.state.read().objects.len())
    }

    /// How many objects each resource has, by its prefix.
    pub fn counts(&self) -> Vec<(Bytes, usize)> {
        let resources = self.resources.read();
        let count = |(prefix, resource): (&Bytes, &Arc<ResourceCache>)| {
            (prefix.clone(), resource.state.read().objects.len())
        };
        resources.iter().map(count).collect()
    }

    /// Takes in everything anew: the result of one read of the whole store at `revision`.
    pub fn reset(&self, pairs: impl Iterator<Item = Stored>, revision: Revision) {
        let mut by_prefix: HashMap<Bytes, BTreeMap<Bytes, Arc<Stored>>> = HashMap::new();
        for stored in pairs {
            if let Some(prefix) = key::prefix_of(&stored.key) {
                let prefix = stored.key.slice_ref(prefix);
                by_prefix.entry(prefix).or_default().insert(stored.key.clone(), Arc::new(stored));
            }
        }
        self.observer.reset(&mut by_prefix.values().flat_map(BTreeMap::values));
        let mut resources = self.resources.write();
        for prefix in resources.keys() {
            by_prefix.entry(prefix.clone()).or_default();
        }
        for (prefix, objects) in by_prefix {
            let fresh = || Arc::new(ResourceCache::new(revision, &self.limits));
            resources.entry(prefix).or_insert_with(fresh).reset(objects, revision, &self.limits);
        }
        // Before the lock is let go: a resource that is first asked for now has no changes from before.
        self.revision.send_replace(revision);
        drop(resources);
    }

    /// Takes in all events of one revision.
    pub fn apply(&self, revision: Revision, events: &[Event]) {
        if revision <= self.revision() {
            return; // Read already, by the reset that this watch began with.
        }
        let mut by_prefix: BTreeMap<&[u8], Vec<&Event>> = BTreeMap::new();
        for event in events {
            if let Some(prefix) = key::prefix_of(&event.kv.key) {
                by_prefix.entry(prefix).or_default().push(event);
            }
        }
        for (prefix, events) in by_prefix {
            self.resource(prefix).apply(revision, &events, self.observer.as_ref());
        }
        self.pass(revision);
    }

    /// Nothing more will come up to `revision`.
    pub fn pass(&self, revision: Revision) {
        self.revision.send_if_modified(|now| {
            let newer = revision > *now;
            *now = (*now).max(revision);
            newer
        });
    }
}

impl ResourceCache {
    fn new(floor: Revision, limits: &Limits) -> Self {
        let history = History::new(floor, limits.watch_history_events, limits.watch_history_bytes);
        let state = ResourceState { objects: BTreeMap::new(), history };
        Self { state: RwLock::new(state), changed: watch::Sender::new(floor) }
    }

    fn reset(&self, objects: BTreeMap<Bytes, Arc<Stored>>, revision: Revision, limits: &Limits) {
        let mut state = self.state.write();
        state.objects = objects;
        state.history = History::new(revision, limits.watch_history_events, limits.watch_history_bytes);
        drop(state);
        self.changed.send_replace(revision);
    }

    /// Takes in all events that one revision has here, under one lock: a watcher that saw only some of
    /// them would move its cursor past the others. The end of a lease deletes many objects at once.
    fn apply(&self, revision: Revision, events: &[&Event], observer: &dyn Observer) {
        let mut state = self.state.write();
        for event in events {
            let change = state.change(revision, event);
            observer.changed(&change);
            state.history.push(change);
        }
        self.changed.send_replace(revision);
    }

    /// Up to about `limit` changes after `revision`.
    pub fn after(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<Change>>, FellBehind> {
        self.state.read().history.after(revision, limit)
    }

    /// From where on changes are kept here; older ones are only in the store.
    pub fn floor(&self) -> Revision {
        self.state.read().history.floor()
    }

    /// Wakes when something changed.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }
}

impl ResourceState {
    /// Changes the objects as the event says.
    fn change(&mut self, revision: Revision, event: &Event) -> Arc<Change> {
        let key = &event.kv.key;
        let now = (event.kind == EventKind::Put).then(|| Arc::new(Stored::compact(&event.kv)));
        let before = match &now {
            Some(stored) => {
                // A map keeps the key that it has, which would keep the object alive that it is a part of.
                let before = self.objects.remove(key);
                self.objects.insert(stored.key.clone(), stored.clone());
                before
            }
            None => self.objects.remove(key),
        };
        Arc::new(Change::new(revision, now, before))
    }

    fn range(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<Stored>> {
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.objects.range::<Bytes, _>((Bound::Included(&range.start), end)).map(|(_, stored)| stored)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use parking_lot::Mutex;

    use super::*;

    /// Notes at each change what the watchers have been woken for by then.
    struct Listener {
        cache: Mutex<Weak<Cache>>,
        woken_for: Mutex<Vec<Revision>>,
    }

    impl Observer for Arc<Listener> {
        fn reset(&self, _: &mut dyn Iterator<Item = &Arc<Stored>>) {}

        fn changed(&self, _: &Change) {
            let cache = self.cache.lock().upgrade().expect("the test holds it");
            self.woken_for.lock().push(*cache.resource(PREFIX).changed.borrow());
        }
    }

    const PREFIX: &[u8] = b"/registry/core/events/";

    fn put(name: &str, revision: u64) -> Event {
        let kv = store::kv::KeyValue {
            key: [PREFIX, b"default/", name.as_bytes()].concat().into(),
            value: Bytes::from_static(b"{}"),
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
            version: 1,
            lease: None,
        };
        Event { kind: EventKind::Put, kv, prev: None }
    }

    #[test]
    fn nobody_is_woken_between_the_events_of_a_revision() {
        let listener = Arc::new(Listener { cache: Mutex::default(), woken_for: Mutex::default() });
        let cache = Arc::new(Cache::new(Limits::default(), Box::new(listener.clone())));
        *listener.cache.lock() = Arc::downgrade(&cache);
        cache.reset(std::iter::empty(), Revision(1));
        let resource = cache.resource(PREFIX);
        cache.apply(Revision(2), &[put("a", 2), put("b", 2), put("c", 2)]);
        assert_eq!(*listener.woken_for.lock(), [Revision(1); 3]);
        assert_eq!(*resource.changed.borrow(), Revision(2));
        assert_eq!(resource.after(Revision(1), 1).expect("kept").len(), 3);
    }
}
