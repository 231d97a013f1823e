//! The ConfigMaps and Secrets that the node's pods refer to, each watched by name.
//!
//! A node may read what its pods need and nothing else, so there is one watch for each object rather than
//! one for all. It begins with the first pod that refers to it and ends with the last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Informer, Object, ObjectKey};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Resource};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pod::env::{Reference, Sources};
use crate::pod::{PodRef, PodUid};

/// How long a container's start waits for the first answer of a watch.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Namespace and name of an object.
pub type Key = (String, Reference);

/// The watched objects.
#[derive(Clone)]
pub struct References {
    client: kube::Client,
    followed: Arc<Mutex<BTreeMap<Key, Followed>>>,
    changes: Arc<Changes>,
}

/// Which objects have changed since they were last asked for.
#[derive(Default)]
struct Changes {
    keys: Mutex<BTreeSet<Key>>,
    notify: Notify,
}

struct Followed {
    users: BTreeSet<PodUid>,
    watch: Watch,
}

#[derive(Clone)]
enum Watch {
    ConfigMap(Arc<Informer<ConfigMap>>),
    Secret(Arc<Informer<Secret>>),
}

impl References {
    /// Nothing is watched yet.
    pub fn new(client: kube::Client) -> Self {
        Self { client, followed: Arc::default(), changes: Arc::default() }
    }

    /// Watches these objects for this pod.
    pub fn follow(&self, pod: &PodRef, references: Vec<Reference>) {
        let mut followed = self.followed.lock();
        for reference in references {
            let key = (pod.namespace.clone(), reference);
            let entry = followed
                .entry(key.clone())
                .or_insert_with(|| Followed { users: BTreeSet::new(), watch: self.watch(key) });
            entry.users.insert(pod.uid.clone());
        }
    }

    /// The pod is gone.
    pub fn unfollow(&self, pod: &PodUid) {
        self.followed.lock().retain(|_, followed| {
            followed.users.remove(pod);
            !followed.users.is_empty()
        });
    }

    fn watch(&self, key: Key) -> Watch {
        match &key.1 {
            Reference::ConfigMap(name) => Watch::ConfigMap(self.informer(&key, name)),
            Reference::Secret(name) => Watch::Secret(self.informer(&key, name)),
        }
    }

    fn informer<K>(&self, key: &Key, name: &str) -> Arc<Informer<K>>
    where
        K: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.0);
        let (changes, key) = (self.changes.clone(), key.clone());
        let informer = Informer::builder(api).fields(&format!("metadata.name={name}")).on_change(move |_| {
            changes.keys.lock().insert(key.clone());
            changes.notify.notify_one();
        });
        Arc::new(informer.start())
    }

    /// Waits for objects to change and says which.
    pub async fn changed(&self) -> BTreeSet<Key> {
        loop {
            let keys = std::mem::take(&mut *self.changes.keys.lock());
            if !keys.is_empty() {
                return keys;
            }
            self.changes.notify.notified().await;
        }
    }

    /// The objects that exist. The error says which could not be looked up in time.
    pub async fn sources(&self, namespace: &str, references: &[Reference]) -> Result<Sources, String> {
        let mut sources = Sources::default();
        for reference in references {
            let key = (namespace.to_owned(), reference.clone());
            let watch = self.followed.lock().get(&key).map(|followed| followed.watch.clone());
            let Some(watch) = watch else { continue };
            tokio::time::timeout(FIRST_ANSWER, watch.wait_synced())
                .await
                .map_err(|_| timed_out(reference))?;
            watch.read(namespace, reference, &mut sources);
        }
        Ok(sources)
    }
}

fn timed_out(reference: &Reference) -> String {
    let kind = match reference {
        Reference::ConfigMap(_) => "configmap",
        Reference::Secret(_) => "secret",
    };
    format!("failed to sync {kind} cache: timed out waiting for the condition")
}

impl Watch {
    async fn wait_synced(&self) {
        match self {
            Self::ConfigMap(informer) => informer.wait_synced().await,
            Self::Secret(informer) => informer.wait_synced().await,
        }
    }

    fn read(&self, namespace: &str, reference: &Reference, sources: &mut Sources) {
        let (Reference::ConfigMap(name) | Reference::Secret(name)) = reference;
        let key = ObjectKey::new(namespace, name);
        match self {
            Self::ConfigMap(informer) => {
                let found = informer.store().get(&key).map(|map| (name.clone(), (*map).clone()));
                sources.config_maps.extend(found);
            }
            Self::Secret(informer) => {
                let found = informer.store().get(&key).map(|secret| (name.clone(), (*secret).clone()));
                sources.secrets.extend(found);
            }
        }
    }
}
