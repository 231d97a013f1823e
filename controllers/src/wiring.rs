//! Which change makes which controller look at which key. Nothing is decided here: a key too many costs a
//! look, a key too few would cost a reaction.

use crate::{
    caches::{BY_NODE, Caches, Handlers, Informers, NODE_LEASES},
    looks::{GarbageCollector, Uid},
    owner, pod, service_account,
};
use api::selector::LabelSelector;
use client::{
    informer::{Change, ObjectKey},
    queue::WorkQueue,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Node, Pod},
};
use kube::{Client, Resource, ResourceExt, core::ApiResource};
use std::sync::{Arc, OnceLock};

/// The queues of all controllers; clones are the same queues.
#[derive(Clone, Default)]
pub struct Queues {
    /// ReplicaSets.
    pub sets: WorkQueue<ObjectKey>,
    /// Deployments.
    pub deployments: WorkQueue<ObjectKey>,
    /// Namespaces that end.
    pub namespaces: WorkQueue<ObjectKey>,
    /// Namespaces that want a service account.
    pub accounts: WorkQueue<ObjectKey>,
    /// Namespaces that want the root CA.
    pub root_ca: WorkQueue<ObjectKey>,
    /// Nodes.
    pub nodes: WorkQueue<ObjectKey>,
    /// Pods that may have to leave their node.
    pub evictions: WorkQueue<ObjectKey>,
    /// Pods that nobody may finish.
    pub pod_gc: WorkQueue<ObjectKey>,
    /// Objects whose owners may be gone.
    pub garbage: WorkQueue<Uid>,
}

/// What handlers need; the caches are there once all have listed.
#[derive(Clone)]
struct Wires {
    queues: Queues,
    garbage: GarbageCollector,
    caches: Arc<OnceLock<Caches>>,
}

/// Starts the informers with every change wired to the queues; returns once all have listed.
pub async fn connect(client: &Client, queues: &Queues, garbage: &GarbageCollector) -> Informers {
    let caches = Arc::new(OnceLock::new());
    let wires = Wires { queues: queues.clone(), garbage: garbage.clone(), caches: caches.clone() };
    let handler = || wires.clone();
    let [pods, sets, deployments, namespaces, accounts, ca_maps, nodes, leases] =
        std::array::from_fn(|_| handler());
    let informers = Informers::start(
        client,
        Handlers {
            pods: move |change: &_| pods.pod(change),
            sets: move |change: &_| sets.set(change),
            deployments: move |change: &_| deployments.deployment(change),
            namespaces: move |change: &_| namespaces.namespace(change),
            accounts: move |change: &_| accounts.account(change),
            ca_maps: move |change: &_| {
                for_each(change, |key| ca_maps.queues.root_ca.add(ObjectKey::cluster(&key.namespace)));
            },
            nodes: move |change: &_| nodes.node(change),
            leases: move |change: &_| {
                leases.collect(change);
                for_each(change, |key| {
                    if key.namespace == NODE_LEASES {
                        leases.queues.nodes.add(ObjectKey::cluster(&key.name));
                    }
                });
            },
        },
    )
    .await;
    // Set exactly once: `connect` made the cell.
    let _ = caches.set(informers.caches.clone());
    informers
}

/// Calls `add` for the object of a change.
fn for_each<K: Resource>(change: &Change<K>, add: impl Fn(ObjectKey)) {
    if let Some(object) = change.object() {
        add(ObjectKey::of(&**object));
    }
}

/// The object before and after.
fn states<K>(change: &Change<K>) -> impl Iterator<Item = &K> {
    let old = match change {
        Change::Applied { old, .. } => old.as_deref(),
        _ => None,
    };
    old.into_iter().chain(change.object().map(|object| &**object))
}

impl Wires {
    fn collect<K: Resource<DynamicType = ()>>(&self, change: &Change<K>) {
        for uid in self.garbage.observe(&ApiResource::erase::<K>(&()), change) {
            self.queues.garbage.add(uid);
        }
    }

    fn pod(&self, change: &Change<Pod>) {
        self.collect(change);
        for_each(change, |key| {
            self.queues.evictions.add(key.clone());
            self.queues.pod_gc.add(key);
        });
        for pod in states(change) {
            let namespace = pod.namespace().unwrap_or_default();
            match owner::controller_of(pod) {
                Some(owner) if owner.kind == "ReplicaSet" => {
                    self.queues.sets.add(ObjectKey::new(&namespace, &owner.name));
                }
                Some(_) => {}
                None => self.adopters_of_pod(pod, &namespace),
            }
        }
        if let Some(pod) = change.object() {
            self.gone_or_terminal(pod, matches!(change, Change::Deleted(_)));
            self.emptied(pod);
        }
    }

    /// ReplicaSets whose selector an uncontrolled pod matches.
    fn adopters_of_pod(&self, pod: &Pod, namespace: &str) {
        let Some(caches) = self.caches.get() else { return };
        for set in caches.sets.in_namespace(namespace) {
            let selector = LabelSelector::from_object(&set.spec.selector);
            if selector.is_ok_and(|selector| selector.matches(pod.labels())) {
                self.queues.sets.add(ObjectKey::of(&*set));
            }
        }
    }

    /// A Deployment that recreates waits for the last old pod.
    fn gone_or_terminal(&self, pod: &Pod, gone: bool) {
        let (Some(owner), Some(caches)) = (owner::controller_of(pod), self.caches.get()) else { return };
        let ended = gone || pod::is_terminal(pod);
        let set = ended.then(|| ObjectKey::new(pod.namespace().unwrap_or_default(), &owner.name));
        if let Some(set) = set.and_then(|key| caches.sets.get(&key)) {
            self.deployment_of(&set);
        }
    }

    /// A namespace that ends waits for its pods.
    fn emptied(&self, pod: &Pod) {
        let Some(caches) = self.caches.get() else { return };
        let key = ObjectKey::cluster(pod.namespace().unwrap_or_default());
        if caches
            .namespaces
            .get(&key)
            .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            self.queues.namespaces.add(key);
        }
    }

    fn set(&self, change: &Change<ReplicaSet>) {
        self.collect(change);
        for_each(change, |key| self.queues.sets.add(key));
        for set in states(change) {
            self.deployment_of(set);
        }
    }

    fn deployment_of(&self, set: &ReplicaSet) {
        let namespace = set.namespace().unwrap_or_default();
        match owner::controller_of(set) {
            Some(owner) if owner.kind == "Deployment" => {
                self.queues.deployments.add(ObjectKey::new(&namespace, &owner.name));
            }
            Some(_) => {}
            None => self.adopters_of_set(set, &namespace),
        }
    }

    fn adopters_of_set(&self, set: &ReplicaSet, namespace: &str) {
        let Some(caches) = self.caches.get() else { return };
        for deployment in caches.deployments.in_namespace(namespace) {
            let selector = LabelSelector::from_object(&deployment.spec.selector);
            if selector.is_ok_and(|selector| selector.matches(set.labels())) {
                self.queues.deployments.add(ObjectKey::of(&*deployment));
            }
        }
    }

    fn deployment(&self, change: &Change<Deployment>) {
        self.collect(change);
        for_each(change, |key| self.queues.deployments.add(key));
    }

    fn namespace(&self, change: &Change<k8s_openapi::api::core::v1::Namespace>) {
        self.collect(change);
        for_each(change, |key| {
            self.queues.namespaces.add(key.clone());
            self.queues.accounts.add(key.clone());
            self.queues.root_ca.add(key);
        });
    }

    fn account(&self, change: &Change<k8s_openapi::api::core::v1::ServiceAccount>) {
        self.collect(change);
        for_each(change, |key| {
            if key.name == service_account::DEFAULT {
                self.queues.accounts.add(ObjectKey::cluster(&key.namespace));
            }
        });
    }

    fn node(&self, change: &Change<Node>) {
        self.collect(change);
        for_each(change, |key| self.queues.nodes.add(key));
        let Some(caches) = self.caches.get() else { return };
        if is_heartbeat(change) {
            return;
        }
        // The zone brake depends on all nodes.
        for node in caches.nodes.list() {
            self.queues.nodes.add(ObjectKey::of(&*node));
        }
        let Some(node) = change.object() else { return };
        for pod in caches.pods.by_index(BY_NODE, &node.name_any()) {
            self.queues.evictions.add(ObjectKey::of(&*pod));
            self.queues.pod_gc.add(ObjectKey::of(&*pod));
        }
    }
}

/// True if neither taints nor readiness changed: by far the most frequent change of a node.
fn is_heartbeat(change: &Change<Node>) -> bool {
    let Change::Applied { old: Some(old), new } = change else { return false };
    let ready = crate::node_lifecycle::ready_of;
    old.spec == new.spec && ready(old) == ready(new) && old.labels() == new.labels()
}
