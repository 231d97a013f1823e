//! The agent: one loop that takes events, steps the pods' lives, and has the effects carried out.
//!
//! Always holds: the loop never waits for the API server, a process or a disk, so a stuck one of them
//! holds up nothing else; the node's heartbeat runs in a task of its own.

mod action;
pub mod checkpoint;
mod grpc;
pub(crate) mod http_get;
mod images;
mod manifests;
mod network;
mod perform;
pub mod pressure;
mod publisher;
mod references;
mod run_loop;
mod runtime_class;
mod runtime_state;
mod services;
pub mod status_patch;
mod storage;
pub mod table;
mod volumes;
mod weights;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::network::pod::namespace::PodNetworkError;
pub use api::error::chain;
use client::clock::Clock;
use client::informer::Informer;
use client::{Shutdown, recorder};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

use crate::agent::checkpoint::Checkpoints;
use crate::agent::manifests::{Manifests, Mirrors};
use crate::agent::network::{Network, route_services, settle};
use crate::agent::perform::Performer;
use crate::agent::publisher::Publisher;
use crate::agent::references::References;
use crate::agent::run_loop::{RunLoop, Stop};
use crate::agent::runtime_class::RuntimeClasses;
use crate::agent::table::PodTable;
use crate::agent::volumes::Volumes;
use crate::config::{KubeletConfig, RuntimeKind, ServingCertificate};
use crate::credentials::keeper::Keeper;
use crate::eviction::Observation;
use crate::image::{ImageError, ImageStore};
use crate::node::object::Health;
use crate::node::tenure::GivenUp;
use crate::node::{self, NodeReporter, facts};
use crate::pod::admission::amounts;
use crate::pod::downward::NodeFacts;
use crate::pod::life::Settings;
use crate::runtime::by_class::ByClass;
use crate::runtime::cri::CriRuntime;
use crate::runtime::fake::FakeRuntime;
use crate::runtime::native::{NativeRuntime, own_shim_command};
use crate::runtime::{Runtime, RuntimeError};
use crate::server::auth::{ClusterReviewer, Gate};
use crate::server::{self, Asker, Query, ServerError};
use crate::stats::{Operations, Sampler};

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory can't be used.
    #[error("use the data directory {path}")]
    DataDir {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has the data directory.
    #[error("the data directory {path} is in use by another node agent: stop it or choose another directory")]
    InUse {
        /// The directory.
        path: String,
    },
    /// The images can't be kept.
    #[error("use the image store")]
    Images(#[from] ImageError),
    /// The machine could not be measured.
    #[error("measure the machine")]
    Machine(#[source] io::Error),
    /// Nobody answers at the runtime's socket.
    #[error("use the container runtime of --container-runtime-endpoint (is it running?)")]
    RuntimeEndpoint(#[source] RuntimeError),
    /// The runtime could not be asked for its containers.
    #[error("take up the containers of an earlier run")]
    Runtime(#[from] RuntimeError),
    /// Pods can't have addresses of their own.
    #[error(
        "give pods addresses of their own (it needs root; without --pod-cidr they have the host's network)"
    )]
    Network(#[from] PodNetworkError),
    /// The HTTPS API can't be served.
    #[error("serve the node's API")]
    Server(#[from] ServerError),
}

/// Runs the node until `shutdown` is requested, then drains as the configuration says. Returns early only
/// if it can't start.
pub async fn run(
    client: kube::Client,
    config: KubeletConfig,
    shutdown: impl Into<Shutdown>,
) -> Result<(), RunError> {
    let shutdown = shutdown.into();
    let _lock = lock(&config.data_dir)?;
    let runtime = build_runtime(&config).await?;
    let machine = facts::measure(&config.data_dir).map_err(RunError::Machine)?;
    let listener = bind(&config).await?;
    let port = listener.as_ref().and_then(|(listener, _)| listener.local_addr().ok()).map(|addr| addr.port());
    let reporter = NodeReporter::new(client.clone(), &config, machine, runtime.as_ref(), port);
    let settings = settle(&client, &config, &reporter, &shutdown).await;
    if config.network.is_some() && settings.is_none() {
        return Ok(()); // asked to end before it had a range
    }
    let network = match &settings {
        Some(settings) => Some(Arc::new(Network::open(&config.data_dir, settings).await?)),
        None => None,
    };
    let agent = build(client.clone(), &config, runtime, &reporter, network)?;

    let mut tasks = JoinSet::new();
    if let Some(settings) = settings {
        tasks.spawn(route_services(client.clone(), settings, shutdown.clone()));
    }
    let shown = listener.as_ref().map(|(_, tls)| tls.shown.clone());
    keep_credentials(&mut tasks, &client, &config, shown, reporter.registered(), &shutdown);
    if let Some((listener, tls)) = listener {
        let logs = server::LogSource { data_dir: config.data_dir.clone(), limits: config.logs };
        let (asker, runtime) = (agent.asker.clone(), agent.performer.runtime.clone());
        let sampler = Sampler::new(runtime.clone());
        tasks.spawn(sampler.clone().run(shutdown.clone()));
        let node = config.node_name.0.clone();
        let gate = Gate::new(&node, ClusterReviewer(client));
        let operations = agent.performer.operations.clone();
        let served = server::Served { tls, gate, logs, asker, runtime, sampler, operations, node };
        let patience = server::Patience::default();
        tasks.spawn(server::serve(listener, served, patience, shutdown.clone()));
    }
    if config.cri_socket.is_some() {
        let (runtime, health) = (agent.performer.runtime.clone(), reporter.health());
        tasks.spawn(runtime_state::watch(runtime, config.runtime_patience, health, shutdown.clone()));
    }
    tasks.spawn(node::images::watch(agent.performer.runtime.clone(), reporter.health(), shutdown.clone()));
    tasks.spawn(weights::keep(config.runtime.clone(), shutdown.clone()));
    tasks.spawn(pressure::collect_images(agent.performer.runtime.clone(), shutdown.clone()));
    if !config.eviction.thresholds.is_empty() {
        let runtime = agent.performer.runtime.clone();
        let host = Arc::new(pressure::Host::new(&config.data_dir, runtime.clone()));
        let (thresholds, tell) = (config.eviction.thresholds.clone(), agent.observer.clone());
        tasks.spawn(pressure::watch(host, runtime, thresholds, tell, shutdown.clone()));
    }
    // The node says that it lives until its pods are drained: it does.
    let (drained, speaking) = client::shutdown::channel();
    let keeper = reporter.keeper(agent.give_up.clone());
    tasks.spawn(reporter.clone().heartbeat(keeper, speaking.clone()));
    tasks.spawn(reporter.report(speaking));
    let result = agent.run(&config, shutdown).await;
    drained.request();
    while tasks.join_next().await.is_some() {}
    result
}

/// Renews what the node shows to others, if that is ours to do. `shown`: by the node's API.
fn keep_credentials(
    tasks: &mut JoinSet<()>,
    client: &kube::Client,
    config: &KubeletConfig,
    shown: Option<server::Shown>,
    registered: watch::Receiver<bool>,
    shutdown: &Shutdown,
) {
    let Some(renewal) = config.renewal.clone() else { return };
    let keeper = Keeper::new(client.clone(), &config.node_name.0, renewal);
    tasks.spawn(keeper.clone().keep_client(shutdown.clone()));
    tasks.spawn(keeper.clone().follow_servers(shutdown.clone()));
    let requested =
        config.tls.as_ref().is_some_and(|tls| matches!(tls.certificate, ServingCertificate::Requested));
    if let Some(shown) = shown.filter(|_| requested) {
        let (dir, address) = (config.data_dir.clone(), config.address);
        tasks.spawn(keeper.keep_serving(dir, address, shown, registered, shutdown.clone()));
    }
}

/// The parts of the loop, built and not yet running.
struct Agent {
    client: kube::Client,
    performer: Performer,
    publisher: Publisher,
    table: PodTable,
    /// The Node's uid, once it is registered.
    node_uid: watch::Receiver<Option<String>>,
    queries: mpsc::Receiver<Query>,
    observations: mpsc::Receiver<Observation>,
    /// Where the other end of `observations` is told what was measured.
    observer: mpsc::Sender<Observation>,
    health: watch::Sender<Health>,
    /// Where the other end of `given_up` is told which pods may not begin any more.
    give_up: mpsc::Sender<GivenUp>,
    given_up: mpsc::Receiver<GivenUp>,
    ended: watch::Sender<u64>,
    asker: Asker,
    recorder_task: recorder::RecorderTask,
}

impl Agent {
    async fn run(self, config: &KubeletConfig, shutdown: Shutdown) -> Result<(), RunError> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let fields = format!("spec.nodeName={}", config.node_name);
        let informer = Informer::builder(api).fields(&fields).start();
        let (stop_publishing, publishing) = client::shutdown::channel();
        let publisher = self.publisher.clone();
        let mut tasks = JoinSet::new();
        let following = publishing.clone();
        tasks.spawn(async move { publisher.run(publishing).await });
        let (files, mirrors) = self.follow_files(config, &informer, &mut tasks, following);
        let run_loop = RunLoop {
            performer: self.performer,
            publisher: self.publisher,
            table: self.table,
            queries: self.queries,
            ended: self.ended,
            clock: Clock::start(),
            answers: JoinSet::new(),
            stop: stop(config),
            observations: self.observations,
            health: self.health,
            given_up: self.given_up,
            ending: Vec::new(),
            files,
            mirrors,
            looks: looks(),
            data_dir: config.data_dir.clone(),
        };
        let result = run_loop.run(&informer, shutdown).await;
        stop_publishing.request();
        informer.shutdown().await;
        while tasks.join_next().await.is_some() {}
        self.recorder_task.drain().await;
        result.map_err(RunError::from)
    }
}

impl Agent {
    /// The pods that run from files, and who is told of them to keep their mirrors. Without a folder nobody tells
    /// anything, and what was left by one goes.
    fn follow_files(
        &self,
        config: &KubeletConfig,
        informer: &Informer<Pod>,
        tasks: &mut JoinSet<()>,
        shutdown: Shutdown,
    ) -> (mpsc::Receiver<Vec<Pod>>, watch::Sender<Vec<Pod>>) {
        let (tell, files) = mpsc::channel(1); // who looks waits for the loop
        let (mirrors, wanted) = watch::channel(Vec::new());
        let node = config.node_name.0.clone();
        let keeper = Mirrors {
            client: self.client.clone(),
            node: node.clone(),
            node_uid: self.node_uid.clone(),
            seen: informer.store(),
            wanted,
        };
        tasks.spawn(keeper.keep(shutdown.clone()));
        match &config.static_pods {
            Some(dir) => drop(tasks.spawn(Manifests::new(dir.clone(), &node).watch(tell, shutdown))),
            None => drop(tasks.spawn(async move { drop(tell.send(Vec::new()).await) })),
        }
        (files, mirrors)
    }
}

/// At what pods with a limit have on the disk.
fn looks() -> Interval {
    let mut looks = tokio::time::interval(pressure::INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

fn stop(config: &KubeletConfig) -> Stop {
    match config.node_shutdown {
        Some(critical) => Stop::Node { ordinary: config.shutdown_grace.saturating_sub(critical), critical },
        None if config.stop_pods_on_shutdown => Stop::EndPods(config.shutdown_grace),
        None => Stop::LeavePods,
    }
}

/// One agent at a time: two would fight over the same processes.
fn lock(data_dir: &Path) -> Result<Flock<File>, RunError> {
    let path = data_dir.display().to_string();
    let open = || -> io::Result<File> {
        std::fs::create_dir_all(data_dir)?;
        OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join("agent.lock"))
    };
    let file = open().map_err(|source| RunError::DataDir { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| RunError::InUse { path })
}

async fn build_runtime(config: &KubeletConfig) -> Result<Arc<dyn Runtime>, RunError> {
    let own = own_runtime(config)?;
    let Some(socket) = &config.cri_socket else { return Ok(own) };
    let id = network::id_of(&config.data_dir);
    let other = CriRuntime::connect(socket, &config.data_dir, id, config.logs).await;
    let mut other = other.map_err(RunError::RuntimeEndpoint)?;
    if let Some(authorities) = &config.cri_streaming_ca {
        other = other.trusting(authorities)?;
    }
    Ok(Arc::new(ByClass::new(own, Arc::new(other))))
}

fn own_runtime(config: &KubeletConfig) -> Result<Arc<dyn Runtime>, RunError> {
    match &config.runtime {
        RuntimeKind::Fake(script) => Ok(Arc::new(FakeRuntime::new(script.clone()))),
        RuntimeKind::Native { shim_command } => {
            let command = match shim_command.is_empty() {
                true => own_shim_command().map_err(RunError::Machine)?,
                false => shim_command.clone(),
            };
            let images = ImageStore::open(&config.image_dir)?;
            Ok(Arc::new(NativeRuntime::new(&config.data_dir, images, command, config.logs)))
        }
    }
}

async fn bind(config: &KubeletConfig) -> Result<Option<(TcpListener, server::Tls)>, RunError> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let tls = server::Tls::load(tls)?;
    let bound = TcpListener::bind(config.listen).await;
    let listener = bound.map_err(|source| ServerError::Listen { addr: config.listen, source })?;
    Ok(Some((listener, tls)))
}

fn build(
    client: kube::Client,
    config: &KubeletConfig,
    runtime: Arc<dyn Runtime>,
    reporter: &NodeReporter,
    network: Option<Arc<Network>>,
) -> Result<Agent, RunError> {
    let path = config.data_dir.display().to_string();
    let checkpoints =
        Checkpoints::open(&config.data_dir).map_err(|source| RunError::DataDir { path, source })?;
    let (recorder, recorder_task) = recorder::start(client.clone(), "kubelet", &config.node_name.0);
    let allocatable = reporter.allocatable();
    let settings = Settings {
        backoff: config.backoff,
        host_ip: config.address.to_string(),
        runtime: runtime.name().to_owned(),
    };
    let host_ip = config.address.to_string();
    let node = NodeFacts { pod_ip: host_ip.clone(), host_ip, allocatable: allocatable.clone() };
    let (references, node) = (References::new(client.clone()), Arc::new(node));
    let performer = Performer {
        runtime,
        checkpoints,
        volumes: Volumes::new(&config.data_dir, client.clone(), references.clone(), node.clone()),
        references,
        services: services::Services::new(client.clone(), &config.data_dir),
        node,
        network,
        classes: RuntimeClasses::new(client.clone()),
        recorder,
        pod_max_pids: config.pod_max_pids,
        promised: reporter.promised(),
        operations: Operations::default(),
    };
    let (asker, queries, ended) = server::asker();
    // One look at a time: who measures waits for the loop.
    let (observer, observations) = mpsc::channel(1);
    let (give_up, given_up) = mpsc::channel(1); // the heartbeat, which waits for the answer
    Ok(Agent {
        publisher: Publisher::new(client.clone()),
        client,
        performer,
        table: PodTable::new(Arc::new(settings), amounts(&allocatable))
            .with_eviction(config.eviction.clone())
            .with_sysctls(
                config.allowed_sysctls.clone(),
                config.network.is_some() || config.cri_socket.is_some(),
            ),
        node_uid: reporter.uid(),
        queries,
        observations,
        observer,
        health: reporter.health(),
        give_up,
        given_up,
        ended,
        asker,
        recorder_task,
    })
}
