//! What runs containers: a trait shaped like the Container Runtime Interface.
//!
//! A sandbox is what a pod's containers share. A container's life in the runtime is created → running →
//! exited → removed; each run is a new container with its own id. Ends are told as events; nobody polls.

pub mod by_class;
pub mod cri;
pub mod fake;
pub mod native;
pub mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::container::cgroup::{Cgroup, Limits, PodGroup};
use crate::container::{Isolation, Mount};
use crate::image::registry::Login;
use crate::image::{Image, ImageStore};
use crate::node::images::NodeImage;
use crate::pod::{ContainerId, ContainerName, PodRef};
use crate::stats::ContainerUsage;
pub use session::{ByteStream, Input, Output, Session, Streams, TerminalSize};

/// Ends of containers waiting to be taken up. When it is full, the runtime's watchers wait: an end is
/// never dropped.
pub const EVENT_QUEUE: usize = 256;

/// What an event of the runtime says.
#[derive(Clone, Debug)]
pub struct RuntimeEvent {
    /// Whose container.
    pub pod: PodRef,
    /// Which run.
    pub id: ContainerId,
    /// How it ended.
    pub exit: Exit,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n for signal n.
    pub code: i32,
    /// Only where it differs from `Completed` and `Error`.
    pub reason: Option<String>,
    /// The termination message.
    pub message: Option<String>,
    /// When it began; `None` if it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Exit {
    /// Ended by itself or by a signal.
    pub fn with_code(code: i32, started_at: Timestamp, finished_at: Timestamp) -> Self {
        Self { code, reason: None, message: None, started_at: Some(started_at), finished_at }
    }

    /// Was created and could not be started; reported as containerd does.
    pub fn start_error(message: String, now: Timestamp) -> Self {
        Self {
            code: 128,
            reason: Some("StartError".to_owned()),
            message: Some(message),
            started_at: Some(Timestamp::UNIX_EPOCH),
            finished_at: now,
        }
    }

    /// Never ran in a pod that is over.
    pub fn never_located(now: Timestamp) -> Self {
        Self {
            code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            started_at: None,
            finished_at: now,
        }
    }

    /// Ran, and nobody saw how it ended: its host was restarted or its supervisor killed.
    pub fn unknown(started_at: Timestamp, now: Timestamp) -> Self {
        Self {
            code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container ended unseen: its host or its supervisor was stopped".to_owned()),
            started_at: Some(started_at),
            finished_at: now,
        }
    }
}

/// One run to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Whose container.
    pub pod: PodRef,
    /// Its name in the pod.
    pub container: ContainerName,
    /// The container of its pod whose processes it sees as its own (`targetContainerName`).
    #[serde(default)]
    pub target: Option<ContainerName>,
    /// 0 for the first run.
    pub attempt: u32,
    /// As written in the pod.
    pub image: String,
    /// `command`, expanded; empty: the image's own.
    pub command: Vec<String>,
    /// `args`, expanded.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// `workingDir`.
    pub working_dir: Option<PathBuf>,
    /// `runAsUser`.
    pub user: Option<u32>,
    /// `runAsGroup`.
    pub group: Option<u32>,
    /// Where the container leaves its last words, if that is a file.
    pub termination_message_path: Option<PathBuf>,
    /// Take the end of the log where there are no last words and the exit code isn't 0.
    pub termination_message_from_logs: bool,
    /// The signal that asks it to end, by number; `None`: `SIGTERM`.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// Where its pod is counted and limited.
    #[serde(default)]
    pub pod_group: Option<PodGroup>,
    /// Where it is itself.
    #[serde(default)]
    pub cgroup: Option<Cgroup>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// How soon it is killed when the host is out of memory, from -1000 (never) to 1000 (first).
    #[serde(default)]
    pub oom_score_adj: i32,
    /// The pod's own network; `None`: the host's.
    #[serde(default)]
    pub network: Option<NetworkPlace>,
    /// A root of its own; `None`: a plain process of the host.
    #[serde(default)]
    pub isolation: Option<Box<Isolation>>,
    /// `stdin`: its input is open for who attaches.
    #[serde(default)]
    pub stdin: bool,
    /// `stdinOnce`: its input ends with the first who attaches.
    #[serde(default)]
    pub stdin_once: bool,
    /// `tty`: its streams are a terminal.
    #[serde(default)]
    pub tty: bool,
    /// What a runtime reads that makes roots and namespaces by itself.
    #[serde(skip)]
    pub asked: Option<Asked>,
    /// It ends when the node can no longer say that it lives.
    #[serde(default)]
    pub self_fence: bool,
}

/// A container as its pod and its image have it, for a runtime that makes roots and namespaces by itself.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The whole pod.
    pub pod: Arc<Pod>,
    /// What the container runs from.
    pub image: Box<Image>,
    /// Its volumes.
    pub mounts: Vec<Mount>,
}

/// One order is another's equal only if it was made from the very same pod.
impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pod, &other.pod) && self.image == other.image && self.mounts == other.mounts
    }
}
impl Eq for Asked {}

/// A pod's place in the network, as its containers find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlace {
    /// The file that holds the network namespace.
    pub namespace: PathBuf,
    /// The directory with `hosts` and `resolv.conf` for a process without a root of its own.
    pub files: PathBuf,
}

/// What a pod's containers share.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxConfig {
    /// The whole pod, for a runtime that makes its network and its namespaces by itself.
    pub object: Arc<Pod>,
    /// Whose.
    pub pod: PodRef,
    /// Keep semaphores, queues and shared memory in common; a container alone has its own.
    pub shares_ipc: bool,
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// `/etc/hostname`.
    pub hostname: String,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Whatever the node has, the registry is asked what the name means now.
    Always,
    /// If the node hasn't got it.
    IfNotPresent,
    /// The node has it or there is no container.
    Never,
}

/// Which of the images go that no container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// So many that their disk has room again, if it is nearly full.
    WhatIsLacking,
    /// All.
    All,
}

/// How an image may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// When.
    pub policy: PullPolicy,
    /// As whom, by registry.
    pub logins: Vec<(String, Login)>,
}

/// Told that an image is about to be fetched.
pub type Begins<'a> = dyn Fn() + Send + Sync + 'a;

/// What a container will run from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUse {
    /// It has just been fetched, in this time.
    Pulled(Box<Image>, Duration),
    /// The node had the image; `None` where the runtime keeps none.
    Present(Option<Box<Image>>),
    /// There is none: a plain process of the host.
    Plain,
}

impl ImageUse {
    /// The image, if the runtime keeps one.
    pub fn image(&self) -> Option<&Image> {
        match self {
            Self::Present(image) => image.as_deref(),
            Self::Pulled(image, _) => Some(image),
            Self::Plain => None,
        }
    }
}

/// A container the runtime knows from before.
#[derive(Clone, Debug)]
pub struct FoundContainer {
    /// Its run.
    pub id: ContainerId,
    /// Whose container.
    pub pod: PodRef,
    /// Its name in the pod.
    pub container: ContainerName,
    /// 0 for the first run.
    pub attempt: u32,
    /// What it is doing.
    pub state: FoundState,
    /// The identity of its image; `None` for a plain process.
    pub image_id: Option<String>,
}

impl FoundContainer {
    /// When it began.
    pub fn started_at(&self) -> Option<Timestamp> {
        match &self.state {
            FoundState::Created => None,
            FoundState::Running { started_at } => Some(*started_at),
            FoundState::Exited(exit) => exit.started_at,
        }
    }
}

/// What a container is doing.
#[derive(Clone, Debug)]
pub enum FoundState {
    /// Not started, or never known to be.
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// It has ended.
    Exited(Exit),
}

/// What a command run inside a container left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// The exit code; 128 + n for signal n.
    pub code: i32,
    /// Standard output and standard error, at most [`EXEC_OUTPUT_LIMIT`] bytes.
    pub output: Vec<u8>,
}

/// The handler by which a RuntimeClass asks for the runtime within the agent.
pub const NATIVE_HANDLER: &str = "native";

/// What is kept of a probe's output (upstream's limit).
pub const EXEC_OUTPUT_LIMIT: usize = 10 << 10;

/// Why a runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The image can't be had.
    #[error("{0}")]
    Image(String),
    /// The image isn't there and may not be fetched.
    #[error("{0}")]
    NeverPull(String),
    /// The image's name is none.
    #[error("{0}")]
    InvalidImageName(String),
    /// What the pod says of the container can't be had now.
    #[error("{0}")]
    Config(String),
    /// The container can't be made.
    #[error("{0}")]
    Create(String),
    /// The container was made and can't be started.
    #[error("{0}")]
    Start(String),
    /// A command in the container took too long.
    #[error("command timed out after {}s", .0.as_secs_f32())]
    ExecTimeout(Duration),
    /// No such container, or it has ended.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// What the pod's containers shared is no more, as after a restart of the machine.
    #[error("the sandbox of pod {0} is gone")]
    SandboxLost(PodRef),
    /// The system refused.
    #[error("{attempted}")]
    System {
        /// What was attempted.
        attempted: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl RuntimeError {
    /// No runtime of this node goes by that name, in containerd's words.
    pub fn unknown_handler(handler: &str) -> Self {
        Self::Create(format!("failed to get sandbox runtime: no runtime for {handler:?} is configured"))
    }

    /// The error and its causes on one line.
    pub fn chain(&self) -> String {
        match self {
            Self::System { attempted, source } => format!("{attempted}: {source}"),
            other => other.to_string(),
        }
    }
}

/// A container runtime. All methods may be called at once for different containers.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The scheme in container ids, such as `amoeba`.
    fn name(&self) -> &str;

    /// What `nodeInfo.containerRuntimeVersion` reports after the name.
    fn version(&self) -> &str;

    /// Why containers of this pod can't be made as they are written; `None` if they can.
    fn refuses(&self, pod: &Pod, container: &k8s_openapi::api::core::v1::Container) -> Option<String>;

    /// Takes a pod on, by the handler that its RuntimeClass names; empty without a class. Comes before all else
    /// of a pod that is new to this agent.
    ///
    /// # Errors
    /// No such handler is known, as far as it can be told before a sandbox is made.
    fn assign(&self, _pod: &PodRef, handler: &str) -> Result<(), RuntimeError> {
        match handler {
            "" | NATIVE_HANDLER => Ok(()),
            other => Err(RuntimeError::unknown_handler(other)),
        }
    }

    /// The pod's containers are made by another program, which makes their roots and namespaces and gives the
    /// pod its address.
    fn is_remote(&self, _pod: &PodRef) -> bool {
        false
    }

    /// The address that the runtime gave the pod; `None` in the host's network.
    async fn address(&self, _pod: &PodRef) -> Result<Option<String>, RuntimeError> {
        Ok(None)
    }

    /// What the pod's containers shared was there and is no more, as after a restart of the machine.
    async fn has_lost(&self, _pod: &PodRef) -> bool {
        false
    }

    /// `/etc/hosts`, once the pod's address is known, where the runtime has given it.
    async fn set_hosts(&self, _pod: &PodRef, _hosts: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// All containers of the pod have ended for good: what they shared isn't needed any more. Idempotent.
    async fn stop_sandbox(&self, _pod: &PodRef) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Makes what the pod's containers share. Idempotent.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<(), RuntimeError>;

    /// Removes the pod's containers, logs and sandbox. Its processes must have ended. Idempotent.
    async fn remove_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError>;

    /// Finds the image, and fetches it if need be; before that `begins` is called.
    async fn ensure_image(
        &self,
        config: &ContainerConfig,
        fetch: &Fetch,
        begins: &Begins<'_>,
    ) -> Result<ImageUse, RuntimeError>;

    /// The images that it has.
    async fn images(&self) -> Result<Vec<NodeImage>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Why this pod's containers can't see images as directories; `None` if they can.
    fn lacks_image_volumes(&self, _pod: &PodRef) -> Option<String> {
        None
    }

    /// Where this pod's containers find what they share on the host; `None` where they can't see it.
    fn sandbox_dir(&self, _pod: &PodRef) -> Option<PathBuf> {
        None
    }

    /// Where the layers of images are.
    fn image_store(&self) -> Option<&ImageStore> {
        None
    }

    /// Records the container durably, without starting it.
    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId, RuntimeError>;

    /// Starts a created container and returns when its process began.
    async fn start_container(&self, id: &ContainerId) -> Result<Timestamp, RuntimeError>;

    /// Asks the container to end, or kills it if the grace is zero. Returns at once; the end comes as
    /// an event. A container that has ended already is no error.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Changes what a running container may use, and its pod.
    async fn update_container(
        &self,
        id: &ContainerId,
        _limits: &Limits,
        _pod: &PodGroup,
    ) -> Result<(), RuntimeError> {
        Err(RuntimeError::Create(format!("this runtime can't change the limits of container {id}")))
    }

    /// Forgets an ended container and its logs. Idempotent.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// All containers the runtime knows. From this call on the ends of those found running are told as
    /// events.
    async fn list_containers(&self) -> Result<Vec<FoundContainer>, RuntimeError>;

    /// Runs a command inside the container and waits for its end; it is killed when the time is over.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;

    /// Starts a command inside the container and hands out its streams.
    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, RuntimeError>;

    /// Hands out a container's own streams.
    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Session, RuntimeError>;

    /// Connects to a port that the pod listens on, as seen from inside it.
    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError>;

    /// All pods have ended with their agent: nothing that they shared need stay in memory.
    async fn shut_down(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Why it can't run pods now, in upstream's words; nothing if it can.
    ///
    /// # Errors
    /// It doesn't answer.
    async fn troubles(&self) -> Result<Vec<String>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Removes images that no container uses, the longest unused first. Returns the bytes that are free by it.
    async fn collect_images(&self, _what: Collect) -> Result<u64, RuntimeError> {
        Ok(0)
    }

    /// Directories on the disks that hold images. What can't be learnt is missing.
    async fn image_dirs(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// What the containers that run use.
    async fn usage(&self) -> Result<Vec<ContainerUsage>, RuntimeError>;

    /// The ends of containers. There is one receiver; later calls get `None`.
    fn events(&self) -> Option<mpsc::Receiver<RuntimeEvent>>;
}
