//! What should be: the control loops, one reconcile a file.
//!
//! Each controller is a pure function from an object and a snapshot to a [`plan::Plan`]; one shared driver
//! performs plans. What always holds: a key says what to look at, never what happened; nothing is written
//! without a precondition; a crash after any write leads to the same end. Controllers and everything else
//! meet only through objects of the API server.

mod caches;
mod catalog;
pub mod deployment;
mod driver;
mod expectations;
pub mod garbage_collector;
mod looks;
pub mod namespace;
pub mod node_lifecycle;
mod owner;
pub mod plan;
mod pod;
pub mod pod_gc;
pub mod replicaset;
pub mod root_ca;
pub mod service_account;
pub mod taint_eviction;
mod wiring;
#[cfg(test)]
mod world;

use catalog::Known;
use client::{
    Shutdown,
    backoff::{Backoff, Policy},
    election::{self, ElectionConfig, Leadership},
    informer::Informer,
    recorder,
};
use driver::{Clock, Performer};
use garbage_collector::Graph;
use kube::{Api, Client, api::DynamicObject, core::PartialObjectMeta};
use looks::GarbageCollector;
use node_lifecycle::NodeTimes;
use std::time::Duration;
use wiring::Queues;

/// Name of the lease, as kube-controller-manager's: only one of both acts in a cluster.
pub const LEASE: &str = "kube-controller-manager";

/// How the controllers run.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Who we are and how fast leadership moves.
    pub election: ElectionConfig,
    /// How patient we are with silent nodes.
    pub nodes: NodeTimes,
    /// How long a node must be missing before its pods are removed. Upstream: 40 s.
    pub missing_node_quarantine: Duration,
    /// The cluster's CA as PEM, published in every namespace; none publishes nothing.
    pub root_ca: Option<String>,
    /// Keys that one controller reconciles at the same time. Upstream: 5.
    pub concurrency: usize,
}

impl ControllersConfig {
    /// The timing of kube-controller-manager.
    pub fn upstream(identity: &str) -> ControllersConfig {
        ControllersConfig {
            election: ElectionConfig::upstream(LEASE, identity),
            nodes: NodeTimes::upstream(),
            missing_node_quarantine: Duration::from_secs(40),
            root_ca: None,
            concurrency: 5,
        }
    }

    /// The profile of a local cluster: a dead node is noticed within about 1.5 s, its pods leave at once.
    pub fn fast(identity: &str) -> ControllersConfig {
        let nodes = NodeTimes {
            grace: Duration::from_millis(1500),
            startup_grace: Duration::from_secs(10),
            eviction_rate: 100.0,
            ..NodeTimes::upstream()
        };
        ControllersConfig {
            election: ElectionConfig::fast(LEASE, identity),
            nodes,
            missing_node_quarantine: Duration::from_secs(2),
            concurrency: 16,
            ..ControllersConfig::upstream(identity)
        }
    }
}

/// Runs all controllers whenever this process leads, until `shutdown`.
pub async fn run(client: Client, config: ControllersConfig, shutdown: Shutdown) {
    let election = config.election.clone();
    election::run_when_leader(client.clone(), election, shutdown, |leadership| {
        lead(client.clone(), config.clone(), leadership)
    })
    .await;
}

/// One term. Caches start anew with a quorum list: what an earlier leader wrote is in them.
async fn lead(client: Client, config: ControllersConfig, leadership: Leadership) {
    let shutdown = leadership.ending();
    let known = tokio::select! {
        known = discover(&client) => known,
        () = shutdown.requested() => return,
    };
    let (recorder, events) = recorder::start(client.clone(), LEASE, "");
    let queues = Queues::default();
    let garbage =
        GarbageCollector::new(Graph::new(known.iter().map(|known| (known.kind.clone(), known.namespaced))));
    let others = observe_others(&client, &known, &queues, &garbage);
    let informers = tokio::select! {
        informers = wiring::connect(&client, &queues, &garbage) => informers,
        () = shutdown.requested() => return,
    };
    tracing::info!(kinds = known.len(), caches = informers.len() + others.len(), "controllers run");
    let performer = Performer { client, recorder, leadership, clock: Clock::start() };
    run_all(&config, &informers.caches, &queues, garbage, &others, &performer, &shutdown).await;
    drop(performer);
    events.drain().await;
}

async fn run_all(
    config: &ControllersConfig,
    caches: &caches::Caches,
    queues: &Queues,
    garbage: GarbageCollector,
    others: &[Informer<PartialObjectMeta<DynamicObject>>],
    performer: &Performer,
    shutdown: &Shutdown,
) {
    let many = config.concurrency;
    let sets = looks::ReplicaSets::new(caches.clone());
    let deployments = looks::Deployments::new(caches.clone());
    let namespaces = looks::Namespaces { caches: caches.clone(), client: performer.client.clone() };
    let accounts = looks::Accounts(caches.clone());
    let nodes = looks::NodeLifecycle::new(caches.clone(), config.nodes.clone());
    let evictions = looks::TaintEviction(caches.clone());
    let pod_gc = looks::PodGc::new(caches.clone(), config.missing_node_quarantine);
    tokio::join!(
        driver::run(&sets, &queues.sets, many, performer, shutdown.clone()),
        driver::run(&deployments, &queues.deployments, many, performer, shutdown.clone()),
        driver::run(&namespaces, &queues.namespaces, many, performer, shutdown.clone()),
        driver::run(&accounts, &queues.accounts, many, performer, shutdown.clone()),
        driver::run(&nodes, &queues.nodes, many, performer, shutdown.clone()),
        driver::run(&evictions, &queues.evictions, many, performer, shutdown.clone()),
        driver::run(&pod_gc, &queues.pod_gc, many, performer, shutdown.clone()),
        publish_root_ca(config, caches, queues, performer, shutdown),
        collect_garbage(&garbage, others, queues, many, performer, shutdown),
    );
}

async fn publish_root_ca(
    config: &ControllersConfig,
    caches: &caches::Caches,
    queues: &Queues,
    performer: &Performer,
    shutdown: &Shutdown,
) {
    if let Some(ca) = config.root_ca.clone() {
        let root_ca = looks::RootCa { caches: caches.clone(), ca };
        driver::run(&root_ca, &queues.root_ca, config.concurrency, performer, shutdown.clone()).await;
    }
}

/// The collector starts when every kind has been listed: until then a missing owner means nothing.
async fn collect_garbage(
    garbage: &GarbageCollector,
    others: &[Informer<PartialObjectMeta<DynamicObject>>],
    queues: &Queues,
    concurrency: usize,
    performer: &Performer,
    shutdown: &Shutdown,
) {
    for informer in others {
        tokio::select! {
            () = informer.wait_synced() => {}
            () = shutdown.requested() => return,
        }
    }
    driver::run(garbage, &queues.garbage, concurrency, performer, shutdown.clone()).await;
}

/// Kinds that have an informer of their own, whose changes feed the graph already.
const TYPED: [(&str, &str); 7] = [
    ("", "pods"),
    ("", "namespaces"),
    ("", "nodes"),
    ("", "serviceaccounts"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("coordination.k8s.io", "leases"),
];

/// Informers over the metadata of all other kinds, for the garbage collector only.
fn observe_others(
    client: &Client,
    known: &[Known],
    queues: &Queues,
    garbage: &GarbageCollector,
) -> Vec<Informer<PartialObjectMeta<DynamicObject>>> {
    let others = known
        .iter()
        .filter(|known| !TYPED.contains(&(known.kind.group.as_str(), known.kind.plural.as_str())));
    others
        .map(|known| {
            let (kind, queue, garbage) = (known.kind.clone(), queues.garbage.clone(), garbage.clone());
            Informer::builder(Api::all_with(client.clone(), &known.kind))
                .on_change(move |change| {
                    garbage.observe(&kind, change).into_iter().for_each(|uid| queue.add(uid))
                })
                .start()
        })
        .collect()
}

/// The kinds of the API server; it is asked until it answers.
async fn discover(client: &Client) -> Vec<Known> {
    let mut backoff = Backoff::new(Policy::CONNECT);
    loop {
        match catalog::discover(client).await {
            Ok(known) => return known,
            Err(error) => {
                tracing::debug!(%error, "the API server's kinds are not known yet");
                tokio::time::sleep(backoff.failed(rand::random())).await;
            }
        }
    }
}
