//! Takes a pod up again after a restart of the agent, from its record and what the runtime found.
//!
//! Always holds: a running container is adopted, never restarted; one that ended meanwhile is treated
//! exactly as if the agent had seen it end.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::config::Backoff;
use crate::pod::ContainerId;
use crate::pod::backoff::Delay;
use crate::pod::container::{ContainerLife, Ended, Run, State};
use crate::pod::effect::{Effect, ProbeKind};
use crate::pod::life::{PodLife, Sandbox, Settings};
use crate::pod::resize::Allocation;
use crate::pod::roles::spec_of;
use crate::pod::volumes::told;
use crate::runtime::{Exit, FoundContainer, FoundState};

impl PodLife {
    /// A pod known from its record (with the status last reported) and the containers of it that the
    /// runtime has. The effects remove records that no one needs.
    pub fn restore(
        pod: Box<Pod>,
        settings: Arc<Settings>,
        found: &[FoundContainer],
        now: Timestamp,
    ) -> (Self, Vec<Effect>) {
        let mut life = Self::new(pod, settings, now);
        let mut out = Vec::new();
        let backoff = life.settings.backoff;
        for container in &mut life.containers {
            let mut runs: Vec<&FoundContainer> =
                found.iter().filter(|f| f.container == container.name).collect();
            runs.sort_by_key(|run| run.attempt);
            adopt(container, &life.pod, &runs, &backoff, now, &mut out);
        }
        if !found.is_empty() && life.containers.iter().any(|c| c.attempts > 0) {
            life.sandbox = Sandbox::Ready;
        }
        life.settle();
        (life, out)
    }
}

fn adopt(
    container: &mut ContainerLife,
    pod: &Pod,
    runs: &[&FoundContainer],
    backoff: &Backoff,
    now: Timestamp,
    out: &mut Vec<Effect>,
) {
    let reported = reported(pod, container);
    let known_restarts = reported.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or(0));
    container.asked_image = reported.map(|status| status.image.clone()).filter(|_| !runs.is_empty());
    if let Some(had) = reported.and_then(|status| status.resources.clone()) {
        container.resources = Allocation::of(Some(&had));
    }
    let Some((newest, older)) = runs.split_last() else { return adopt_lost(container, reported, now) };
    container.attempts = (newest.attempt + 1).max(known_restarts + 1);
    container.image_id.clone_from(&newest.image_id);
    container.mounted = reported.map(told::images).unwrap_or_default();
    take_state(container, pod, newest, reported, now);
    let begun = newest.started_at().unwrap_or(now);
    container.delay = Delay::after_restarts(container.restarts(), begun, backoff);
    if let Some((previous, ancient)) = older.split_last() {
        container.last = ended(previous, now);
        out.extend(ancient.iter().map(|run| Effect::RemoveContainer { id: run.id.clone() }));
    }
}

/// A run that was told of and that the runtime doesn't know: its record went with the power. Nobody saw its end.
fn adopt_lost(container: &mut ContainerLife, reported: Option<&ContainerStatus>, now: Timestamp) {
    let Some(status) = reported else { return };
    let id = status.container_id.as_deref().and_then(|id| id.split_once("://"));
    let Some((_, id)) = id else { return };
    container.attempts = u32::try_from(status.restart_count).unwrap_or(0) + 1;
    let state = status.state.clone().unwrap_or_default();
    let exit = match (state.terminated, state.running.and_then(|running| running.started_at)) {
        // How it ended had been told before.
        (Some(ended), _) => {
            let finished = ended.finished_at.map_or(now, |time| time.0);
            Exit::with_code(ended.exit_code, ended.started_at.map_or(finished, |time| time.0), finished)
        }
        (None, begun) => Exit::unknown(begun.map_or(now, |time| time.0), now),
    };
    container.state = State::Ended(Ended { id: Some(ContainerId(id.to_owned())), exit });
}

fn take_state(
    container: &mut ContainerLife,
    pod: &Pod,
    found: &FoundContainer,
    reported: Option<&ContainerStatus>,
    now: Timestamp,
) {
    match &found.state {
        FoundState::Running { started_at } => {
            let run = Run {
                id: found.id.clone(),
                started_at: *started_at,
                post_start_pending: false,
                stopping: None,
            };
            take_run(container, pod, run, reported);
        }
        FoundState::Exited(_) | FoundState::Created => {
            container.state = ended(found, now).map_or_else(|| container.state.clone(), State::Ended);
        }
    }
}

/// Adopts a running process. What was ready stays ready until a probe says otherwise.
fn take_run(container: &mut ContainerLife, pod: &Pod, run: Run, reported: Option<&ContainerStatus>) {
    let attempts = container.attempts;
    container.started(run, spec_of(pod, &container.name).as_deref());
    container.attempts = attempts;
    let was_started = reported.is_some_and(|status| status.started == Some(true));
    let was_ready = reported.is_some_and(|status| status.ready);
    for (kind, prober) in &mut container.probes {
        let good = match kind {
            ProbeKind::Startup => was_started,
            ProbeKind::Liveness => false,
            ProbeKind::Readiness => was_ready,
        };
        if good {
            prober.assume_success();
        }
    }
}

/// A container that was created and never started has failed to start: the agent died in between.
fn ended(found: &FoundContainer, now: Timestamp) -> Option<Ended> {
    match &found.state {
        FoundState::Running { .. } => None,
        FoundState::Created => {
            let exit = Exit::start_error("the agent ended during the start".to_owned(), now);
            Some(Ended { id: Some(found.id.clone()), exit })
        }
        FoundState::Exited(exit) => Some(Ended { id: Some(found.id.clone()), exit: exit.clone() }),
    }
}

fn reported<'a>(pod: &'a Pod, container: &ContainerLife) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses)
        .flatten();
    all.into_iter().find(|status| status.name == container.name.0)
}
