//! What the node and its containers use: sampled every ten seconds, told in upstream's forms.
//!
//! `meter.rs` makes rates of counters, `operations.rs` counts what the runtime is asked for and `render.rs` makes texts
//! of all, without I/O; `sampler.rs` reads the
//! machine and asks the runtime.

mod meter;
mod operations;
mod render;
mod sampler;
mod stall;

use std::time::Duration;

use jiff::Timestamp;

pub use meter::Meter;
pub use operations::{Operation, Operations};
pub use render::{cadvisor, own, resource, summary};
pub use sampler::{Sampler, machine};
pub use stall::{Stall, Stalls, Waited};

use crate::pod::{ContainerId, ContainerName, PodRef};

/// Processor time and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the start, of all cores together.
    pub cpu: Duration,
    /// All memory that is held for it, in bytes.
    pub memory: u64,
    /// What can't be taken away without hurting, in bytes.
    pub working_set: u64,
    /// What is in memory and not of a file, in bytes.
    pub rss: u64,
    /// Processes.
    pub processes: u64,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Which run.
    pub id: ContainerId,
    /// Whose container.
    pub pod: PodRef,
    /// Its name in the pod.
    pub container: ContainerName,
    /// Its control group below the root of each tree; empty for a plain process.
    pub group: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How much.
    pub usage: Usage,
    /// What it waited for.
    pub stalls: Stalls,
    /// What its whole pod waited for.
    pub pod_stalls: Stalls,
}

/// What the whole machine uses and has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUsage {
    /// How much is used.
    pub usage: Usage,
    /// What was waited for.
    pub stalls: Stalls,
    /// Memory, in bytes.
    pub memory: u64,
    /// Cores.
    pub cores: u64,
    /// When it was started.
    pub booted_at: Timestamp,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The machine.
    pub machine: MachineUsage,
    /// The containers that run.
    pub containers: Vec<ContainerUsage>,
}

/// A sample and how fast its counters grow.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// The newest sample.
    pub sample: Sample,
    /// Billionths of a core that the machine uses; `None` until there is something to compare with.
    pub machine_rate: Option<u64>,
    /// The same of each container, in the sample's order.
    pub rates: Vec<Option<u64>>,
}
