//! Looks of what new machines need: the signed `cluster-info`, and the tokens that sign it.

use crate::{bootstrap_signer, driver::Controller, plan::Plan, token_cleaner};
use api::bootstrap_token::{INFO_NAME, INFO_NAMESPACE, NAMESPACE, SECRET_TYPE};
use client::{
    informer::{Informer, Object, ObjectKey, Store},
    queue::WorkQueue,
};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Endpoints, Secret},
};
use kube::{Api, Client, Resource};

/// Tokens are rare and nobody else's business: they have informers and queues of their own, which end with this.
pub struct Bootstrap {
    tokens: Informer<Secret>,
    info: Informer<ConfigMap>,
    servers: Informer<Endpoints>,
    /// Of [`BootstrapSigner`]; whatever changes, the key is that of the one ConfigMap.
    pub signing: WorkQueue<ObjectKey>,
    /// Of [`TokenCleaner`].
    pub cleaning: WorkQueue<ObjectKey>,
}

impl Bootstrap {
    /// Lists and watches from now on.
    pub fn start(client: &Client) -> Bootstrap {
        let (signing, cleaning) = (WorkQueue::default(), WorkQueue::default());
        let added: WorkQueue<ObjectKey> = cleaning.clone();
        let sign = |queue: &WorkQueue<ObjectKey>| {
            let queue = queue.clone();
            move || queue.add(ObjectKey::new(INFO_NAMESPACE, INFO_NAME))
        };
        let signs = sign(&signing);
        let tokens = Informer::builder(Api::namespaced(client.clone(), NAMESPACE))
            .fields(&format!("type={SECRET_TYPE}"))
            .on_change(move |change| {
                change.object().into_iter().for_each(|secret| added.add(ObjectKey::of(&**secret)));
                signs();
            });
        let info = telling(client, INFO_NAMESPACE, INFO_NAME, sign(&signing));
        let servers = telling(client, "default", "kubernetes", sign(&signing));
        Bootstrap { tokens: tokens.start(), info, servers, signing, cleaning }
    }

    /// Waits for the first lists.
    pub async fn caches(&self) -> BootstrapCaches {
        self.tokens.wait_synced().await;
        self.info.wait_synced().await;
        self.servers.wait_synced().await;
        BootstrapCaches {
            tokens: self.tokens.store(),
            info: self.info.store(),
            servers: self.servers.store(),
        }
    }
}

/// An informer of one object.
fn telling<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    changed: impl Fn() + Send + Sync + 'static,
) -> Informer<K>
where
    K: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Informer::builder(Api::namespaced(client.clone(), namespace))
        .fields(&format!("metadata.name={name}"))
        .on_change(move |_| changed())
        .start()
}

/// What both read.
#[derive(Clone)]
pub struct BootstrapCaches {
    /// Secrets with bootstrap tokens.
    pub tokens: Store<Secret>,
    /// The ConfigMap `cluster-info`.
    pub info: Store<ConfigMap>,
    /// The Endpoints of `default/kubernetes`.
    pub servers: Store<Endpoints>,
}

/// Publishes and signs `cluster-info`; whatever changes, the key is that of the one ConfigMap.
pub struct BootstrapSigner {
    /// What it reads.
    pub caches: BootstrapCaches,
    /// The cluster's authority, PEM.
    pub ca: String,
}

impl Controller for BootstrapSigner {
    type Key = ObjectKey;
    const NAME: &'static str = "bootstrap-signer-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let servers = self.caches.servers.list();
        let servers: Vec<String> = servers.iter().flat_map(|one| bootstrap_signer::servers(one)).collect();
        let Some(kubeconfig) = bootstrap_signer::kubeconfig(&servers, &self.ca) else {
            return Ok(Plan::nothing());
        };
        let info = self.caches.info.get(key);
        Ok(bootstrap_signer::reconcile(info.as_deref(), &self.caches.tokens.list(), &kubeconfig, now))
    }
}

/// Deletes tokens that have ended.
pub struct TokenCleaner(pub BootstrapCaches);

impl Controller for TokenCleaner {
    type Key = ObjectKey;
    const NAME: &'static str = "token-cleaner-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let secret = self.0.tokens.get(key);
        Ok(secret.map_or_else(Plan::nothing, |secret| token_cleaner::reconcile(&secret, now)))
    }
}
