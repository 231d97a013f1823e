//! The shared copies that all controllers read: one list and one watch per kind and process.

use crate::{
    legacy_tokens, node_lifecycle, owner,
    pod::{self, Pod},
    root_ca, token_secrets,
    wiring::Wires,
};
use client::{
    Shutdown,
    informer::{Change, IndexFn, Informer, Object, Store},
};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim,
        ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    networking::v1::{IPAddress, ServiceCIDR},
    policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRole,
    storage::v1::StorageClass,
};
use kube::{Api, Client, Resource};
use std::{any::Any, future::Future, pin::Pin};

/// Index of pods by the name of their node.
pub const BY_NODE: &str = "node";
/// Index of objects by the uid of their controlling owner.
pub const BY_OWNER: &str = "owner";
/// Index of objects without a controller by their namespace.
pub const ORPHANS: &str = "orphans";
/// Index of the nodes that aren't ready, all under the empty value.
pub const UNREADY: &str = "unready";
/// Index of EndpointSlices by namespace and name of their Service.
pub const BY_SERVICE: &str = "service";
/// Where kubelets renew their leases.
pub const NODE_LEASES: &str = "kube-node-lease";

/// A kind that can be watched: its group and plural are known when we compile.
pub trait Watched: Object + Resource<DynamicType = ()> {}
impl<K: Object + Resource<DynamicType = ()>> Watched for K {}

/// What each change of a kind is told to; it must not wait.
pub type Handler<K> = fn(&Wires, &Change<K>);

/// Where stores come from: informers, or, in tests, lists.
pub trait Source {
    /// The store of one kind, restricted by a field selector unless that is empty.
    fn store<K: Watched>(
        &mut self,
        indexes: Vec<(&'static str, IndexFn<K>)>,
        fields: &str,
        on_change: Handler<K>,
    ) -> Store<K>;
}

/// Read handles of all informers.
#[derive(Debug, Clone)]
pub struct Caches {
    /// Pods, by node and owner.
    pub pods: Store<Pod>,
    /// ReplicaSets, by owner.
    pub sets: Store<ReplicaSet>,
    /// Deployments.
    pub deployments: Store<Deployment>,
    /// ReplicationControllers.
    pub replication_controllers: Store<ReplicationController>,
    /// StatefulSets.
    pub stateful_sets: Store<StatefulSet>,
    /// DaemonSets.
    pub daemon_sets: Store<DaemonSet>,
    /// ControllerRevisions, by owner.
    pub revisions: Store<ControllerRevision>,
    /// Jobs, by owner.
    pub jobs: Store<Job>,
    /// CronJobs.
    pub cron_jobs: Store<CronJob>,
    /// Services.
    pub services: Store<Service>,
    /// Endpoints.
    pub endpoints: Store<Endpoints>,
    /// EndpointSlices, by Service.
    pub slices: Store<EndpointSlice>,
    /// ServiceCIDRs.
    pub service_ranges: Store<ServiceCIDR>,
    /// IPAddresses.
    pub service_addresses: Store<IPAddress>,
    /// PodDisruptionBudgets.
    pub budgets: Store<PodDisruptionBudget>,
    /// PersistentVolumeClaims.
    pub claims: Store<PersistentVolumeClaim>,
    /// PersistentVolumes.
    pub volumes: Store<PersistentVolume>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Store<HorizontalPodAutoscaler>,
    /// StorageClasses.
    pub classes: Store<StorageClass>,
    /// Secrets of type [`token_secrets::TYPE`].
    pub token_secrets: Store<Secret>,
    /// ClusterRoles.
    pub cluster_roles: Store<ClusterRole>,
    /// ResourceQuotas.
    pub quotas: Store<ResourceQuota>,
    /// Namespaces.
    pub namespaces: Store<Namespace>,
    /// ServiceAccounts.
    pub accounts: Store<ServiceAccount>,
    /// ConfigMaps named [`root_ca::NAME`].
    pub ca_maps: Store<ConfigMap>,
    /// The ConfigMap named [`legacy_tokens::TRACKING`].
    pub token_tracking: Store<ConfigMap>,
    /// Nodes, by whether they are ready.
    pub nodes: Store<Node>,
    /// Leases of all namespaces.
    pub leases: Store<Lease>,
}

impl Caches {
    /// One store a kind, each change wired to the queues of those whom it concerns.
    pub fn from(source: &mut impl Source) -> Caches {
        Caches {
            pods: source.store(pod_indexes(), "", Wires::pod),
            sets: source.store(by_owner(), "", Wires::set),
            deployments: source.store(Vec::new(), "", Wires::deployment),
            replication_controllers: source.store(Vec::new(), "", Wires::replication_controller),
            stateful_sets: source.store(Vec::new(), "", Wires::stateful_set),
            daemon_sets: source.store(Vec::new(), "", Wires::daemon_set),
            revisions: source.store(by_owner(), "", Wires::revision),
            jobs: source.store(by_owner(), "", Wires::job),
            cron_jobs: source.store(Vec::new(), "", Wires::cron_job),
            services: source.store(Vec::new(), "", Wires::service),
            endpoints: source.store(Vec::new(), "", Wires::endpoints),
            slices: source.store(vec![(BY_SERVICE, Box::new(service_of))], "", Wires::slice),
            service_ranges: source.store(Vec::new(), "", Wires::service_range),
            service_addresses: source.store(Vec::new(), "", Wires::service_address),
            budgets: source.store(Vec::new(), "", Wires::budget),
            claims: source.store(Vec::new(), "", Wires::claim),
            volumes: source.store(Vec::new(), "", Wires::volume),
            autoscalers: source.store(Vec::new(), "", Wires::autoscaler),
            classes: source.store(Vec::new(), "", Wires::class),
            token_secrets: source.store(
                Vec::new(),
                &format!("type={}", token_secrets::TYPE),
                Wires::token_secret,
            ),
            cluster_roles: source.store(Vec::new(), "", Wires::cluster_role),
            quotas: source.store(Vec::new(), "", Wires::quota),
            namespaces: source.store(Vec::new(), "", Wires::namespace),
            accounts: source.store(Vec::new(), "", Wires::account),
            ca_maps: source.store(Vec::new(), &named(root_ca::NAME), Wires::ca_map),
            token_tracking: source.store(Vec::new(), &named(legacy_tokens::TRACKING), Wires::tracking),
            nodes: source.store(vec![(UNREADY, Box::new(unready))], "", Wires::node),
            leases: source.store(Vec::new(), "", Wires::lease),
        }
    }
}

/// The field selector of objects of this name.
fn named(name: &str) -> String {
    format!("metadata.name={name}")
}

type Synced = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Informers that feed [`Caches`]; dropped, they end.
pub struct Informers {
    client: Client,
    wires: Wires,
    running: Vec<Box<dyn Any + Send>>,
    synced: Vec<Synced>,
    /// Group and plural of the kinds of which every object is watched.
    pub kinds: Vec<(String, String)>,
}

impl Informers {
    /// None yet; they will tell `wires` what changes.
    pub fn new(client: &Client, wires: &Wires) -> Informers {
        Informers {
            client: client.clone(),
            wires: wires.clone(),
            running: Vec::new(),
            synced: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Waits until each has listed; false if `shutdown` came first.
    pub async fn wait_synced(&mut self, shutdown: &Shutdown) -> bool {
        for synced in self.synced.drain(..) {
            tokio::select! {
                () = synced => {}
                () = shutdown.requested() => return false,
            }
        }
        true
    }

    /// Number of informers, for the log.
    pub fn len(&self) -> usize {
        self.running.len()
    }
}

impl Source for Informers {
    fn store<K: Watched>(
        &mut self,
        indexes: Vec<(&'static str, IndexFn<K>)>,
        fields: &str,
        on_change: Handler<K>,
    ) -> Store<K> {
        let wires = self.wires.clone();
        let mut builder = Informer::builder(Api::all(self.client.clone()))
            .on_change(move |change| on_change(&wires, change));
        for (name, values) in indexes {
            builder = builder.index(name, values);
        }
        if fields.is_empty() {
            self.kinds.push((K::group(&()).into_owned(), K::plural(&()).into_owned()));
        } else {
            builder = builder.fields(fields);
        }
        let informer = builder.start();
        let store = informer.store();
        let waiting = store.clone();
        self.synced.push(Box::pin(async move { waiting.wait_synced().await }));
        self.running.push(Box::new(informer));
        store
    }
}

fn pod_indexes() -> Vec<(&'static str, IndexFn<Pod>)> {
    let node = |pod: &Pod| {
        Some(pod::node_name(pod).to_owned()).filter(|name| !name.is_empty()).into_iter().collect()
    };
    vec![(BY_NODE, Box::new(node)), (BY_OWNER, Box::new(owner_uid)), (ORPHANS, Box::new(orphaned_in))]
}

fn by_owner<K: Watched>() -> Vec<(&'static str, IndexFn<K>)> {
    vec![(BY_OWNER, Box::new(owner_uid)), (ORPHANS, Box::new(orphaned_in))]
}

fn owner_uid<K: Resource>(object: &K) -> Vec<String> {
    owner::controller_of(object).map(|owner| owner.uid.clone()).into_iter().collect()
}

fn orphaned_in<K: Resource>(object: &K) -> Vec<String> {
    let namespace = || object.meta().namespace.clone().unwrap_or_default();
    owner::controller_of(object).is_none().then(namespace).into_iter().collect()
}

fn unready(node: &Node) -> Vec<String> {
    let is_ready = node_lifecycle::ready_of(node) == Some("True");
    if is_ready { Vec::new() } else { vec![String::new()] }
}

/// `NAMESPACE/SERVICE` of an EndpointSlice.
fn service_of(slice: &EndpointSlice) -> Vec<String> {
    crate::wiring::service_of(slice).map(|key| key.to_string()).into_iter().collect()
}
