//! A whole cluster as a value, for tests: an API server's rules over a map, caches that are as late as a test
//! wants, kubelets and a scheduler that act on command. Plans are performed on it without any waiting, so a
//! crash can be put after each write.

mod convergence;
mod objects;
mod owners;
mod perturbation;
mod script;
mod server;

use crate::{
    caches::{Caches, Handler, Source, Watched},
    driver::{Controller, Report},
    garbage_collector::{self, Graph, Node},
    looks::{
        Accounts, Budgets, ClaimBinding, ClaimProtection, EndpointsLists, EphemeralClaims, GarbageCollector,
        JobEnds, JobPods, NodeLifecycle, NodeTtl, PodGc, RoleAggregation, RootCa, TaintEviction,
        TokenSecrets, VolumeBinding, VolumeProtection, Workload,
    },
    namespace::{self, Content, Remaining},
    node_lifecycle::NodeTimes,
    plan::Plan,
    wiring::{Queues, Wires},
};
use client::{
    informer::{IndexFn, ObjectKey, Store},
    queue::WorkQueue,
};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Endpoints, ReplicationController, Service},
};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use server::Server;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

/// Controllers that can be asked for a look, and the kind whose keys they look at.
pub const CONTROLLERS: [(&str, &str); 28] = [
    ("deployments", "deployments"),
    ("replicasets", "replicasets"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("statefulsets", "statefulsets"),
    ("daemonsets", "daemonsets"),
    ("jobs", "jobs"),
    ("jobpods", "pods"),
    ("jobends", "jobs"),
    ("cronjobs", "cronjobs"),
    ("services", "services"),
    ("endpoints", "services"),
    ("mirrors", "endpoints"),
    ("budgets", "poddisruptionbudgets"),
    ("claims", "persistentvolumeclaims"),
    ("claimbinding", "persistentvolumeclaims"),
    ("volumebinding", "persistentvolumes"),
    ("volumes", "persistentvolumes"),
    ("ephemeralclaims", "pods"),
    ("roles", "clusterroles"),
    ("tokens", "secrets"),
    ("nodettl", "nodes"),
    ("namespaces", "namespaces"),
    ("accounts", "namespaces"),
    ("rootca", "namespaces"),
    ("nodes", "nodes"),
    ("evictions", "pods"),
    ("podgc", "pods"),
    ("garbage", ""),
];

/// Group, version, kind, plural, namespaced.
const KINDS: [(&str, &str, &str, &str, bool); 23] = [
    ("", "v1", "ConfigMap", "configmaps", true),
    ("", "v1", "Endpoints", "endpoints", true),
    ("", "v1", "Namespace", "namespaces", false),
    ("", "v1", "Node", "nodes", false),
    ("", "v1", "PersistentVolume", "persistentvolumes", false),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("", "v1", "Pod", "pods", true),
    ("", "v1", "ReplicationController", "replicationcontrollers", true),
    ("", "v1", "Secret", "secrets", true),
    ("", "v1", "Service", "services", true),
    ("", "v1", "ServiceAccount", "serviceaccounts", true),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", true),
    ("apps", "v1", "DaemonSet", "daemonsets", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("apps", "v1", "ReplicaSet", "replicasets", true),
    ("apps", "v1", "StatefulSet", "statefulsets", true),
    ("batch", "v1", "CronJob", "cronjobs", true),
    ("batch", "v1", "Job", "jobs", true),
    ("coordination.k8s.io", "v1", "Lease", "leases", true),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", false),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
];

/// The cluster.
pub struct World {
    pub server: Server,
    process: Process,
    /// The owner graph and the revision it was built at.
    graph: RefCell<(u64, Rc<Graph>)>,
}

/// What a controller process keeps in memory; a crash makes it anew.
struct Process {
    caches: Caches,
    wires: Wires,
    queues: Queues,
    loops: BTreeMap<&'static str, Box<dyn Loop>>,
    lists: Lists,
}

/// A controller of objects, whatever it remembers.
trait Loop {
    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan;
    fn learn(&self, key: &ObjectKey, report: &Report, now: Timestamp);
}

impl<C: Controller<Key = ObjectKey>> Loop for C {
    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        self.look(key, now).now_or_never().expect("it asks nobody").expect("it can't fail")
    }

    fn learn(&self, key: &ObjectKey, report: &Report, now: Timestamp) {
        self.performed(key, report, now);
    }
}

type Refill = Box<dyn Fn(&Server, &Wires)>;

/// Stores that are filled from the server's map, by the plural of their kind.
#[derive(Default)]
struct Lists(BTreeMap<String, Refill>);

impl Source for Lists {
    fn store<K: Watched>(
        &mut self,
        indexes: Vec<(&'static str, IndexFn<K>)>,
        _fields: &str,
        on_change: Handler<K>,
    ) -> Store<K> {
        let store = Store::fixed(indexes, []);
        let filled = store.clone();
        let refill = move |server: &Server, wires: &Wires| {
            let changes = filled.refill(server.typed::<K>(&K::plural(&())));
            changes.iter().for_each(|change| on_change(wires, change));
        };
        self.0.insert(K::plural(&()).into_owned(), Box::new(refill));
        store
    }
}

impl Process {
    fn start() -> Process {
        let queues = Queues::default();
        let graph = Graph::new(KINDS.map(|(_, _, _, plural, namespaced)| (kind(plural), namespaced)));
        let wires = Wires::new(&queues, &GarbageCollector::new(graph));
        let mut lists = Lists::default();
        let caches = Caches::from(&mut lists);
        wires.know(&caches);
        let loops = loops(&caches);
        Process { caches, wires, queues, loops, lists }
    }

    fn queue(&self, controller: &str) -> &WorkQueue<ObjectKey> {
        let queues = &self.queues;
        match controller {
            "deployments" => &queues.deployments,
            "replicasets" => &queues.sets,
            "replicationcontrollers" => &queues.replication_controllers,
            "statefulsets" => &queues.stateful_sets,
            "daemonsets" => &queues.daemon_sets,
            "jobs" => &queues.jobs,
            "jobpods" => &queues.job_pods,
            "jobends" => &queues.job_ends,
            "cronjobs" => &queues.cron_jobs,
            "services" => &queues.services,
            "endpoints" => &queues.endpoints,
            "mirrors" => &queues.mirrors,
            "budgets" => &queues.budgets,
            "claims" => &queues.claims,
            "claimbinding" => &queues.claim_binding,
            "volumebinding" => &queues.volume_binding,
            "volumes" => &queues.volumes,
            "ephemeralclaims" => &queues.ephemeral_claims,
            "roles" => &queues.roles,
            "tokens" => &queues.token_secrets,
            "nodettl" => &queues.node_ttl,
            "namespaces" => &queues.namespaces,
            "accounts" => &queues.accounts,
            "rootca" => &queues.root_ca,
            "nodes" => &queues.nodes,
            "evictions" => &queues.evictions,
            "podgc" => &queues.pod_gc,
            other => panic!("{other} has no queue of objects"),
        }
    }
}

fn loops(caches: &Caches) -> BTreeMap<&'static str, Box<dyn Loop>> {
    let caches = || caches.clone();
    let loops: [(&'static str, Box<dyn Loop>); 26] = [
        ("deployments", Box::new(Workload::<Deployment>::new(caches()))),
        ("replicasets", Box::new(Workload::<ReplicaSet>::new(caches()))),
        ("replicationcontrollers", Box::new(Workload::<ReplicationController>::new(caches()))),
        ("statefulsets", Box::new(Workload::<StatefulSet>::new(caches()))),
        ("daemonsets", Box::new(Workload::<DaemonSet>::new(caches()))),
        ("jobs", Box::new(Workload::<Job>::new(caches()))),
        ("jobpods", Box::new(JobPods(caches()))),
        ("jobends", Box::new(JobEnds(caches()))),
        ("cronjobs", Box::new(Workload::<CronJob>::new(caches()))),
        ("services", Box::new(Workload::<Service>::new(caches()))),
        ("endpoints", Box::new(EndpointsLists(caches()))),
        ("mirrors", Box::new(Workload::<Endpoints>::new(caches()))),
        ("budgets", Box::new(Budgets(caches()))),
        ("claims", Box::new(ClaimProtection(caches()))),
        ("claimbinding", Box::new(ClaimBinding(caches()))),
        ("volumebinding", Box::new(VolumeBinding(caches()))),
        ("volumes", Box::new(VolumeProtection(caches()))),
        ("ephemeralclaims", Box::new(EphemeralClaims(caches()))),
        ("roles", Box::new(RoleAggregation(caches()))),
        ("tokens", Box::new(TokenSecrets(caches()))),
        ("nodettl", Box::new(NodeTtl(caches()))),
        ("accounts", Box::new(Accounts(caches()))),
        ("rootca", Box::new(RootCa { caches: caches(), ca: "PEM".to_owned() })),
        ("nodes", Box::new(NodeLifecycle::new(caches(), NodeTimes::upstream()))),
        ("evictions", Box::new(TaintEviction(caches()))),
        ("podgc", Box::new(PodGc::new(caches(), Duration::from_secs(40)))),
    ];
    loops.into()
}

impl World {
    pub fn new() -> World {
        World { server: Server::new(), process: Process::start(), graph: RefCell::default() }
    }

    /// Lets every cache catch up.
    pub fn sync(&mut self) {
        for plural in std::mem::take(&mut self.server.changed) {
            self.refill(&plural);
        }
    }

    fn refill(&self, plural: &str) {
        if let Some(refill) = self.process.lists.0.get(plural) {
            refill(&self.server, &self.process.wires);
        }
    }

    /// The controllers' process dies and another starts, which lists everything.
    pub fn crash(&mut self) {
        self.process = Process::start();
        self.server.changed.clear();
        self.process.lists.0.values().for_each(|refill| refill(&self.server, &self.process.wires));
    }

    /// Time passes.
    pub fn pass(&mut self, seconds: i64) {
        self.server.now += SignedDuration::from_secs(seconds);
    }

    /// Everything that `controller` could look at.
    pub fn keys(&self, controller: &str) -> Vec<String> {
        if controller == "garbage" {
            return self.server.objects.values().map(|object| text(object, "/metadata/uid")).collect();
        }
        let (_, plural) = CONTROLLERS
            .into_iter()
            .find(|(name, _)| *name == controller)
            .unwrap_or_else(|| panic!("there is no controller {controller}"));
        self.server.of_kind(plural).map(|(key, _)| key.to_string()).collect()
    }

    /// What `controller` wants done about `key`.
    pub fn look(&self, controller: &str, key: &str) -> Plan {
        let now = self.server.now;
        match controller {
            "namespaces" => self.look_namespace(key, now),
            "garbage" => garbage_collector::reconcile(key, &self.graph()),
            other => self.process.loops[other].plan(&object_key(key), now),
        }
    }

    /// Performs `plan`, at most `writes` of it; returns what became of it.
    pub fn perform(&mut self, controller: &str, key: &str, plan: &Plan, writes: &mut usize) -> Report {
        let report = self.server.perform(plan, writes);
        if let Some(it) = self.process.loops.get(controller) {
            it.learn(&object_key(key), &report, self.server.now);
        }
        report
    }

    /// Lets all controllers act, each seeing everything, until none wants to; returns what they did.
    /// Stops for good after `writes` writes.
    pub fn settle(&mut self, writes: &mut usize) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..60 {
            let before = self.server.revision;
            for (controller, _) in CONTROLLERS {
                self.sync();
                for key in self.keys(controller) {
                    let plan = self.look(controller, &key);
                    done.extend(plan.actions.iter().map(|action| format!("{controller}: {action}")));
                    self.perform(controller, &key, &plan, writes);
                    if *writes == 0 {
                        return done;
                    }
                    self.sync();
                }
            }
            if self.server.revision == before {
                return done;
            }
        }
        panic!("the controllers never agree:\n{}", done[done.len().saturating_sub(20)..].join("\n"));
    }

    fn look_namespace(&self, name: &str, now: Timestamp) -> Plan {
        let Some(object) = self.process.caches.namespaces.get(&ObjectKey::cluster(name)) else {
            return Plan::nothing();
        };
        namespace::reconcile(&object, &self.content(name), now)
    }

    fn content(&self, namespace: &str) -> Content {
        let mut kinds: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for ((plural, key), object) in &self.server.objects {
            if key.namespace == namespace {
                kinds.entry(plural.clone()).or_default().push(object);
            }
        }
        let remaining = kinds.into_iter().map(|(plural, objects)| {
            let mut finalizers = BTreeMap::new();
            for finalizer in objects.iter().flat_map(|object| api::object::finalizers(object)) {
                *finalizers.entry(finalizer).or_default() += 1;
            }
            Remaining {
                kind: kind(&plural),
                count: objects.len(),
                undeleted: objects.iter().filter(|object| !api::object::is_deleting(object)).count(),
                finalizers,
            }
        });
        Content { remaining: remaining.collect(), ..Content::default() }
    }

    fn graph(&self) -> Rc<Graph> {
        let mut built = self.graph.borrow_mut();
        if built.0 != self.server.revision {
            *built = (self.server.revision, Rc::new(self.build_graph()));
        }
        built.1.clone()
    }

    fn build_graph(&self) -> Graph {
        let mut graph = Graph::new(KINDS.map(|(_, _, _, plural, namespaced)| (kind(plural), namespaced)));
        for ((plural, _), object) in &self.server.objects {
            let metadata = serde_json::from_value(object["metadata"].clone()).expect("metadata");
            graph.apply(Node::of(&kind(plural), &metadata));
        }
        graph
    }
}

pub fn kind(plural: &str) -> ApiResource {
    let (group, version, kind, plural, _) =
        KINDS.into_iter().find(|row| row.3 == plural).unwrap_or_else(|| panic!("there is no kind {plural}"));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

pub fn kind_is_namespaced(plural: &str) -> bool {
    KINDS.into_iter().any(|row| row.3 == plural && row.4)
}

pub fn object_key(text: &str) -> ObjectKey {
    match text.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::cluster(text),
    }
}

pub fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
