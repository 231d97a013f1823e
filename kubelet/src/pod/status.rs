//! What the node reports about a pod, computed from its life and nothing else.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodIP, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::ContainerId;
use crate::pod::admission::qos_class;
use crate::pod::conditions::conditions;
use crate::pod::container::{ContainerLife, Ended, Run, State, Waiting};
use crate::pod::life::{PodLife, Sandbox, Verdict};
use crate::pod::phase::Phase;
use crate::pod::resize::Allocation;
use crate::pod::roles::{Role, spec_of};
use crate::pod::volumes::told;

impl PodLife {
    /// The status as of now. Keeps the times of the conditions' transitions for the next call.
    pub fn status(&mut self, now: Timestamp) -> PodStatus {
        let phase = self.computed_phase();
        let conditions = conditions(self, phase, now);
        self.conditions.clone_from(&conditions);
        let before = self.pod.status.clone().unwrap_or_default();
        let (reported, verdict) = self.reported_phase(phase);
        let [init, app, added] = self.container_statuses();
        let ip = self.pod_ip();
        let host_ip = (!self.was_rejected()).then(|| self.settings.host_ip.clone());
        PodStatus {
            observed_generation: self.pod.metadata.generation,
            phase: Some(reported.as_str().to_owned()),
            conditions: Some(conditions),
            reason: verdict.map(|verdict| verdict.reason.clone()),
            message: verdict.map(|verdict| verdict.message.clone()),
            host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
            host_ip,
            pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
            pod_ip: ip,
            start_time: Some(Time(self.start_time)),
            init_container_statuses: init,
            container_statuses: app,
            ephemeral_container_statuses: added,
            qos_class: Some(qos_class(&self.pod).to_owned()),
            ..before
        }
    }

    /// Nothing is said of where it is and how it goes: it never was here.
    pub(crate) fn was_rejected(&self) -> bool {
        self.verdict.as_ref().is_some_and(Verdict::is_rejection)
    }

    /// A terminal phase and its reason are withheld while anything runs: whoever sees them may take it that
    /// the pod's processes are gone.
    fn reported_phase(&self, phase: Phase) -> (Phase, Option<&Verdict>) {
        if !phase.is_terminal() || !self.is_any_active() {
            return (phase, self.verdict.as_ref());
        }
        let begun = self.containers.iter().any(|c| c.role == Role::App && c.attempts > 0);
        (if begun { Phase::Running } else { Phase::Pending }, None)
    }

    /// Known once there is a sandbox; kept after its end.
    fn pod_ip(&self) -> Option<String> {
        let known = self.pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let has_sandbox = self.sandbox == Sandbox::Ready;
        let host = || has_sandbox.then(|| self.settings.host_ip.clone());
        // A sandbox that was made anew may have another address than was told before.
        self.address.clone().or(known).or_else(host)
    }

    /// Why this container waits, in upstream's words; empty if it doesn't.
    pub fn waiting_reason(&self, container: &ContainerLife) -> String {
        let waiting = self.container_status(container).state.and_then(|state| state.waiting);
        waiting.and_then(|waiting| waiting.reason).unwrap_or_default()
    }

    /// Of init, app and ephemeral containers.
    fn container_statuses(&self) -> [Option<Vec<ContainerStatus>>; 3] {
        let never_began = self.verdict.is_some() && self.containers.iter().all(|c| c.attempts == 0);
        if never_began {
            return [None, None, None];
        }
        let statuses = |list: &str| -> Vec<ContainerStatus> {
            let part = self.containers.iter().filter(|c| c.role.list() == list);
            part.map(|c| self.container_status(c)).collect()
        };
        let unless_empty = |list: &str| Some(statuses(list)).filter(|all| !all.is_empty());
        [unless_empty("initContainers"), Some(statuses("containers")), unless_empty("ephemeralContainers")]
    }

    fn container_status(&self, container: &ContainerLife) -> ContainerStatus {
        let spec = spec_of(&self.pod, &container.name);
        let image =
            container.asked_image.clone().or_else(|| spec.as_ref().and_then(|spec| spec.image.clone()));
        let waiting = if has_init_containers(&self.pod) { "PodInitializing" } else { "ContainerCreating" };
        let shown = shown(&container.state);
        let current = current_id(shown).or_else(|| container.last.as_ref().and_then(|l| l.id.as_ref()));
        ContainerStatus {
            name: container.name.0.clone(),
            state: Some(self.state(shown, waiting)),
            last_state: Some(container.last.as_ref().map(|e| self.terminated(e)).unwrap_or_default()),
            ready: container.is_ready(),
            started: (container.role != Role::Ephemeral).then(|| container.is_started()),
            restart_count: i32::try_from(container.restarts()).unwrap_or(i32::MAX),
            container_id: current.map(|id| self.full_id(id)),
            image_id: if container.attempts > 0 {
                image_id(container, spec.as_deref())
            } else {
                String::new()
            },
            image: image.unwrap_or_default(),
            stop_signal: spec
                .as_ref()
                .and_then(|spec| spec.lifecycle.as_ref())
                .and_then(|lifecycle| lifecycle.stop_signal.clone()),
            volume_mounts: spec.as_deref().and_then(|spec| told::mounts(spec, &container.mounted)),
            allocated_resources: container.resources.allocated.requests.clone(),
            resources: (container.role != Role::Ephemeral).then(|| self.shown_resources(container)),
            ..ContainerStatus::default()
        }
    }

    /// Those of a container that doesn't run are those that it will get.
    fn shown_resources(&self, container: &ContainerLife) -> ResourceRequirements {
        let Allocation { allocated, actual, .. } = &container.resources;
        if container.run().is_some() { actual.clone() } else { allocated.clone() }
    }

    /// With the runtime's scheme, as clients expect it.
    fn full_id(&self, id: &ContainerId) -> String {
        format!("{}://{id}", self.settings.runtime)
    }

    fn state(&self, state: &State, not_yet: &str) -> ContainerState {
        match state {
            State::Waiting(waiting) => waiting_state(waiting, not_yet),
            State::Running(run) => running_state(run),
            State::Ended(ended) => self.terminated(ended),
            State::Starting(_) => ContainerState::default(),
        }
    }

    fn terminated(&self, ended: &Ended) -> ContainerState {
        let exit = &ended.exit;
        let default_reason = if exit.code == 0 { "Completed" } else { "Error" };
        ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: ended.id.as_ref().map(|id| self.full_id(id)),
                exit_code: exit.code,
                started_at: exit.started_at.map(Time),
                finished_at: Some(Time(exit.finished_at)).filter(|_| exit.started_at.is_some()),
                reason: Some(exit.reason.clone().unwrap_or_else(|| default_reason.to_owned())),
                message: exit.message.clone(),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }
    }
}

/// While a container is being started, what was before is what is known.
fn shown(state: &State) -> &State {
    match state {
        State::Starting(before) => shown(before),
        other => other,
    }
}

fn current_id(state: &State) -> Option<&ContainerId> {
    match state {
        State::Running(run) => Some(&run.id),
        State::Ended(ended) => ended.id.as_ref(),
        State::Waiting(_) | State::Starting(_) => None,
    }
}

fn waiting_state(waiting: &Waiting, not_yet: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.reason.word().unwrap_or(not_yet).to_owned()),
            message: waiting.message.clone(),
        }),
        ..ContainerState::default()
    }
}

fn running_state(run: &Run) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning { started_at: Some(Time(run.started_at)) }),
        ..ContainerState::default()
    }
}

/// A host process has no image content to digest, so the name stands for itself.
fn image_id(container: &ContainerLife, spec: Option<&Container>) -> String {
    let name = || spec.and_then(|spec| spec.image.clone()).unwrap_or_default();
    container.image_id.clone().unwrap_or_else(name)
}

fn has_init_containers(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref()).is_some_and(|inits| !inits.is_empty())
}
