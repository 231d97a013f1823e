//! The shared copies that all controllers read: one list and one watch per kind and process.

use crate::{owner, pod, root_ca};
use client::informer::{IndexFn, Informer, Object, Store};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount},
};
use kube::{Api, Client, Resource};

/// Index of pods by the name of their node.
pub const BY_NODE: &str = "node";
/// Index of pods and ReplicaSets by the uid of their controlling owner.
pub const BY_OWNER: &str = "owner";
/// Where kubelets renew their leases.
pub const NODE_LEASES: &str = "kube-node-lease";

/// Read handles of all informers.
#[derive(Debug, Clone)]
pub struct Caches {
    /// Pods, by node and owner.
    pub pods: Store<Pod>,
    /// ReplicaSets, by owner.
    pub sets: Store<ReplicaSet>,
    /// Deployments.
    pub deployments: Store<Deployment>,
    /// Namespaces.
    pub namespaces: Store<Namespace>,
    /// ServiceAccounts.
    pub accounts: Store<ServiceAccount>,
    /// ConfigMaps named [`root_ca::NAME`].
    pub ca_maps: Store<ConfigMap>,
    /// Nodes.
    pub nodes: Store<Node>,
    /// Leases of all namespaces.
    pub leases: Store<Lease>,
}

/// The informers behind [`Caches`]; dropped, they end.
pub struct Informers {
    /// What they fill.
    pub caches: Caches,
    running: Vec<Box<dyn std::any::Any + Send>>,
}

/// What is called at each change; it must not wait.
pub trait OnChange<K>: Fn(&client::informer::Change<K>) + Send + Sync + 'static {}
impl<K, F: Fn(&client::informer::Change<K>) + Send + Sync + 'static> OnChange<K> for F {}

/// Handlers by kind, given when the informers start.
pub struct Handlers<P, S, D, N, A, C, O, L> {
    /// Pods.
    pub pods: P,
    /// ReplicaSets.
    pub sets: S,
    /// Deployments.
    pub deployments: D,
    /// Namespaces.
    pub namespaces: N,
    /// ServiceAccounts.
    pub accounts: A,
    /// ConfigMaps with the root CA.
    pub ca_maps: C,
    /// Nodes.
    pub nodes: O,
    /// Leases.
    pub leases: L,
}

impl Informers {
    /// Starts all informers and waits until each has listed.
    pub async fn start(
        client: &Client,
        handlers: Handlers<
            impl OnChange<Pod>,
            impl OnChange<ReplicaSet>,
            impl OnChange<Deployment>,
            impl OnChange<Namespace>,
            impl OnChange<ServiceAccount>,
            impl OnChange<ConfigMap>,
            impl OnChange<Node>,
            impl OnChange<Lease>,
        >,
    ) -> Informers {
        let api = || client.clone();
        let pods = started(Api::all(api()), pod_indexes(), "", handlers.pods);
        let sets = started(Api::all(api()), set_indexes(), "", handlers.sets);
        let deployments = started(Api::all(api()), Vec::new(), "", handlers.deployments);
        let namespaces = started(Api::all(api()), Vec::new(), "", handlers.namespaces);
        let accounts = started(Api::all(api()), Vec::new(), "", handlers.accounts);
        let named = format!("metadata.name={}", root_ca::NAME);
        let ca_maps = started(Api::all(api()), Vec::new(), &named, handlers.ca_maps);
        let nodes = started(Api::all(api()), Vec::new(), "", handlers.nodes);
        let leases = started(Api::all(api()), Vec::new(), "", handlers.leases);
        let caches = Caches {
            pods: pods.store(),
            sets: sets.store(),
            deployments: deployments.store(),
            namespaces: namespaces.store(),
            accounts: accounts.store(),
            ca_maps: ca_maps.store(),
            nodes: nodes.store(),
            leases: leases.store(),
        };
        caches.wait_synced().await;
        let running: Vec<Box<dyn std::any::Any + Send>> = vec![
            Box::new(pods),
            Box::new(sets),
            Box::new(deployments),
            Box::new(namespaces),
            Box::new(accounts),
            Box::new(ca_maps),
            Box::new(nodes),
            Box::new(leases),
        ];
        Informers { caches, running }
    }

    /// Number of informers, for the log.
    pub fn len(&self) -> usize {
        self.running.len()
    }
}

impl Caches {
    async fn wait_synced(&self) {
        self.pods.wait_synced().await;
        self.sets.wait_synced().await;
        self.deployments.wait_synced().await;
        self.namespaces.wait_synced().await;
        self.accounts.wait_synced().await;
        self.ca_maps.wait_synced().await;
        self.nodes.wait_synced().await;
        self.leases.wait_synced().await;
    }
}

/// The indexes of the pod cache.
pub fn pod_indexes() -> Vec<(&'static str, IndexFn<Pod>)> {
    let node = |pod: &Pod| {
        Some(pod::node_name(pod).to_owned()).filter(|name| !name.is_empty()).into_iter().collect()
    };
    vec![(BY_NODE, Box::new(node)), (BY_OWNER, Box::new(owner_uid))]
}

/// The indexes of the ReplicaSet cache.
pub fn set_indexes() -> Vec<(&'static str, IndexFn<ReplicaSet>)> {
    vec![(BY_OWNER, Box::new(owner_uid))]
}

fn owner_uid<K: Resource>(object: &K) -> Vec<String> {
    owner::controller_of(object).map(|owner| owner.uid.clone()).into_iter().collect()
}

fn started<K: Object>(
    api: Api<K>,
    indexes: Vec<(&'static str, IndexFn<K>)>,
    fields: &str,
    handler: impl OnChange<K>,
) -> Informer<K>
where
    K::DynamicType: Clone,
{
    let mut builder = Informer::builder(api).on_change(handler);
    for (name, values) in indexes {
        builder = builder.index(name, values);
    }
    if !fields.is_empty() {
        builder = builder.fields(fields);
    }
    builder.start()
}
