//! The language between a pod's life and the driver: what happened, and what must be done.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::life::Verdict;
use crate::pod::resize::Decision;
use crate::pod::{ContainerId, ContainerName};
use crate::runtime::{Exit, ImageUse};

/// Something that happened to a pod.
#[derive(Clone, Debug)]
pub enum PodEvent {
    /// The object was created or changed; the newest version.
    Applied(Box<Pod>),
    /// The object is gone from the API server.
    Removed,
    /// The sandbox is ready.
    SandboxReady {
        /// The pod's own address; `None`: the node's.
        ip: Option<String>,
    },
    /// The sandbox could not be made.
    SandboxFailed {
        /// Why.
        message: String,
    },
    /// A requested container was not started: what the pod's containers shared is no more.
    SandboxLost {
        /// Which container.
        container: ContainerName,
    },
    /// A requested container runs.
    Started {
        /// Which container.
        container: ContainerName,
        /// The new run.
        id: ContainerId,
        /// When its process began.
        at: Timestamp,
        /// What it runs from.
        image: ImageUse,
        /// The identities of the images that it mounts, by their volumes' names.
        mounted: BTreeMap<String, String>,
    },
    /// A requested container could not be started.
    StartFailed {
        /// Which container.
        container: ContainerName,
        /// At which step, and why.
        failure: StartFailure,
        /// What it would have run from, if that was found.
        image: Option<ImageUse>,
    },
    /// A run ended.
    Exited {
        /// The run.
        id: ContainerId,
        /// How.
        exit: Exit,
    },
    /// A probe came to its end.
    Probed {
        /// Which run was probed.
        id: ContainerId,
        /// Which probe.
        kind: ProbeKind,
        /// What it came to.
        outcome: ProbeOutcome,
    },
    /// A lifecycle hook returned.
    HookDone {
        /// The run it belongs to.
        id: ContainerId,
        /// Which hook.
        hook: Hook,
        /// `Err` holds what went wrong.
        outcome: Result<(), String>,
    },
    /// Whether the node can give what the spec asks for now.
    ResizeDecided(Decision),
    /// A run was given what it was promised, or not.
    Resized {
        /// The run.
        id: ContainerId,
        /// `Err` holds what went wrong.
        outcome: Result<(), String>,
    },
    /// A ConfigMap or Secret that the pod refers to has appeared or changed.
    ReferencesChanged,
    /// The node can't keep the pod any longer.
    Evicted {
        /// What is reported once it has ended.
        verdict: Verdict,
        /// The longest it may take to end.
        grace: Duration,
    },
    /// The agent is being stopped together with its pods.
    AgentStopping {
        /// The longest any container may take to end.
        grace: Duration,
    },
    /// A moment asked for by [`crate::pod::life::PodLife::next_wake`] has come.
    Tick,
}

/// Why a container could not be started, by the step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// Its configuration can't be resolved: a missing ConfigMap, an impossible mount.
    Config(String),
    /// Its image, or that of one of its volumes, can't be had.
    Image(NeededImage, ImageFailure),
    /// One of its volumes can't be had yet.
    Volume(String),
    /// The runtime refused to create it.
    Create(String),
    /// It was created, and could not be started; counts as a run.
    Run {
        /// The failed run.
        id: ContainerId,
        /// Why.
        message: String,
    },
}

/// What a probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// All is well.
    Success,
    /// All is well as far as anybody asked; an event says what isn't known.
    Warning(String),
    /// It isn't; the event says why.
    Failure(String),
    /// Nobody could be asked: that says nothing of the container, and the next probe decides.
    Error(String),
}

/// An image that a container needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededImage {
    /// As written in the pod.
    pub name: String,
    /// It is that of a volume, so what is told of it is told of the pod.
    pub of_volume: bool,
}

/// Why an image can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFailure {
    /// It can't be fetched.
    Pull(String),
    /// It isn't there and may not be fetched.
    NeverPull(String),
    /// It has no name that could be one.
    InvalidName(String),
}

/// The three probes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds the others back until it succeeds once.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// Its failure takes the pod out of Services.
    Readiness,
}

impl ProbeKind {
    /// As events spell it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// As it stands within a sentence.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// The two lifecycle hooks of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Right after the start; a failure kills the container.
    PostStart,
    /// Before the container is asked to end.
    PreStop,
}

/// Something the driver must do. Every effect but [`Effect::Record`] is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the sandbox; answered by `SandboxReady` or `SandboxFailed`.
    RunSandbox,
    /// Start the container; answered by `Started` or `StartFailed`.
    StartContainer {
        /// Which container.
        container: ContainerName,
        /// 0 for the first run.
        attempt: u32,
    },
    /// Ask the run to end; a zero grace kills it. Its end comes as `Exited`.
    StopContainer {
        /// The run.
        id: ContainerId,
        /// What remains until it will be killed.
        grace: Duration,
    },
    /// Give the run what its container was promised; answered by `Resized`.
    ResizeContainer {
        /// Which container.
        container: ContainerName,
        /// Its run.
        id: ContainerId,
    },
    /// Forget an ended run: its record and its logs.
    RemoveContainer {
        /// The run.
        id: ContainerId,
    },
    /// Probe once; answered by `Probed`.
    Probe {
        /// Which container.
        container: ContainerName,
        /// Its run.
        id: ContainerId,
        /// Which probe.
        kind: ProbeKind,
    },
    /// Call a lifecycle hook; answered by `HookDone`.
    RunHook {
        /// Which container.
        container: ContainerName,
        /// Its run.
        id: ContainerId,
        /// Which hook.
        hook: Hook,
    },
    /// Record an Event about the pod.
    Record(Note),
}

/// An Event to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Warning rather than Normal.
    pub warning: bool,
    /// `reason`, in upstream's words.
    pub reason: Cow<'static, str>,
    /// `message`.
    pub message: String,
    /// The container it is about: becomes `involvedObject.fieldPath`.
    pub container: Option<ContainerName>,
}

impl Note {
    /// A Normal event.
    pub fn normal(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), message: message.into(), container: None }
    }

    /// A Warning event.
    pub fn warning(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.into(), message: message.into(), container: None }
    }

    /// About this container.
    pub fn about(mut self, container: &ContainerName) -> Self {
        self.container = Some(container.clone());
        self
    }
}
