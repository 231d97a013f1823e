//! The controllers' process: caches that a test fills, and one loop a controller. A crash makes it anew.

use super::{asking, kinds, server::Server};
use crate::{
    caches::{Caches, Handler, Source, Watched},
    driver::{Controller, Report},
    garbage_collector::Graph,
    looks::{
        Accounts, Budgets, ClaimBinding, ClaimProtection, ClusterDns, EndpointsLists, EphemeralClaims,
        GarbageCollector, JobEnds, JobPods, NodeLifecycle, NodeRanges, NodeTtl, PodGc, RoleAggregation,
        RootCa, ServiceRanges, Silences, TaintEviction, TokenSecrets, VolumeBinding, VolumeProtection,
        Workload,
    },
    node_lifecycle::{Census, NodeTimes},
    node_ranges,
    plan::Plan,
    wiring::{Queues, Wires},
};
use api::cidr::Cidr;
use client::{
    informer::{IndexFn, ObjectKey, Store},
    queue::WorkQueue,
};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Endpoints, ReplicationController, Service},
};
use std::time::Duration;

/// What a process of controllers keeps in memory.
pub struct Process {
    pub census: Census,
    pub controllers: Vec<Row>,
    lists: Lists,
    wires: Wires,
}

/// A controller of objects.
pub struct Row {
    pub name: &'static str,
    /// The kind whose keys it looks at, or the only key.
    pub keys: &'static str,
    /// Where changes lead; none if its own small informers, which the world hasn't, would tell it.
    pub queue: Option<WorkQueue<ObjectKey>>,
    pub looks: Box<dyn Loop>,
}

/// A controller, whatever it remembers.
pub trait Loop {
    fn plan(&self, server: &Server, key: &ObjectKey, now: Timestamp) -> Plan;
    fn learn(&self, key: &ObjectKey, report: &Report, now: Timestamp);
}

impl<C: Controller<Key = ObjectKey>> Loop for C {
    fn plan(&self, _: &Server, key: &ObjectKey, now: Timestamp) -> Plan {
        self.look(key, now).now_or_never().expect("it asks nobody").expect("it can't fail")
    }

    fn learn(&self, key: &ObjectKey, report: &Report, now: Timestamp) {
        self.performed(key, report, now);
    }
}

/// Which controllers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Those that act on what somebody makes.
    Usual,
    /// Also those that would act in every cluster, and make scripts long: ranges and names of nodes.
    All,
}

type Refill = Box<dyn Fn(&Server, &Wires)>;

/// Stores that are filled from the server's map, with the plural of their kind.
#[derive(Default)]
pub struct Lists(Vec<(String, Refill)>);

impl Source for Lists {
    fn store<K: Watched>(
        &mut self,
        indexes: Vec<(&'static str, IndexFn<K>)>,
        fields: &str,
        on_change: Handler<K>,
    ) -> Store<K> {
        let (store, fields) = (Store::fixed(indexes, []), fields.to_owned());
        let filled = store.clone();
        let refill = move |server: &Server, wires: &Wires| {
            let changes = filled.refill(server.typed::<K>(&K::plural(&()), &fields));
            changes.iter().for_each(|change| on_change(wires, change));
        };
        self.0.push((K::plural(&()).into_owned(), Box::new(refill)));
        store
    }
}

impl Process {
    pub fn start(parts: Parts) -> Process {
        let queues = Queues::default();
        let graph = Graph::new(kinds::all());
        let census = Census::new(NodeTimes::upstream());
        let wires = Wires::new(&queues, &GarbageCollector::new(graph), &census);
        let mut lists = Lists::default();
        let caches = Caches::from(&mut lists);
        wires.know(&caches);
        let mut controllers = workloads(&caches, &queues);
        controllers.extend(network(&caches, &queues));
        controllers.extend(storage(&caches, &queues));
        controllers.extend(asking::rows(&caches, &queues, &mut lists));
        controllers.extend(policy(&caches, &queues));
        controllers.extend(nodes(&caches, &queues, &census));
        if parts == Parts::All {
            controllers.extend(everywhere(&caches, &queues));
        }
        Process { census, controllers, lists, wires }
    }

    pub fn controller(&self, name: &str) -> &Row {
        let found = self.controllers.iter().find(|row| row.name == name);
        found.unwrap_or_else(|| panic!("there is no controller {name}"))
    }

    /// The caches of a kind become what the server has.
    pub fn refill(&self, plural: &str, server: &Server) {
        for (_, refill) in self.lists.0.iter().filter(|(kind, _)| kind == plural) {
            refill(server, &self.wires);
        }
    }

    /// The same for all kinds.
    pub fn list_everything(&self, server: &Server) {
        self.lists.0.iter().for_each(|(_, refill)| refill(server, &self.wires));
    }
}

pub fn row(
    name: &'static str,
    keys: &'static str,
    queue: &WorkQueue<ObjectKey>,
    looks: impl Loop + 'static,
) -> Row {
    Row { name, keys, queue: Some(queue.clone()), looks: Box::new(looks) }
}

fn workloads(caches: &Caches, queues: &Queues) -> Vec<Row> {
    let caches = || caches.clone();
    vec![
        row("deployments", "deployments", &queues.deployments, Workload::<Deployment>::new(caches())),
        row("replicasets", "replicasets", &queues.sets, Workload::<ReplicaSet>::new(caches())),
        row(
            "replicationcontrollers",
            "replicationcontrollers",
            &queues.replication_controllers,
            Workload::<ReplicationController>::new(caches()),
        ),
        row("statefulsets", "statefulsets", &queues.stateful_sets, Workload::<StatefulSet>::new(caches())),
        row("daemonsets", "daemonsets", &queues.daemon_sets, Workload::<DaemonSet>::new(caches())),
        row("jobs", "jobs", &queues.jobs, Workload::<Job>::new(caches())),
        row("jobpods", "pods", &queues.job_pods, JobPods(caches())),
        row("jobends", "jobs", &queues.job_ends, JobEnds(caches())),
        row("cronjobs", "cronjobs", &queues.cron_jobs, Workload::<CronJob>::new(caches())),
    ]
}

fn network(caches: &Caches, queues: &Queues) -> Vec<Row> {
    let caches = || caches.clone();
    vec![
        row("services", "services", &queues.services, Workload::<Service>::new(caches())),
        row("endpoints", "services", &queues.endpoints, EndpointsLists(caches())),
        row("mirrors", "endpoints", &queues.mirrors, Workload::<Endpoints>::new(caches())),
        row("budgets", "poddisruptionbudgets", &queues.budgets, Budgets(caches())),
        row("serviceranges", "servicecidrs", &queues.service_ranges, ServiceRanges(caches())),
    ]
}

fn storage(caches: &Caches, queues: &Queues) -> Vec<Row> {
    let caches = || caches.clone();
    vec![
        row("claims", "persistentvolumeclaims", &queues.claims, ClaimProtection(caches())),
        row("claimbinding", "persistentvolumeclaims", &queues.claim_binding, ClaimBinding(caches())),
        row("volumebinding", "persistentvolumes", &queues.volume_binding, VolumeBinding(caches())),
        row("volumes", "persistentvolumes", &queues.volumes, VolumeProtection(caches())),
        row("ephemeralclaims", "pods", &queues.ephemeral_claims, EphemeralClaims(caches())),
    ]
}

fn policy(caches: &Caches, queues: &Queues) -> Vec<Row> {
    let caches = || caches.clone();
    vec![
        row("roles", "clusterroles", &queues.roles, RoleAggregation(caches())),
        row("tokens", "secrets", &queues.token_secrets, TokenSecrets(caches())),
        row("nodettl", "nodes", &queues.node_ttl, NodeTtl(caches())),
        row("accounts", "namespaces", &queues.accounts, Accounts(caches())),
        row("rootca", "namespaces", &queues.root_ca, RootCa { caches: caches(), ca: "PEM".to_owned() }),
    ]
}

/// A range for each node, and the slice of `kube-dns`.
fn everywhere(caches: &Caches, queues: &Queues) -> Vec<Row> {
    let cluster = Cidr::v4([10, 244, 0, 0], 16);
    let ranges = node_ranges::NodeRanges::new(cluster, 24, None).expect("there are such ranges");
    vec![
        row("noderanges", "nodes", &queues.node_ranges, NodeRanges::new(caches.clone(), ranges)),
        row("clusterdns", "kube-system/kube-dns", &queues.cluster_dns, ClusterDns(caches.clone())),
    ]
}

fn nodes(caches: &Caches, queues: &Queues, census: &Census) -> Vec<Row> {
    let caches = || caches.clone();
    let silences = Silences::default();
    let lifecycle = NodeLifecycle::new(caches(), census.clone(), NodeTimes::upstream(), silences.clone());
    vec![
        row("nodes", "nodes", &queues.nodes, lifecycle),
        row("evictions", "pods", &queues.evictions, TaintEviction::new(caches())),
        row("podgc", "pods", &queues.pod_gc, PodGc::new(caches(), Duration::from_secs(40), silences)),
    ]
}
