//! What is known of a runtime's containers, shared by the driver and its watcher.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::client::CriClient;
use super::collect::{self, Ledger};
use super::files::PodFiles;
use super::{proto, sandbox};
use crate::config::LogLimits;
use crate::pod::{ContainerId, ContainerName, PodRef};
use crate::runtime::RuntimeEvent;
use crate::runtime::native::log_path;
use crate::stats::Usage;

/// The file of a run's last words.
pub const LAST_WORDS: &str = "termination-log";

/// A container that was made or found.
#[derive(Clone, Debug)]
pub struct Known {
    /// Whose.
    pub pod: PodRef,
    /// Its name there.
    pub container: ContainerName,
    /// Its run.
    pub attempt: u32,
    /// How far it is.
    pub life: Life,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Made, not started.
    Created,
    /// Since when it runs.
    Running(Timestamp),
    /// Its end was told.
    Ended,
}

/// A pod's sandbox as the runtime has it.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The runtime's name for it.
    pub id: String,
    /// Its address; none in the host's network.
    pub address: Option<String>,
    /// What it was made by.
    pub order: proto::PodSandboxConfig,
}

/// What the driver and its watcher have in common.
pub struct Shared {
    /// Asks the runtime.
    pub client: CriClient,
    /// Tells this agent's pods from those of others.
    pub agent: String,
    /// The node's directory.
    pub data_dir: PathBuf,
    /// Of logs.
    pub limits: LogLimits,
    /// Where ends are told.
    pub events: mpsc::Sender<RuntimeEvent>,
    /// The containers that were made or found.
    pub known: Mutex<BTreeMap<ContainerId, Known>>,
    /// Something was asked to end, or has ended: look at once.
    pub look: Notify,
    /// Its images, as far as they were looked at.
    pub images: Mutex<Ledger>,
    /// The runtime tells by itself what becomes of containers.
    pub hears: AtomicBool,
    /// How often to look.
    pub pace: Pace,
}

/// How often to look at the runtime's containers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// While it tells nothing by itself. Upstream looks once a second.
    pub alone: Duration,
    /// While it does. A look then only finds what was missed.
    pub beside_events: Duration,
    /// Before it is asked again to tell.
    pub retry: Duration,
    /// Between two looks for dead sandboxes.
    pub sweep: Duration,
    /// How long an image stays that nobody has used yet.
    pub youth: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            alone: Duration::from_millis(500),
            beside_events: Duration::from_secs(10),
            retry: Duration::from_secs(1),
            sweep: collect::PACE,
            youth: collect::YOUTH,
        }
    }
}

impl Shared {
    /// How long to wait before the next look.
    pub fn pause(&self) -> Duration {
        if self.hears.load(Ordering::Relaxed) { self.pace.beside_events } else { self.pace.alone }
    }

    /// The label that all of this agent's things have.
    pub fn agents_labels(&self) -> BTreeMap<String, String> {
        [(sandbox::AGENT.to_owned(), self.agent.clone())].into()
    }

    /// Those that aren't known to have ended.
    pub fn living(&self) -> Vec<(ContainerId, Known)> {
        let known = self.known.lock();
        let living = known.iter().filter(|(_, known)| known.life != Life::Ended);
        living.map(|(id, known)| (id.clone(), known.clone())).collect()
    }

    /// The run of this container that runs now.
    pub fn running(&self, pod: &PodRef, container: &ContainerName) -> Option<ContainerId> {
        let known = self.known.lock();
        let is = |known: &Known| {
            known.pod.uid == pod.uid && known.container == *container && known.life.started_at().is_some()
        };
        known.iter().find(|(_, known)| is(known)).map(|(id, _)| id.clone())
    }

    /// True if it was thought to live.
    pub fn end(&self, id: &ContainerId) -> bool {
        let mut known = self.known.lock();
        known.get_mut(id).is_some_and(|k| std::mem::replace(&mut k.life, Life::Ended) != Life::Ended)
    }

    /// What is kept of a pod.
    pub fn files(&self, pod: &PodRef) -> PodFiles {
        PodFiles::new(&self.data_dir, pod)
    }

    /// What is kept of a run.
    pub fn run_dir(&self, pod: &PodRef, container: &ContainerName, attempt: u32) -> PathBuf {
        self.files(pod).run(container, attempt)
    }

    /// A run's log.
    pub fn log_path(&self, pod: &PodRef, container: &ContainerName, attempt: u32) -> PathBuf {
        log_path(&self.data_dir, pod, container, attempt)
    }
}

impl Life {
    /// When its process began, if it did.
    pub fn started_at(self) -> Option<Timestamp> {
        match self {
            Self::Running(at) => Some(at),
            Self::Created | Self::Ended => None,
        }
    }
}

/// What a container uses, in our words.
pub fn usage(stats: &proto::ContainerStats) -> Usage {
    let number = |value: Option<&proto::UInt64Value>| value.map_or(0, |value| value.value);
    let (cpu, memory) = (stats.cpu.as_ref(), stats.memory.as_ref());
    let working_set = number(memory.and_then(|memory| memory.working_set_bytes.as_ref()));
    let used = memory.and_then(|memory| memory.usage_bytes.as_ref());
    let rss = memory.and_then(|memory| memory.rss_bytes.as_ref());
    Usage {
        cpu: Duration::from_nanos(number(cpu.and_then(|cpu| cpu.usage_core_nano_seconds.as_ref()))),
        memory: used.map_or(working_set, |used| used.value),
        working_set,
        // Older runtimes don't tell.
        rss: rss.map_or(working_set, |rss| rss.value),
        // The interface tells it for whole pods only, and only by newer runtimes.
        processes: 0,
    }
}
