//! Registers the node, keeps its status right, and renews its Lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use client::backoff::{Backoff, Policy};
use client::informer::{Change, Informer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::config::{KubeletConfig, RuntimeKind};
use crate::fence;
use crate::node::facts::Machine;
use crate::node::lease;
use crate::node::object::{Health, NodeDescription};
use crate::node::tenure::{GivenUp, Keeper};
use crate::runtime::Runtime;

/// The longest a renewal may take before it is tried anew: a lost connection must not eat the lease.
const RENEWAL_LIMIT: Duration = Duration::from_secs(10);
/// Changes of the one Node that may wait unread; then its watch waits.
const CHANGES: usize = 16;

/// Speaks for the node. Clones share what they know.
#[derive(Clone)]
pub struct NodeReporter {
    client: kube::Client,
    description: Arc<NodeDescription>,
    /// The Node's uid, once it is registered; it owns the Lease.
    uid: watch::Sender<Option<String>>,
    health: watch::Sender<Health>,
    registered: Arc<watch::Sender<bool>>,
    promised: watch::Sender<Duration>,
}

impl NodeReporter {
    /// `port`: of the node's API, if it is served.
    pub fn new(
        client: kube::Client,
        config: &KubeletConfig,
        machine: Machine,
        runtime: &dyn Runtime,
        port: Option<u16>,
    ) -> Self {
        let description = NodeDescription {
            config: config.clone(),
            machine,
            runtime_version: format!("{}://{}", runtime.name(), runtime.version()),
            port,
        };
        Self {
            client,
            description: Arc::new(description),
            uid: watch::Sender::new(None),
            health: watch::Sender::default(),
            registered: Arc::new(watch::Sender::new(false)),
            promised: watch::Sender::new(Duration::ZERO),
        }
    }

    /// Where the agent says how the node is; a change is reported at once.
    pub fn health(&self) -> watch::Sender<Health> {
        self.health.clone()
    }

    /// What pods may use.
    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        self.description.capacity()
    }

    /// The Node's uid, once it is registered.
    pub fn uid(&self) -> watch::Receiver<Option<String>> {
        self.uid.subscribe()
    }

    /// Turns true when the Node has been registered, or was found.
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }

    fn health_now(&self) -> Health {
        self.health.borrow().clone()
    }

    fn name(&self) -> &str {
        &self.description.config.node_name.0
    }

    /// Who keeps the node's Lease; tells of pods that may not begin any more.
    pub fn keeper(&self, given_up: mpsc::Sender<GivenUp>) -> Keeper {
        let config = &self.description.config;
        let keeps = matches!(config.runtime, RuntimeKind::Native { .. });
        let promise = (fence::path(&config.data_dir), keeps);
        let tell = (self.promised.clone(), given_up);
        Keeper::new(self.client.clone(), self.name(), config.heartbeat.lease_duration, promise, tell)
    }

    /// Until when pods that fence themselves may run, as of [`fence::now`].
    pub fn promised(&self) -> watch::Receiver<Duration> {
        self.promised.subscribe()
    }

    /// Renews the Lease until asked to stop; in a task of its own.
    pub async fn heartbeat(self, mut keeper: Keeper, shutdown: Shutdown) {
        let times = self.description.config.heartbeat;
        let mut ticks = interval(times.renew_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let limit = times.lease_duration.min(RENEWAL_LIMIT);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = ticks.tick() => {}
            }
            let owner = self.uid.borrow().as_ref().map(|uid| lease::owner(self.name(), uid));
            let renewed = tokio::select! {
                () = shutdown.requested() => return,
                renewed = timeout(limit, keeper.renew(owner)) => renewed,
            };
            if let Some(problem) = problem(renewed) {
                tracing::warn!(node = self.name(), problem, "renew the node's lease");
                ticks.reset_at(Instant::now() + times.renew_interval / 5);
            }
        }
    }

    /// Registers the node and sets its status right whenever it isn't.
    pub async fn report(self, shutdown: Shutdown) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let informer =
            Informer::builder(nodes.clone()).fields(&format!("metadata.name={}", self.name())).start();
        let mut changes = informer.subscribe(CHANGES);
        let mut backoff = Backoff::new(Policy::CONNECT);
        // The first report waits for nobody's list: a new node is there at once.
        let mut due = Instant::now();
        let mut health = self.health.subscribe();
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                // The sender is this reporter's own.
                _ = health.changed() => {}
                change = changes.recv() => match change {
                    Some(change) if self.needs_report(&change) => {}
                    Some(_) => continue,
                    None => break,
                },
                () = tokio::time::sleep_until(due) => {}
            }
            due = Instant::now() + self.try_report(&nodes, &mut backoff).await;
        }
        informer.shutdown().await;
    }

    /// Creates the Node if there is none, and says nothing of its state. Tries until it is there.
    pub async fn register(&self) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut backoff = Backoff::new(Policy::CONNECT);
        while let Some(problem) = problem(timeout(RENEWAL_LIMIT, self.register_once(&nodes)).await) {
            tracing::warn!(node = self.name(), problem, "register the node");
            tokio::time::sleep(backoff.failed(rand::random())).await;
        }
    }

    async fn register_once(&self, nodes: &Api<Node>) -> Result<(), kube::Error> {
        if nodes.get_opt(self.name()).await?.is_none() {
            let silent = Node { status: None, ..self.description.node(&self.health_now(), Timestamp::now()) };
            nodes.create(&PostParams::default(), &silent).await?;
        }
        Ok(())
    }

    fn needs_report(&self, change: &Change<Node>) -> bool {
        match change {
            Change::Applied { new, .. } => {
                !self.description.is_reported(new, &self.health_now(), Timestamp::now())
            }
            Change::Deleted(_) => true,
            Change::Synced => false,
        }
    }

    /// Returns the time until the next report.
    async fn try_report(&self, nodes: &Api<Node>, backoff: &mut Backoff) -> Duration {
        let reported = timeout(RENEWAL_LIMIT, self.report_once(nodes)).await;
        match problem(reported) {
            None => {
                backoff.succeeded();
                self.description.config.heartbeat.status_interval
            }
            Some(problem) => {
                tracing::warn!(node = self.name(), problem, "report the node");
                backoff.failed(rand::random())
            }
        }
    }

    /// Creates the Node, or sets right what is there.
    async fn report_once(&self, nodes: &Api<Node>) -> Result<(), kube::Error> {
        let now = Timestamp::now();
        let node = match nodes.get_opt(self.name()).await? {
            Some(node) => {
                self.correct(nodes, &node, now).await?;
                node
            }
            None => {
                nodes.create(&PostParams::default(), &self.description.node(&self.health_now(), now)).await?
            }
        };
        self.uid.send_if_modified(|known| {
            std::mem::replace(known, node.metadata.uid.clone()) != node.metadata.uid
        });
        self.registered.send_replace(true);
        Ok(())
    }

    async fn correct(&self, nodes: &Api<Node>, node: &Node, now: Timestamp) -> Result<(), kube::Error> {
        let params = PatchParams::default();
        if let Some(labels) = self.description.label_patch(node) {
            nodes.patch(self.name(), &params, &Patch::Merge(labels)).await?;
        }
        let status = self.description.status_patch(node, &self.health_now(), now);
        nodes.patch_status(self.name(), &params, &Patch::Strategic(status)).await.map(drop)
    }
}

fn problem<T>(outcome: Result<Result<T, kube::Error>, tokio::time::error::Elapsed>) -> Option<String> {
    match outcome {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(crate::agent::chain(&error)),
        Err(_) => Some("no answer in time".to_owned()),
    }
}
