//! A whole cluster as a value, for tests: an API server's rules over a map, caches that are as late as a test
//! wants, kubelets and a scheduler that act on command. Plans are performed on it without any waiting, so a
//! crash can be put after each write.

mod convergence;
mod objects;
mod owners;
mod script;
mod server;

use crate::{
    caches::{Caches, pod_indexes, set_indexes},
    driver::{Controller, Report},
    garbage_collector::{self, Graph, Node},
    looks::{Accounts, Deployments, NodeLifecycle, PodGc, ReplicaSets, RootCa, TaintEviction},
    namespace::{self, Content, Remaining},
    node_lifecycle::NodeTimes,
    plan::Plan,
};
use client::informer::{Object, ObjectKey, Store};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use server::Server;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

/// Controllers that can be asked for a look, by the name of what they reconcile.
pub const CONTROLLERS: [&str; 9] = [
    "deployments",
    "replicasets",
    "namespaces",
    "accounts",
    "rootca",
    "nodes",
    "evictions",
    "podgc",
    "garbage",
];

/// Group, version, kind, plural, namespaced.
const KINDS: [(&str, &str, &str, &str, bool); 9] = [
    ("", "v1", "ConfigMap", "configmaps", true),
    ("", "v1", "Namespace", "namespaces", false),
    ("", "v1", "Node", "nodes", false),
    ("", "v1", "Pod", "pods", true),
    ("", "v1", "Secret", "secrets", true),
    ("", "v1", "ServiceAccount", "serviceaccounts", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("apps", "v1", "ReplicaSet", "replicasets", true),
    ("coordination.k8s.io", "v1", "Lease", "leases", true),
];

/// The cluster.
pub struct World {
    pub server: Server,
    caches: Caches,
    loops: Loops,
    /// The owner graph and the revision it was built at.
    graph: RefCell<(u64, Rc<Graph>)>,
}

/// What a controller process keeps in memory; a crash makes it anew.
struct Loops {
    sets: ReplicaSets,
    deployments: Deployments,
    nodes: NodeLifecycle,
    pod_gc: PodGc,
}

impl Loops {
    fn new(caches: &Caches) -> Loops {
        Loops {
            sets: ReplicaSets::new(caches.clone()),
            deployments: Deployments::new(caches.clone()),
            nodes: NodeLifecycle::new(caches.clone(), NodeTimes::upstream()),
            pod_gc: PodGc::new(caches.clone(), Duration::from_secs(40)),
        }
    }
}

fn empty<K: Object>() -> Store<K> {
    Store::fixed(Vec::new(), [])
}

impl World {
    pub fn new() -> World {
        let caches = Caches {
            pods: Store::fixed(pod_indexes(), []),
            sets: Store::fixed(set_indexes(), []),
            deployments: empty(),
            namespaces: empty(),
            accounts: empty(),
            ca_maps: empty(),
            nodes: empty(),
            leases: empty(),
        };
        let loops = Loops::new(&caches);
        World { server: Server::new(), caches, loops, graph: RefCell::default() }
    }

    /// Lets every cache catch up.
    pub fn sync(&mut self) {
        for plural in std::mem::take(&mut self.server.changed) {
            self.refill(&plural);
        }
    }

    fn refill(&self, plural: &str) {
        match plural {
            "pods" => self.caches.pods.refill(self.server.typed(plural)),
            "replicasets" => self.caches.sets.refill(self.server.typed(plural)),
            "deployments" => self.caches.deployments.refill(self.server.typed(plural)),
            "namespaces" => self.caches.namespaces.refill(self.server.typed(plural)),
            "serviceaccounts" => self.caches.accounts.refill(self.server.typed(plural)),
            "configmaps" => self.caches.ca_maps.refill(self.server.typed(plural)),
            "nodes" => self.caches.nodes.refill(self.server.typed(plural)),
            "leases" => self.caches.leases.refill(self.server.typed(plural)),
            _ => {}
        }
    }

    /// The controllers' process dies and another starts.
    pub fn crash(&mut self) {
        self.sync();
        self.loops = Loops::new(&self.caches);
    }

    /// Time passes.
    pub fn pass(&mut self, seconds: i64) {
        self.server.now += SignedDuration::from_secs(seconds);
    }

    /// Everything that `controller` could look at.
    pub fn keys(&self, controller: &str) -> Vec<String> {
        let plural = match controller {
            "accounts" | "rootca" => "namespaces",
            "evictions" | "podgc" => "pods",
            "garbage" => {
                return self.server.objects.values().map(|object| text(object, "/metadata/uid")).collect();
            }
            plural => plural,
        };
        self.server.of_kind(plural).map(|(key, _)| key.to_string()).collect()
    }

    /// What `controller` wants done about `key`.
    pub fn look(&self, controller: &str, key: &str) -> Plan {
        let now = self.server.now;
        let object = object_key(key);
        let (caches, loops) = (self.caches.clone(), &self.loops);
        match controller {
            "deployments" => at_once(&loops.deployments, &object, now),
            "replicasets" => at_once(&loops.sets, &object, now),
            "namespaces" => self.look_namespace(key, now),
            "accounts" => at_once(&Accounts(caches), &object, now),
            "rootca" => at_once(&RootCa { caches, ca: "PEM".to_owned() }, &object, now),
            "nodes" => at_once(&loops.nodes, &object, now),
            "evictions" => at_once(&TaintEviction(caches), &object, now),
            "podgc" => at_once(&loops.pod_gc, &object, now),
            "garbage" => garbage_collector::reconcile(key, &self.graph()),
            other => panic!("there is no controller {other}"),
        }
    }

    /// Performs `plan`, at most `writes` of it; returns what became of it.
    pub fn perform(&mut self, controller: &str, key: &str, plan: &Plan, writes: &mut usize) -> Report {
        let report = self.server.perform(plan, writes);
        let (object, now) = (object_key(key), self.server.now);
        match controller {
            "deployments" => self.loops.deployments.performed(&object, &report, now),
            "replicasets" => self.loops.sets.performed(&object, &report, now),
            "nodes" => self.loops.nodes.performed(&object, &report, now),
            _ => {}
        }
        report
    }

    /// Lets all controllers act, each seeing everything, until none wants to; returns what they did.
    /// Stops for good after `writes` writes.
    pub fn settle(&mut self, writes: &mut usize) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..60 {
            let before = self.server.revision;
            for controller in CONTROLLERS {
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
        let Some(object) = self.caches.namespaces.get(&ObjectKey::cluster(name)) else {
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

fn at_once<C: Controller>(controller: &C, key: &C::Key, now: Timestamp) -> Plan {
    controller.look(key, now).now_or_never().expect("it asks nobody").expect("it can't fail")
}

pub fn kind(plural: &str) -> ApiResource {
    let (group, version, kind, plural, _) =
        KINDS.into_iter().find(|row| row.3 == plural).unwrap_or_else(|| panic!("there is no kind {plural}"));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
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
