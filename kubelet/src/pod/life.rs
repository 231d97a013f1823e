//! The life of one pod: fed events, hands back effects.
//!
//! An event only changes what is known; what to do about it is decided in one place, `advance`, from
//! what is known. So an event, a timer and a restart of the agent take one path. What begins is in
//! `starting.rs`, what a start came to in `start_outcome.rs`, what probes and hooks say in `health.rs`, what is
//! resized in `resize.rs`, and the end in `winding_down.rs`.
//!
//! Always holds: a decided end is never taken back; restart counts never decrease; a deadline, once
//! set by a deletion, only moves forward in time to an earlier moment; no container is started once
//! the pod is ending.

use std::sync::Arc;
use std::time::Duration;

use api::self_fence;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::config::Backoff;
use crate::pod::container::{ContainerLife, State};
use crate::pod::effect::{Effect, Note, PodEvent};
use crate::pod::phase::{Phase, phase};
use crate::pod::resize::Progress;
use crate::pod::roles::{Role, ephemeral_names, roles};
use crate::pod::time::{later, seconds};
pub use crate::pod::verdict::Verdict;
use crate::pod::{ContainerId, ContainerName, PodRef};
use crate::runtime::Exit;

/// What all pods of a node have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Delays between restarts.
    pub backoff: Backoff,
    /// The node's address: pods in the host network report it as theirs.
    pub host_ip: String,
    /// The runtime's scheme in container ids, such as `amoeba`.
    pub runtime: String,
}

/// The life of one pod.
#[derive(Clone, Debug)]
pub struct PodLife {
    pub(crate) settings: Arc<Settings>,
    pub(crate) pod: Box<Pod>,
    pub(crate) pod_ref: PodRef,
    pub(crate) sandbox: Sandbox,
    /// The pod's own address, once it has one.
    pub(crate) address: Option<String>,
    pub(crate) containers: Vec<ContainerLife>,
    pub(crate) ending: Option<Ending>,
    /// The agent's own verdict, which outweighs the containers' states.
    pub(crate) verdict: Option<Verdict>,
    /// The phase once it is terminal: it stays.
    pub(crate) settled: Option<Phase>,
    pub(crate) start_time: Timestamp,
    /// Ends told before the starts they belong to: a short run may be over before its start is answered.
    pub(crate) early_ends: Vec<(ContainerId, Exit)>,
    pub(crate) resize: Progress,
    /// As last reported; keeps the times of the last transitions.
    pub(crate) conditions: Vec<PodCondition>,
}

/// What the containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Not asked for yet, or to be asked for again at this time.
    Missing {
        /// `None`: at once.
        retry_at: Option<Timestamp>,
    },
    /// The driver is at it.
    Creating,
    /// Containers may be started.
    Ready,
    /// Everything is over.
    Gone,
}

/// A pod on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The strongest reason so far.
    pub why: Why,
    /// When containers that still run are killed.
    pub deadline: Timestamp,
}

/// Why a pod is on its way out, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The agent stops; the pod will be taken up again at its next start.
    AgentStopping,
    /// It has completed, failed, or was refused; only sidecars may remain.
    Over,
    /// It is being deleted.
    Deleted,
    /// Its object is gone.
    Removed,
}

impl PodLife {
    /// A pod this agent sees for the first time.
    pub fn new(pod: Box<Pod>, settings: Arc<Settings>, now: Timestamp) -> Self {
        let containers = roles(&pod).map(|(c, role)| ContainerLife::of(&c, role, now)).collect();
        let start_time = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|t| t.0);
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let pod_ref = PodRef::of(&pod);
        let mut life = Self {
            settings,
            pod,
            pod_ref,
            sandbox: Sandbox::Missing { retry_at: None },
            address: None,
            containers,
            ending: None,
            verdict: None,
            settled: None,
            start_time: start_time.unwrap_or(now),
            early_ends: Vec::new(),
            resize: Progress::default(),
            conditions,
        };
        life.take_up_terminal_phase(now);
        life
    }

    /// A pod that may not run here: it fails without ever having started.
    pub fn rejected(pod: Box<Pod>, settings: Arc<Settings>, verdict: Verdict, now: Timestamp) -> Self {
        let mut life = Self::new(pod, settings, now);
        if life.settled.is_none() {
            life.verdict = Some(verdict.rejecting());
            life.end(Why::Over, now);
        }
        life
    }

    /// A pod that was already over when the agent was restarted is never run again.
    fn take_up_terminal_phase(&mut self, now: Timestamp) {
        let Some(status) = &self.pod.status else { return };
        let phase = status.phase.as_deref().and_then(Phase::parse).filter(|phase| phase.is_terminal());
        if phase.is_none() {
            return;
        }
        self.settled = phase;
        let message = status.message.clone().unwrap_or_default();
        self.verdict = status.reason.as_ref().map(|reason| Verdict::plain(reason, message));
        self.end(Why::Over, now);
    }

    /// Takes an event and says what must be done.
    pub fn step(&mut self, event: PodEvent, now: Timestamp) -> Vec<Effect> {
        let mut out = Vec::new();
        self.learn(event, now, &mut out);
        self.advance(now, &mut out);
        out
    }

    /// The pod as last seen.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Whom this is about.
    pub fn pod_ref(&self) -> &PodRef {
        &self.pod_ref
    }

    /// The containers, init containers first.
    pub fn containers(&self) -> &[ContainerLife] {
        &self.containers
    }

    /// It is on its way out, for whatever reason.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// The pod is on its way out for good: its resources no longer count against newcomers' once over.
    pub fn is_over(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.why >= Why::Over) && !self.is_any_active()
    }

    /// Its object is gone from the API server.
    pub fn is_disowned(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.why == Why::Removed)
    }

    /// No container will ever run again.
    pub fn has_ended(&self) -> bool {
        self.sandbox == Sandbox::Gone
    }

    /// All processes are gone and the object waits for the final delete.
    pub fn may_be_deleted(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.why == Why::Deleted) && self.sandbox == Sandbox::Gone
    }

    /// Nothing of the pod is left anywhere but its records.
    pub fn is_forgotten(&self) -> bool {
        self.is_disowned() && self.sandbox == Sandbox::Gone
    }

    /// The sandbox is being made, and with it the pod's first record.
    pub fn is_preparing(&self) -> bool {
        self.sandbox == Sandbox::Creating
    }

    /// No process of the pod runs and none is being started.
    pub fn is_quiet(&self) -> bool {
        !self.is_any_active() && self.sandbox != Sandbox::Creating
    }

    /// When [`PodEvent::Tick`] is wanted next. What was due at `now` has been done or waits for an event.
    pub fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let containers = self.containers.iter().filter_map(|c| self.container_wake(c));
        let sandbox = match self.sandbox {
            Sandbox::Missing { retry_at } if self.ending.is_none() => retry_at,
            _ => None,
        };
        let own = [self.active_deadline(), self.resize_wake()].into_iter().flatten();
        containers.chain(sandbox).chain(own).filter(|at| *at > now).min()
    }

    fn container_wake(&self, container: &ContainerLife) -> Option<Timestamp> {
        let waits = matches!(container.state, State::Waiting(_));
        if waits && self.ending.is_some() { None } else { container.next_wake() }
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let limit = self.pod.spec.as_ref()?.active_deadline_seconds?;
        self.ending.is_none().then(|| later(self.start_time, seconds(limit)))
    }

    pub(crate) fn is_any_active(&self) -> bool {
        self.containers.iter().any(ContainerLife::is_active)
    }

    pub(crate) fn container_mut(&mut self, name: &ContainerName) -> Option<&mut ContainerLife> {
        self.containers.iter_mut().find(|c| c.name == *name)
    }

    pub(crate) fn index_of_run(&self, id: &ContainerId) -> Option<usize> {
        self.containers.iter().position(|c| c.run().is_some_and(|run| run.id == *id))
    }

    // --- what an event changes ---

    fn learn(&mut self, event: PodEvent, now: Timestamp, out: &mut Vec<Effect>) {
        match event {
            PodEvent::Applied(pod) => self.applied(pod, now),
            PodEvent::Removed => self.end(Why::Removed, now),
            PodEvent::Evicted { verdict, grace } => self.evicted(verdict, grace, now),
            PodEvent::AgentStopping { grace } => self.agent_stopping(grace, now),
            PodEvent::SandboxReady { ip } => self.sandbox_ready(ip),
            PodEvent::SandboxFailed { message } => self.sandbox_failed(message, now, out),
            PodEvent::SandboxLost { container } => self.sandbox_lost(&container, out),
            PodEvent::Started { container, id, at, image, mounted } => {
                self.started(&container, (id, at), &image, mounted, out);
            }
            PodEvent::StartFailed { container, failure, image } => {
                self.start_failed(&container, failure, image.as_ref(), now, out);
            }
            PodEvent::Exited { id, exit } => self.exited(&id, exit),
            PodEvent::Probed { id, kind, outcome } => self.probed(&id, kind, outcome, now, out),
            PodEvent::HookDone { id, hook, outcome } => self.hook_done(&id, hook, outcome, now, out),
            PodEvent::ResizeDecided(decision) => self.resize_decided(decision, out),
            PodEvent::Resized { id, outcome } => self.resized(&id, outcome, now, out),
            PodEvent::ReferencesChanged => self.try_again(now),
            PodEvent::Tick => {}
        }
    }

    fn applied(&mut self, pod: Box<Pod>, now: Timestamp) {
        let changed = asks_for_something_else(&self.pod, &pod);
        self.pod = pod;
        self.take_up_added(now);
        if changed {
            self.try_again(now);
        }
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.end(Why::Deleted, now);
        }
    }

    /// Ephemeral containers join a pod that runs, and are never taken away.
    fn take_up_added(&mut self, now: Timestamp) {
        let known = |name: &&str| !self.containers.iter().any(|c| c.name.0 == **name);
        let added: Vec<ContainerLife> = ephemeral_names(&self.pod)
            .filter(known)
            .map(|name| ContainerLife::new(name, Role::Ephemeral, now))
            .collect();
        self.containers.extend(added);
    }

    pub(crate) fn exited(&mut self, id: &ContainerId, exit: Exit) {
        let starting = self.containers.iter().any(|c| matches!(c.state, State::Starting(_)));
        match self.index_of_run(id) {
            Some(index) => self.containers[index].exited(exit),
            None if starting => self.early_ends.push((id.clone(), exit)),
            // An end of an earlier run, or told twice.
            None => {}
        }
    }

    /// `spec.terminationGracePeriodSeconds`.
    pub(crate) fn spec_grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        seconds(spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30))
    }

    // --- what follows from what is known ---

    fn advance(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.check_active_deadline(now, out);
        self.check_fence(now, out);
        self.check_over(now);
        self.advance_resize(now, out);
        self.press_on_with_stops(now, out);
        if self.ending.is_some() {
            self.wind_down(now, out);
        } else if self.sandbox_is_ready(now, out) {
            self.advance_containers(now, out);
        }
        (0..self.containers.len()).for_each(|index| self.send_probes(index, now, out));
    }

    fn check_active_deadline(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if self.active_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.verdict = Some(Verdict::plain("DeadlineExceeded", message.to_owned()));
        out.push(Effect::Record(Note::normal("DeadlineExceeded", message)));
        self.end(Why::Over, now);
    }

    /// What the node's silence has ended may run elsewhere by now: the pod is over, whatever its restart policy.
    fn check_fence(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let reason =
            |container: &ContainerLife| container.ended().and_then(|ended| ended.exit.reason.clone());
        let fenced = |container: &ContainerLife| reason(container).as_deref() == Some(self_fence::REASON);
        if self.ending.is_none() && self.containers.iter().any(fenced) {
            out.push(Effect::Record(Note::warning(self_fence::REASON, self_fence::MESSAGE)));
            self.evicted(Verdict::fenced(), Duration::ZERO, now);
        }
    }

    fn check_over(&mut self, now: Timestamp) {
        if self.ending.is_none() && self.computed_phase().is_terminal() {
            self.end(Why::Over, now);
        }
    }

    /// The phase as the containers have it, unless it has been settled.
    pub(crate) fn computed_phase(&self) -> Phase {
        let for_good = self.ending.as_ref().is_some_and(|ending| ending.why >= Why::Over);
        let of_containers = || phase(&self.pod, &self.containers, for_good && !self.is_any_active());
        self.settled.unwrap_or_else(|| match self.verdict {
            Some(_) => Phase::Failed,
            None => of_containers(),
        })
    }

    /// Settles the phase once nothing can change it any more.
    pub(crate) fn settle(&mut self) {
        let phase = self.computed_phase();
        if phase.is_terminal() && !self.is_any_active() {
            self.settled = Some(phase);
        }
    }
}

/// Whether a container may be made otherwise by this version of the pod than by the one before.
fn asks_for_something_else(before: &Pod, now: &Pod) -> bool {
    let told = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
    before.spec != now.spec || told(before) != told(now)
}
