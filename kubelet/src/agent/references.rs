//! The objects that the node's pods refer to, each watched by name; the trust bundles of a signer together.
//!
//! A node may read what its pods need and hardly anything else, so there is one watch for each object rather than
//! one for all. It begins with the first pod that refers to it and ends with the last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Informer, Object};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pod::env::{Reference, ReferenceKey, Sources};
use crate::pod::{PodRef, PodUid};

/// How long a container's start waits for the first answer of a watch.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// The watched objects.
#[derive(Clone)]
pub struct References {
    client: kube::Client,
    followed: Arc<Mutex<BTreeMap<ReferenceKey, Followed>>>,
    changes: Arc<Changes>,
}

/// Which objects have changed since they were last asked for.
#[derive(Default)]
struct Changes {
    keys: Mutex<BTreeSet<ReferenceKey>>,
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
    TrustBundles(Arc<Informer<ClusterTrustBundle>>),
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
            let key = reference.key(&pod.namespace);
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

    fn watch(&self, key: ReferenceKey) -> Watch {
        let client = self.client.clone();
        let (namespace, by_name) = (&key.0, |name: &str| format!("metadata.name={name}"));
        match &key.1 {
            Reference::ConfigMap(name) => {
                Watch::ConfigMap(self.informer(&key, Api::namespaced(client, namespace), &by_name(name)))
            }
            Reference::Secret(name) => {
                Watch::Secret(self.informer(&key, Api::namespaced(client, namespace), &by_name(name)))
            }
            Reference::TrustBundle(name) => {
                Watch::TrustBundles(self.informer(&key, Api::all(client), &by_name(name)))
            }
            Reference::TrustBundlesOf(signer) => {
                let of_signer = format!("spec.signerName={signer}");
                Watch::TrustBundles(self.informer(&key, Api::all(client), &of_signer))
            }
        }
    }

    fn informer<K>(&self, key: &ReferenceKey, api: Api<K>, selector: &str) -> Arc<Informer<K>>
    where
        K: Object + Resource<DynamicType = ()>,
    {
        let (changes, key) = (self.changes.clone(), key.clone());
        let informer = Informer::builder(api).fields(selector).on_change(move |_| {
            changes.keys.lock().insert(key.clone());
            changes.notify.notify_one();
        });
        Arc::new(informer.start())
    }

    /// Waits for objects to change and says which.
    pub async fn changed(&self) -> BTreeSet<ReferenceKey> {
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
            let key = reference.key(namespace);
            let watch = self.followed.lock().get(&key).map(|followed| followed.watch.clone());
            let Some(watch) = watch else { continue };
            tokio::time::timeout(FIRST_ANSWER, watch.wait_synced())
                .await
                .map_err(|_| timed_out(reference))?;
            watch.read(&mut sources);
        }
        Ok(sources)
    }
}

fn timed_out(reference: &Reference) -> String {
    let kind = reference.resource().trim_end_matches('s');
    format!("failed to sync {kind} cache: timed out waiting for the condition")
}

impl Watch {
    async fn wait_synced(&self) {
        match self {
            Self::ConfigMap(informer) => informer.wait_synced().await,
            Self::Secret(informer) => informer.wait_synced().await,
            Self::TrustBundles(informer) => informer.wait_synced().await,
        }
    }

    fn read(&self, sources: &mut Sources) {
        match self {
            Self::ConfigMap(informer) => collect(informer, &mut sources.config_maps),
            Self::Secret(informer) => collect(informer, &mut sources.secrets),
            Self::TrustBundles(informer) => collect(informer, &mut sources.trust_bundles),
        }
    }
}

/// A watch sees only what was asked for.
fn collect<K: Object + Resource<DynamicType = ()>>(informer: &Informer<K>, into: &mut BTreeMap<String, K>) {
    let found = informer.store().list();
    into.extend(found.iter().map(|object| (object.name_any(), (**object).clone())));
}
