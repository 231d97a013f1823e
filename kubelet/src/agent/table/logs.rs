//! What the node's own API asks of the table: which pods there are, and which runs of a container have a log.

use super::PodTable;
use crate::pod::PodRef;
use crate::pod::container::{ContainerLife, State};
use crate::pod::life::PodLife;

/// Which runs of a container have a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// Whose.
    pub pod: PodRef,
    /// The newest run.
    pub current: u32,
    /// Whether its process runs.
    pub running: bool,
    /// The run that ended last, if another one is reported as current or waited for.
    pub previous: Option<u32>,
}

/// Why there is no log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// No such pod here.
    NoPod(String),
    /// Nothing has run yet.
    NotNow(String),
}

impl PodTable {
    /// The pods as last seen, for the node's own API.
    pub fn pods(&self) -> impl Iterator<Item = &PodLife> {
        self.pods.values().map(|entry| &entry.life)
    }

    /// The pod of this name. Of two the older one is on its way out.
    pub fn named(&self, namespace: &str, pod: &str) -> Option<&PodLife> {
        let named = |life: &&PodLife| life.pod_ref().namespace == namespace && life.pod_ref().name == pod;
        self.pods().filter(named).min_by_key(|life| life.is_over())
    }

    /// Which runs of a container have a log.
    pub fn log_target(&self, namespace: &str, pod: &str, container: &str) -> Result<LogTarget, LogRefusal> {
        let life = self.named(namespace, pod);
        let life = life.ok_or_else(|| LogRefusal::NoPod(format!("pod {namespace}/{pod} does not exist")))?;
        let found = life.containers().iter().find(|c| c.name.0 == container);
        let found = found.ok_or_else(|| {
            LogRefusal::NotNow(format!("container {container:?} in pod {pod:?} is not available"))
        })?;
        log_target(life, found)
    }
}

fn log_target(life: &PodLife, container: &ContainerLife) -> Result<LogTarget, LogRefusal> {
    let pod = life.pod_ref().clone();
    let Some(current) = container.attempts.checked_sub(1) else {
        let (name, pod) = (&container.name.0, &pod.name);
        let reason = life.waiting_reason(container);
        return Err(LogRefusal::NotNow(format!(
            "container {name:?} in pod {pod:?} is waiting to start: {reason}"
        )));
    };
    let previous = match container.state {
        State::Waiting(_) => Some(current),
        _ => current.checked_sub(1).filter(|_| container.last.is_some()),
    };
    Ok(LogTarget { pod, current, running: container.run().is_some(), previous })
}
