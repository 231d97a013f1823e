//! Keeps the weights of the groups that pods stand in.

use client::Shutdown;
use tokio::time::MissedTickBehavior;

use crate::agent::pressure::INTERVAL;
use crate::config::RuntimeKind;
use crate::container::cgroup;

/// Weighs again and again, since pods come and go. Only root's containers have groups.
pub async fn keep(runtime: RuntimeKind, shutdown: Shutdown) {
    if !nix::unistd::geteuid().is_root() || !matches!(runtime, RuntimeKind::Native { .. }) {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        let weighed = tokio::task::spawn_blocking(move || cgroup::weigh(cores)).await;
        if let Ok(Err(error)) = weighed {
            tracing::warn!(%error, "weigh the groups of pods");
        }
    }
}
