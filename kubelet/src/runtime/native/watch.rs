//! What a container is doing, from its record, and the wait for its end.

use std::io;

use jiff::Timestamp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::pod::{ContainerId, PodRef};
use crate::process::ProcessIdentity;
use crate::runtime::{Exit, FoundState, RuntimeEvent};
use crate::shim::record::{ContainerDir, Order, RunningRecord};

/// What the container is doing. A record without an end whose shim is gone ended unseen.
pub fn state_of(dir: &ContainerDir, now: Timestamp) -> io::Result<FoundState> {
    if let Some(exit) = dir.exit()? {
        return Ok(FoundState::Exited(exit));
    }
    let Some(record) = dir.running()? else { return Ok(FoundState::Created) };
    if record.shim.open()?.is_some() {
        return Ok(FoundState::Running { started_at: record.started_at });
    }
    Ok(FoundState::Exited(exit_of(dir, &record, now)))
}

/// As [`state_of`], and a start that an earlier agent left in the middle is given up first.
pub fn settled_state(dir: &ContainerDir, now: Timestamp) -> io::Result<FoundState> {
    match state_of(dir, now)? {
        FoundState::Created => {
            dir.cancel()?;
            state_of(dir, now)
        }
        settled => Ok(settled),
    }
}

/// Waits until the shim is gone, which is after it has written down the end, and tells it.
pub async fn end_of(
    id: ContainerId,
    pod: PodRef,
    dir: ContainerDir,
    record: RunningRecord,
    events: mpsc::Sender<RuntimeEvent>,
) {
    if let Err(error) = gone(&record.shim).await {
        // Without a pidfd the end can't be seen: better to say so than to report an end that isn't one.
        tracing::error!(container = %id, %error, "watch the container's shim");
        return;
    }
    let exit = exit_of(&dir, &record, Timestamp::now());
    // The receiver is gone only when the agent ends; its successor reads the record.
    let _ = events.send(RuntimeEvent { pod, id, exit }).await;
}

/// Waits until the process has ended.
pub async fn gone(process: &ProcessIdentity) -> io::Result<()> {
    let Some(process) = process.open()? else { return Ok(()) };
    // SAFETY: the pidfd owns its descriptor, never replaces it, and lives as long as the registration.
    let process =
        unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }.map_err(io::Error::from)?;
    process.readable().await.map(drop)
}

/// What a container left whose supervisor is gone, in a pid namespace that isn't its own, nobody else would end.
fn bury(dir: &ContainerDir) {
    let Ok(Order { config, .. }) = dir.order() else { return };
    let elsewhere = config.isolation.is_some_and(|isolation| isolation.lives_elsewhere());
    if let Some(cgroup) = config.cgroup.filter(|_| elsewhere) {
        cgroup.kill();
        cgroup.remove();
    }
}

fn exit_of(dir: &ContainerDir, record: &RunningRecord, now: Timestamp) -> Exit {
    match dir.exit() {
        Ok(Some(exit)) => exit,
        Ok(None) => {
            bury(dir);
            Exit::unknown(record.started_at, now)
        }
        Err(error) => {
            tracing::error!(path = %dir.path().display(), %error, "read how the container ended");
            Exit::unknown(record.started_at, now)
        }
    }
}
