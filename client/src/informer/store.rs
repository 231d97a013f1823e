//! The copy an informer keeps: objects by key, and by the values of its indexes.
//!
//! What always holds: each index names exactly the objects that are in the store, and a subscriber is
//! registered at one point between two changes, so it neither misses one nor sees one twice.

use super::{Change, Object};
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    sync::Arc,
};
use tokio::sync::{mpsc, watch};

/// Names under which an object is found in an index.
pub type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// What is kept of an object that is new or has changed.
pub(super) type Keep<K> = Box<dyn Fn(&Arc<K>) -> Arc<K> + Send + Sync>;

/// Where an object lives: its namespace (empty for cluster-scoped kinds) and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Unique in the namespace at one time; a later object may have the same name and another uid.
    pub name: String,
}

impl ObjectKey {
    /// The key of a namespaced object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> ObjectKey {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> ObjectKey {
        ObjectKey::new("", name)
    }

    /// The key of `object`.
    pub fn of<K: Resource>(object: &K) -> ObjectKey {
        ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// A shared, readable copy; only its informer writes to it.
pub struct Store<K>(Arc<Shared<K>>);

struct Shared<K> {
    content: RwLock<Content<K>>,
    synced: watch::Sender<bool>,
}

struct Content<K> {
    /// The keys are shared with the indexes.
    objects: BTreeMap<Arc<ObjectKey>, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
    subscribers: Vec<mpsc::Sender<Change<K>>>,
    newest: u64,
    keep: Keep<K>,
}

struct Index<K> {
    values: IndexFn<K>,
    keys: HashMap<String, BTreeSet<Arc<ObjectKey>>>,
}

/// Subscribers as they were when a change entered the store.
pub(super) type Audience<K> = Vec<mpsc::Sender<Change<K>>>;

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Store(self.0.clone())
    }
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} objects)", self.0.content.read().objects.len())
    }
}

impl<K> Store<K> {
    /// The object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.0.content.read().objects.get(key).cloned()
    }

    /// All objects, in the order of their keys.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.content.read().objects.values().cloned().collect()
    }

    /// All objects of a namespace, in the order of their names.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let content = self.0.content.read();
        let from_here = content.objects.range::<ObjectKey, _>(ObjectKey::new(namespace, "")..);
        from_here
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// All objects that index `name` finds under `value`, in the order of their keys.
    ///
    /// # Panics
    /// If the informer was built without that index: a mistake in our own wiring.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let content = self.0.content.read();
        let index = content.indexes.get(name).expect("the index was declared when the informer was built");
        let keys = index.keys.get(value).into_iter().flatten();
        keys.filter_map(|key| content.objects.get(&**key).cloned()).collect()
    }

    /// The highest resourceVersion seen in any change: everything written to this kind up to it is in
    /// the store, or was and is gone. Lets a controller know whether its own write has arrived.
    pub fn newest(&self) -> u64 {
        self.0.content.read().newest
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.0.content.read().objects.len()
    }

    /// True if there are no objects, or none are known yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True once the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until the first list is complete; returns at once from then on.
    pub async fn wait_synced(&self) {
        let mut synced = self.0.synced.subscribe();
        // The sender lives as long as this store, so the wait can only end by success.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    pub(super) fn subscribe(&self, sender: mpsc::Sender<Change<K>>) -> VecDeque<Change<K>> {
        let mut content = self.0.content.write();
        content.subscribers.push(sender);
        let present = content.objects.values().map(|new| Change::Applied { old: None, new: new.clone() });
        let synced = self.is_synced().then_some(Change::Synced);
        present.chain(synced).collect()
    }
}

impl<K: Object> Store<K> {
    pub(super) fn new(indexes: Vec<(&'static str, IndexFn<K>)>, keep: Keep<K>) -> Store<K> {
        let indexes =
            indexes.into_iter().map(|(name, values)| (name, Index { values, keys: HashMap::new() }));
        let content = Content {
            objects: BTreeMap::new(),
            indexes: indexes.collect(),
            subscribers: Vec::new(),
            newest: 0,
            keep,
        };
        Store(Arc::new(Shared { content: RwLock::new(content), synced: watch::Sender::new(false) }))
    }

    /// A store that no informer fills, for tests of what reads it.
    pub fn fixed(indexes: Vec<(&'static str, IndexFn<K>)>, objects: impl IntoIterator<Item = K>) -> Store<K> {
        let store = Store::new(indexes, Box::new(Arc::clone));
        store.refill(objects);
        store
    }

    /// Makes `objects` the content of a [`Store::fixed`], as a relist would; returns what changed by it.
    pub fn refill(&self, objects: impl IntoIterator<Item = K>) -> Vec<Change<K>> {
        self.replace(objects.into_iter().map(Arc::new).collect()).0
    }

    pub(super) fn insert(&self, object: Arc<K>) -> (Option<Arc<K>>, Audience<K>) {
        let mut content = self.0.content.write();
        let old = content.insert(object);
        (old, content.audience())
    }

    /// Removes `last`, the state of an object at its deletion.
    pub(super) fn remove(&self, last: &K) -> Audience<K> {
        let mut content = self.0.content.write();
        content.newest = content.newest.max(version_of(last));
        content.remove(&ObjectKey::of(last));
        content.audience()
    }

    /// Makes `listed` the content; returns the differences to what was known, deletions first, so that
    /// a reused name is told as the end of one object and the start of another.
    pub(super) fn replace(&self, listed: Vec<Arc<K>>) -> (Vec<Change<K>>, Audience<K>) {
        let mut content = self.0.content.write();
        let listed: BTreeMap<ObjectKey, Arc<K>> =
            listed.into_iter().map(|object| (ObjectKey::of(&*object), object)).collect();
        let mut changes = content.remove_missing(&listed);
        changes.extend(listed.into_values().filter_map(|object| content.insert_changed(object)));
        // In the server's order, as a watch would have told it: who has heard of a version has heard of all before.
        changes.sort_by_key(|change| change.object().map_or(0, |object| version_of(&**object)));
        changes.push(Change::Synced);
        self.0.synced.send_replace(true);
        (changes, content.audience())
    }
}

impl<K: Object> Content<K> {
    fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let key = Arc::new(ObjectKey::of(&*object));
        let old = self.remove(&key);
        self.newest = self.newest.max(version_of(&*object));
        let kept = (self.keep)(&object);
        for index in self.indexes.values_mut() {
            for value in (index.values)(&kept) {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
        self.objects.insert(key, kept);
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }

    fn remove_missing(&mut self, listed: &BTreeMap<ObjectKey, Arc<K>>) -> Vec<Change<K>> {
        let is_same = |key: &ObjectKey, object: &Arc<K>| {
            listed.get(key).is_some_and(|other| other.meta().uid == object.meta().uid)
        };
        let gone: Vec<Arc<ObjectKey>> = self
            .objects
            .iter()
            .filter(|(key, object)| !is_same(key, object))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().filter_map(|key| self.remove(key)).map(Change::Deleted).collect()
    }

    fn insert_changed(&mut self, new: Arc<K>) -> Option<Change<K>> {
        let known = self.objects.get(&ObjectKey::of(&*new));
        if known.is_some_and(|known| known.meta().resource_version == new.meta().resource_version) {
            return None;
        }
        let old = self.insert(new.clone());
        Some(Change::Applied { old, new })
    }

    fn audience(&mut self) -> Audience<K> {
        self.subscribers.retain(|subscriber| !subscriber.is_closed());
        self.subscribers.clone()
    }
}

/// Resource versions are decimal and comparable since Kubernetes 1.35; an unreadable one counts as oldest.
fn version_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl<K> Index<K> {
    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Store};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;
    use std::sync::Arc;

    fn pod(name: &str, uid: &str, version: u32, node: &str) -> Pod {
        let object = json!({"metadata": {"namespace": "default", "name": name, "uid": uid,
            "resourceVersion": version.to_string()}, "spec": {"nodeName": node, "containers": []}});
        serde_json::from_value(object).expect("a pod")
    }

    fn store(pods: Vec<Pod>) -> Store<Pod> {
        let node = |pod: &Pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect();
        Store::fixed(vec![("node", Box::new(node))], pods)
    }

    fn names(pods: Vec<Arc<Pod>>) -> Vec<String> {
        pods.iter().map(|pod| pod.metadata.name.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn indexes_follow_every_change() {
        let store = store(vec![pod("a", "1", 1, "n1"), pod("b", "2", 2, "n1")]);
        assert_eq!(names(store.by_index("node", "n1")), ["a", "b"]);
        store.insert(Arc::new(pod("a", "1", 3, "n2")));
        assert_eq!(names(store.by_index("node", "n1")), ["b"]);
        assert_eq!(names(store.by_index("node", "n2")), ["a"]);
        store.remove(&pod("a", "1", 4, "n2"));
        assert_eq!(store.newest(), 4);
        assert!(store.by_index("node", "n2").is_empty());
        assert_eq!(names(store.in_namespace("default")), ["b"]);
        assert!(store.in_namespace("defaul").is_empty());
    }

    #[test]
    fn a_relist_is_told_as_differences() {
        let store = store(vec![pod("a", "1", 1, ""), pod("b", "2", 2, ""), pod("c", "3", 3, "")]);
        let listed = [pod("a", "1", 1, ""), pod("c", "9", 7, ""), pod("d", "4", 8, "")].map(Arc::new);
        let (changes, _) = store.replace(listed.to_vec());
        let told: Vec<String> = changes.iter().map(describe).collect();
        assert_eq!(told, ["- b", "- c", "+ c", "+ d", "synced"]);
    }

    fn describe(change: &Change<Pod>) -> String {
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Applied { old: None, new } => format!("+ {}", name(new)),
            Change::Applied { new, .. } => format!("~ {}", name(new)),
            Change::Deleted(last) => format!("- {}", name(last)),
            Change::Synced => "synced".to_owned(),
        }
    }
}
