//! What this process has written and its informers haven't shown yet.
//!
//! A reconcile that looks at a cache right after a write would see the world before the write and do it
//! again. So each controller remembers the uids it created and deleted. An entry ends when the cache shows
//! the object (or shows it gone), or has moved past the write's resourceVersion, or after five minutes,
//! upstream's own limit, should the cache never tell. Restarting forgets nothing that matters: a new
//! process starts from a quorum list.

use client::informer::{Object, ObjectKey, Store};
use jiff::{SignedDuration, Timestamp};
use kube::Resource;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

/// No entry stays longer; upstream's `ExpectationsTimeout`.
const TIMEOUT: SignedDuration = SignedDuration::from_mins(5);

/// A write that the cache may not show yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The plural of its kind.
    pub plural: String,
    /// Where it is.
    pub key: ObjectKey,
    /// The server's uid.
    pub uid: String,
    /// The resourceVersion it was written at.
    pub version: u64,
}

/// What one key is waiting for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    /// Uids of created objects that the cache didn't show yet.
    pub created: BTreeSet<String>,
    /// Uids that the cache still shows as alive although we deleted them.
    pub deleted: BTreeSet<String>,
    /// Uids of objects that the cache still shows as they were before our last patch.
    pub patched: BTreeSet<String>,
    /// The last failure to create, until a create succeeds.
    pub failure: Option<String>,
}

impl Pending {
    /// How many created objects are not among `objects`.
    pub fn unseen<K: Resource>(&self, objects: &[Arc<K>]) -> usize {
        let seen = |uid: &&String| objects.iter().any(|object| object.meta().uid.as_ref() == Some(uid));
        self.created.iter().filter(|uid| !seen(uid)).count()
    }
}

#[derive(Debug, Default)]
struct Entry {
    created: Vec<(Written, Timestamp)>,
    deleted: BTreeMap<String, (ObjectKey, Timestamp)>,
    patched: BTreeMap<String, (Written, Timestamp)>,
    /// The version of our last write to the key's own object.
    own: Option<(u64, Timestamp)>,
    failure: Option<String>,
}

/// Entries of one controller, by the key of its own objects.
#[derive(Debug)]
pub struct Expectations<Key>(Mutex<HashMap<Key, Entry>>);

impl<Key> Default for Expectations<Key> {
    fn default() -> Self {
        Expectations(Mutex::default())
    }
}

impl<Key: Clone + Eq + Hash> Expectations<Key> {
    /// Notes a create that the server acknowledged.
    pub fn created(&self, key: &Key, created: Written, now: Timestamp) {
        let mut entries = self.0.lock();
        let entry = entries.entry(key.clone()).or_default();
        entry.failure = None;
        entry.created.push((created, now));
    }

    /// Notes a delete that the server acknowledged.
    pub fn deleted(&self, key: &Key, object: ObjectKey, uid: String, now: Timestamp) {
        self.0.lock().entry(key.clone()).or_default().deleted.insert(uid, (object, now));
    }

    /// Notes a patch that the server acknowledged.
    pub fn patched(&self, key: &Key, patched: Written, now: Timestamp) {
        self.0.lock().entry(key.clone()).or_default().patched.insert(patched.uid.clone(), (patched, now));
    }

    /// Notes a write to the key's own object.
    pub fn wrote(&self, key: &Key, version: u64, now: Timestamp) {
        self.0.lock().entry(key.clone()).or_default().own = Some((version, now));
    }

    /// True while `object`, the key's own, is from before our last write to it. A decision from such a state
    /// could do again what was done: a Job's status says which of its pods are counted.
    pub fn is_stale<K: Resource>(&self, key: &Key, object: &K, now: Timestamp) -> bool {
        let Some((written, at)) = self.0.lock().get(key).and_then(|entry| entry.own) else { return false };
        let version =
            object.meta().resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
        // Versions that can't be compared can't be waited for.
        let older = version.is_some_and(|version| version < written) && written != u64::MAX;
        older && now < at + TIMEOUT
    }

    /// Notes that a create was refused; returns whether that is news.
    pub fn failed(&self, key: &Key, message: String) -> bool {
        let mut entries = self.0.lock();
        let failure = &mut entries.entry(key.clone()).or_default().failure;
        let news = failure.as_ref() != Some(&message);
        *failure = Some(message);
        news
    }

    /// Forgets a key whose object is gone.
    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    /// What is still missing in `store`; entries that have arrived are dropped. Ask *before* reading the
    /// objects, and count with [`Pending::unseen`]: an object that arrives in between is then known twice,
    /// by its uid, while in the other order it would be known not at all.
    pub fn pending<K: Object>(&self, key: &Key, store: &Store<K>, now: Timestamp) -> Pending {
        let mut entries = self.0.lock();
        let Some(entry) = entries.get_mut(key) else { return Pending::default() };
        let newest = store.newest();
        entry.created.retain(|(created, at)| {
            newest < created.version && !has(store, &created.key, &created.uid) && now < *at + TIMEOUT
        });
        entry.deleted.retain(|uid, (object, at)| is_alive(store, object, uid) && now < *at + TIMEOUT);
        entry.patched.retain(|uid, (patched, at)| {
            newest < patched.version && is_older(store, patched, uid) && now < *at + TIMEOUT
        });
        Pending {
            created: entry.created.iter().map(|(created, _)| created.uid.clone()).collect(),
            deleted: entry.deleted.keys().cloned().collect(),
            patched: entry.patched.keys().cloned().collect(),
            failure: entry.failure.clone(),
        }
    }
}

fn has<K: Object>(store: &Store<K>, key: &ObjectKey, uid: &str) -> bool {
    store.get(key).is_some_and(|object| object.meta().uid.as_deref() == Some(uid))
}

/// True if the store still shows the object in a state from before our write.
fn is_older<K: Object>(store: &Store<K>, written: &Written, uid: &str) -> bool {
    store.get(&written.key).is_some_and(|object| {
        let version = object.meta().resource_version.as_deref().and_then(|version| version.parse().ok());
        object.meta().uid.as_deref() == Some(uid)
            && version.is_none_or(|version: u64| version < written.version)
    })
}

fn is_alive<K: Object>(store: &Store<K>, key: &ObjectKey, uid: &str) -> bool {
    store.get(key).is_some_and(|object| {
        object.meta().uid.as_deref() == Some(uid) && object.meta().deletion_timestamp.is_none()
    })
}
