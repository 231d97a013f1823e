//! The life of one pod: fed events, hands back effects.
//!
//! An event only changes what is known; what to do about it is decided in one place, `advance`, from
//! what is known. So an event, a timer and a restart of the agent take one path.
//!
//! Always holds: a decided end is never taken back; restart counts never decrease; a deadline, once
//! set by a deletion, only moves forward in time to an earlier moment; no container is started once
//! the pod is ending.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::config::Backoff;
use crate::pod::container::{
    ContainerLife, Ended, Role, Run, State, WaitReason, ephemeral_names, roles, spec_of,
};
use crate::pod::effect::{Effect, Hook, Note, PodEvent, ProbeKind, StartFailure};
use crate::pod::phase::{Phase, init_failed, phase, restarts_after};
use crate::pod::resize::Progress;
use crate::pod::time::{go_duration, later, seconds, since};
use crate::pod::{ContainerId, ContainerName, PodRef};
use crate::runtime::{Exit, ImageUse};

/// After this long a container whose configuration could not be resolved is tried again, even if no
/// watch has told of a change (upstream's resync of pods).
const CONFIG_RETRY: Duration = Duration::from_secs(60);
/// How long a failed pull is shown before the wait for the next try is (upstream's resync after an error).
const ERR_IMAGE_PULL_SHOWN: Duration = Duration::from_secs(2);
/// Between tries to make a volume of which something is missing, if no watch tells of a change.
const VOLUME_RETRY: Duration = Duration::from_secs(10);
/// Between tries to make a sandbox.
const SANDBOX_RETRY: Duration = Duration::from_secs(5);

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

/// A terminal phase decided by the agent rather than by the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// The node ended a pod that would have gone on: the condition `DisruptionTarget` says so.
    pub disruption: bool,
}

impl Verdict {
    /// The pod's own fault, or nobody's.
    pub fn plain(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, disruption: false }
    }

    /// The node's.
    pub fn disruption(reason: &str, message: String) -> Self {
        Self { disruption: true, ..Self::plain(reason, message) }
    }
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
    pub fn refused(pod: Box<Pod>, settings: Arc<Settings>, verdict: Verdict, now: Timestamp) -> Self {
        let mut life = Self::new(pod, settings, now);
        if life.settled.is_none() {
            life.verdict = Some(verdict);
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
        self.ending.as_ref().is_some_and(|ending| ending.why == Why::Removed) && self.sandbox == Sandbox::Gone
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

    fn index_of_run(&self, id: &ContainerId) -> Option<usize> {
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
            PodEvent::Started { container, id, at, image } => self.started(&container, (id, at), &image, out),
            PodEvent::StartFailed { container, failure, image } => {
                let spec = spec_of(&self.pod, &container).and_then(|spec| spec.image.clone());
                image.iter().for_each(|image| record_image(&container, spec.as_deref(), image, out));
                self.start_failed(&container, failure, now, out);
            }
            PodEvent::Exited { id, exit } => self.exited(&id, exit),
            PodEvent::Probed { id, kind, outcome } => self.probed(&id, kind, outcome, now, out),
            PodEvent::HookDone { id, hook, outcome } => self.hook_done(&id, hook, outcome, now, out),
            PodEvent::ResizeDecided(decision) => self.resize_decided(decision, out),
            PodEvent::Resized { id, outcome } => self.resized(&id, outcome, now, out),
            PodEvent::ReferencesChanged => self.references_changed(now),
            PodEvent::Tick => {}
        }
    }

    fn applied(&mut self, pod: Box<Pod>, now: Timestamp) {
        self.pod = pod;
        self.take_up_added(now);
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

    fn sandbox_ready(&mut self, address: Option<String>) {
        if self.sandbox == Sandbox::Creating {
            self.sandbox = Sandbox::Ready;
            self.address = address;
        }
    }

    fn sandbox_failed(&mut self, message: String, now: Timestamp, out: &mut Vec<Effect>) {
        self.sandbox = Sandbox::Missing { retry_at: Some(later(now, SANDBOX_RETRY)) };
        let text = format!("Failed to create pod sandbox: {message}");
        out.push(Effect::Record(Note::warning("FailedCreatePodSandBox", text)));
    }

    /// As after a restart of the machine: it is made anew, and the container then gets its turn again.
    fn sandbox_lost(&mut self, name: &ContainerName, out: &mut Vec<Effect>) {
        if let Some(container) = self.container_mut(name) {
            container.give_start_up();
        }
        if self.sandbox == Sandbox::Ready {
            self.sandbox = Sandbox::Missing { retry_at: None };
            let text = "Pod sandbox changed, it will be killed and re-created.";
            out.push(Effect::Record(Note::normal("SandboxChanged", text)));
        }
    }

    fn started(
        &mut self,
        name: &ContainerName,
        (id, at): (ContainerId, Timestamp),
        image: &ImageUse,
        out: &mut Vec<Effect>,
    ) {
        let Some(spec) = spec_of(&self.pod, name).map(Cow::into_owned) else { return };
        let Some(container) = self.container_mut(name) else { return };
        let hooked = spec.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        let run = Run { id: id.clone(), started_at: at, post_start_pending: hooked, stopping: None };
        let dropped = container.started(run, Some(&spec));
        container.image_id = image.image().map(|image| image.id.to_string());
        out.extend(dropped.map(|id| Effect::RemoveContainer { id }));
        record_image(name, spec.image.as_deref(), image, out);
        out.push(Effect::Record(Note::normal("Created", "Container created").about(name)));
        out.push(Effect::Record(Note::normal("Started", "Container started").about(name)));
        if let Some(known) = self.early_ends.iter().position(|(early, _)| *early == id) {
            let (_, exit) = self.early_ends.remove(known);
            self.exited(&id, exit);
        } else if hooked {
            out.push(Effect::RunHook { container: name.clone(), id, hook: Hook::PostStart });
        }
    }

    fn start_failed(
        &mut self,
        name: &ContainerName,
        failure: StartFailure,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let image = spec_of(&self.pod, name).and_then(|spec| spec.image.clone()).unwrap_or_default();
        match failure {
            StartFailure::Config(message) => {
                self.refuse(name, WaitReason::CreateContainerConfigError, message, now, out);
            }
            StartFailure::Volume(message) => self.volume_failed(name, message, now, out),
            StartFailure::Create(message) => {
                self.refuse(name, WaitReason::CreateContainerError, message, now, out);
            }
            StartFailure::Image(message) => self.image_failed(name, &image, message, now, out),
            StartFailure::NeverPull(message) => {
                out.push(Effect::Record(Note::warning("ErrImageNeverPull", message.clone()).about(name)));
                self.refuse(name, WaitReason::ErrImageNeverPull, message, now, out);
            }
            StartFailure::InvalidImageName(message) => {
                out.push(Effect::Record(Note::warning("InspectFailed", message.clone()).about(name)));
                self.refuse(name, WaitReason::InvalidImageName, message, now, out);
            }
            StartFailure::Run { id, message } => self.run_failed(name, id, message, now, out),
        }
    }

    fn refuse(
        &mut self,
        name: &ContainerName,
        reason: WaitReason,
        message: String,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let shown = match reason {
            WaitReason::ErrImageNeverPull => "ErrImageNeverPull",
            WaitReason::InvalidImageName => "InvalidImageName",
            _ => &message,
        };
        out.push(Effect::Record(Note::warning("Failed", format!("Error: {shown}")).about(name)));
        if let Some(container) = self.container_mut(name) {
            container.refused(reason, message, Some(later(now, CONFIG_RETRY)));
        }
    }

    /// The container goes on waiting for its creation, as upstream's does.
    fn volume_failed(
        &mut self,
        name: &ContainerName,
        message: String,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Record(Note::warning("FailedMount", message)));
        if let Some(container) = self.container_mut(name) {
            container.awaits_volume(later(now, VOLUME_RETRY));
        }
    }

    /// Shows `ErrImagePull` for a moment, then `ImagePullBackOff` until the next try.
    fn image_failed(
        &mut self,
        name: &ContainerName,
        image: &str,
        message: String,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let backoff = self.settings.backoff;
        let pull = format!("Failed to pull image \"{image}\": {message}");
        out.push(Effect::Record(Note::warning("Failed", pull).about(name)));
        out.push(Effect::Record(Note::warning("Failed", "Error: ErrImagePull").about(name)));
        if let Some(container) = self.container_mut(name) {
            container.image_delay.begin(now, now, &backoff);
            container.refused(WaitReason::ErrImagePull, message, Some(later(now, ERR_IMAGE_PULL_SHOWN)));
        }
    }

    fn run_failed(
        &mut self,
        name: &ContainerName,
        id: ContainerId,
        message: String,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Record(Note::normal("Created", "Container created").about(name)));
        out.push(Effect::Record(Note::warning("Failed", format!("Error: {message}")).about(name)));
        let exit = Exit::start_error(message, now);
        let dropped = self.container_mut(name).and_then(|c| c.failed_to_run(Ended { id: Some(id), exit }));
        out.extend(dropped.map(|id| Effect::RemoveContainer { id }));
    }

    fn exited(&mut self, id: &ContainerId, exit: Exit) {
        let starting = self.containers.iter().any(|c| matches!(c.state, State::Starting(_)));
        match self.index_of_run(id) {
            Some(index) => self.containers[index].exited(exit),
            None if starting => self.early_ends.push((id.clone(), exit)),
            // An end of an earlier run, or told twice.
            None => {}
        }
    }

    fn references_changed(&mut self, now: Timestamp) {
        let waiting = self.containers.iter_mut().filter_map(|c| match &mut c.state {
            State::Waiting(waiting) => Some(waiting),
            _ => None,
        });
        waiting
            .filter(|w| w.reason == WaitReason::CreateContainerConfigError || w.is_for_volume())
            .for_each(|w| w.until = Some(now));
    }

    fn probed(
        &mut self,
        id: &ContainerId,
        kind: ProbeKind,
        outcome: Result<(), String>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let Some(index) = self.index_of_run(id) else { return };
        let container = &mut self.containers[index];
        let name = container.name.clone();
        let changed = container.probed(kind, outcome.is_ok(), now);
        if let Err(output) = outcome {
            let text = format!("{} probe failed: {output}", kind.title());
            out.push(Effect::Record(Note::warning("Unhealthy", text).about(&name)));
        }
        if changed == Some(false) && kind != ProbeKind::Readiness {
            self.kill_unhealthy(index, kind, now, out);
        }
    }

    fn kill_unhealthy(&mut self, index: usize, kind: ProbeKind, now: Timestamp, out: &mut Vec<Effect>) {
        let name = self.containers[index].name.clone();
        let message = format!("Container {name} failed {} probe, will be restarted", kind.word());
        let grace = self.probe_grace(&name, kind);
        self.begin_stop(index, message, later(now, grace), now, out);
    }

    fn probe_grace(&self, name: &ContainerName, kind: ProbeKind) -> Duration {
        let spec = spec_of(&self.pod, name);
        let probe = spec.as_ref().and_then(|spec| match kind {
            ProbeKind::Startup => spec.startup_probe.as_ref(),
            _ => spec.liveness_probe.as_ref(),
        });
        probe.and_then(|p| p.termination_grace_period_seconds).map_or_else(|| self.spec_grace(), seconds)
    }

    /// `spec.terminationGracePeriodSeconds`.
    pub(crate) fn spec_grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        seconds(spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30))
    }

    fn hook_done(
        &mut self,
        id: &ContainerId,
        hook: Hook,
        outcome: Result<(), String>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let Some(index) = self.index_of_run(id) else { return };
        let name = self.containers[index].name.clone();
        let Some(run) = self.containers[index].run_mut() else { return };
        match hook {
            // A failed one leaves the container "not started" for the rest of its short life.
            Hook::PostStart => run.post_start_pending = outcome.is_err(),
            Hook::PreStop => run.stopping.iter_mut().for_each(|s| s.pre_stop_pending = false),
        }
        if outcome.is_ok() {
            return;
        }
        let (reason, text) = match hook {
            Hook::PostStart => ("FailedPostStartHook", "PostStartHook failed"),
            Hook::PreStop => ("FailedPreStopHook", "PreStopHook failed"),
        };
        out.push(Effect::Record(Note::warning(reason, text).about(&name)));
        if hook == Hook::PostStart {
            let deadline = later(now, self.spec_grace());
            self.begin_stop(index, "FailedPostStartHook".to_owned(), deadline, now, out);
        }
    }

    // --- what follows from what is known ---

    fn advance(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.check_active_deadline(now, out);
        self.check_over(now);
        self.advance_resize(now, out);
        self.press_on_with_stops(now, out);
        if self.ending.is_some() {
            self.wind_down(now, out);
        } else if self.sandbox_is_ready(now, out) {
            self.advance_containers(now, out);
        }
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

    fn sandbox_is_ready(&mut self, now: Timestamp, out: &mut Vec<Effect>) -> bool {
        if let Sandbox::Missing { retry_at } = self.sandbox
            && retry_at.is_none_or(|at| at <= now)
        {
            self.sandbox = Sandbox::Creating;
            out.push(Effect::RunSandbox);
        }
        self.sandbox == Sandbox::Ready
    }

    fn advance_containers(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let inits = self.containers.iter().take_while(|c| c.role != Role::App).count();
        let apps = self.containers[inits..].iter().take_while(|c| c.role == Role::App).count();
        // Also into a pod that can't begin one may want to look.
        (inits + apps..self.containers.len()).for_each(|index| self.tend(index, now, out));
        if self.advance_inits(inits, now, out) {
            self.advance_apps(inits..inits + apps, now, out);
        }
        (0..self.containers.len()).for_each(|index| self.send_probes(index, now, out));
    }

    /// Returns whether the app containers may run. Once they have begun, only sidecars are tended.
    fn advance_inits(&mut self, inits: usize, now: Timestamp, out: &mut Vec<Effect>) -> bool {
        let begun = self.containers.iter().any(|c| c.role == Role::App && (c.attempts > 0 || c.is_active()));
        for index in 0..inits {
            let role = self.containers[index].role;
            if role == Role::Sidecar || !begun {
                self.tend(index, now, out);
            }
            if !begun && !self.lets_next_begin(index) {
                return false;
            }
        }
        true
    }

    fn lets_next_begin(&self, index: usize) -> bool {
        let container = &self.containers[index];
        match container.role {
            Role::Init => container.ended().is_some_and(|ended| ended.exit.code == 0),
            _ => container.is_started(),
        }
    }

    /// Apps begin in their order: a postStart hook holds the next one back, as upstream's does, while
    /// a failing container doesn't.
    fn advance_apps(&mut self, apps: Range<usize>, now: Timestamp, out: &mut Vec<Effect>) {
        for index in apps {
            self.tend(index, now, out);
            let container = &self.containers[index];
            let hooked = container.run().is_some_and(|run| run.post_start_pending);
            if container.attempts <= 1 && (hooked || matches!(container.state, State::Starting(_))) {
                return;
            }
        }
    }

    /// Starts one container or sets the time of its next start.
    fn tend(&mut self, index: usize, now: Timestamp, out: &mut Vec<Effect>) {
        match &self.containers[index].state {
            State::Starting(_) | State::Running(_) => {}
            State::Waiting(waiting) if waiting.until.is_some_and(|until| until > now) => {}
            State::Waiting(waiting) if waiting.reason == WaitReason::ErrImagePull => {
                let message = waiting.message.clone().unwrap_or_default();
                self.image_back_off(index, &message, now, out);
            }
            State::Waiting(waiting) => {
                let ended_run = waiting.reason == WaitReason::CrashLoopBackOff;
                self.start(index, ended_run, now, out);
            }
            State::Ended(ended) => {
                let ended = ended.clone();
                self.tend_ended(index, &ended, now, out);
            }
        }
    }

    fn tend_ended(&mut self, index: usize, ended: &Ended, now: Timestamp, out: &mut Vec<Effect>) {
        if self.containers[index].resources.restarts {
            return self.start(index, false, now, out);
        }
        if !restarts_after(&self.pod, &self.containers[index], ended.exit.code) {
            return;
        }
        let next = self.containers[index].next_run(ended, &self.settings.backoff);
        if next <= now {
            self.start(index, true, now, out);
        } else {
            self.back_off(index, ended, next, out);
        }
    }

    fn image_back_off(&mut self, index: usize, message: &str, now: Timestamp, out: &mut Vec<Effect>) {
        let until = self.containers[index].image_delay.due(&self.settings.backoff);
        if until <= now {
            return self.start(index, false, now, out);
        }
        let container = &mut self.containers[index];
        let name = container.name.clone();
        let image = spec_of(&self.pod, &name).and_then(|spec| spec.image.clone()).unwrap_or_default();
        let text = format!("Back-off pulling image \"{image}\"");
        container.refused(
            WaitReason::ImagePullBackOff,
            format!("{text}: ErrImagePull: {message}"),
            Some(until),
        );
        out.push(Effect::Record(Note::normal("BackOff", text).about(&name)));
        out.push(Effect::Record(Note::warning("Failed", "Error: ImagePullBackOff").about(&name)));
    }

    fn back_off(&mut self, index: usize, ended: &Ended, until: Timestamp, out: &mut Vec<Effect>) {
        let container = &mut self.containers[index];
        let (name, pod) = (container.name.clone(), &self.pod_ref);
        let wait = go_duration(since(until, ended.exit.finished_at));
        let message = format!("back-off {wait} restarting failed container={name} pod={pod}");
        let text = format!("Back-off restarting failed container {name} in pod {pod}");
        let dropped = container.back_off(WaitReason::CrashLoopBackOff, message, until);
        out.push(Effect::Record(Note::warning("BackOff", text).about(&name)));
        out.extend(dropped.map(|id| Effect::RemoveContainer { id }));
    }

    /// `again`: a run came before, so the delay of the one after this grows.
    fn start(&mut self, index: usize, again: bool, now: Timestamp, out: &mut Vec<Effect>) {
        assert!(self.ending.is_none(), "nothing is started in a pod that ends");
        let backoff = self.settings.backoff;
        let container = &mut self.containers[index];
        if again {
            let ended = container.ended().or(container.last.as_ref()).map_or(now, |e| e.exit.finished_at);
            container.delay.begin(ended, now, &backoff);
        }
        container.begin_start();
        out.push(Effect::StartContainer { container: container.name.clone(), attempt: container.attempts });
    }

    fn send_probes(&mut self, index: usize, now: Timestamp, out: &mut Vec<Effect>) {
        let container = &mut self.containers[index];
        let kinds = container.take_probe_turns(now);
        let (name, Some(run)) = (container.name.clone(), container.run()) else { return };
        let id = run.id.clone();
        out.extend(kinds.into_iter().map(|kind| Effect::Probe {
            container: name.clone(),
            id: id.clone(),
            kind,
        }));
    }

    /// Settles the phase once nothing can change it any more.
    pub(crate) fn settle(&mut self) {
        let phase = self.computed_phase();
        if phase.is_terminal() && !self.is_any_active() {
            self.settled = Some(phase);
        }
    }

    /// Whether the failure of an init container has ended the pod.
    pub fn init_failed(&self) -> bool {
        init_failed(&self.pod, &self.containers)
    }
}

/// Says what the container runs from.
fn record_image(name: &ContainerName, image: Option<&str>, found: &ImageUse, out: &mut Vec<Effect>) {
    let image = image.unwrap_or_default();
    let note = match found {
        ImageUse::Present(_) => Note::normal(
            "Pulled",
            format!("Container image \"{image}\" already present on machine and can be accessed by the pod"),
        ),
        ImageUse::Pulled(fetched, took) => Note::normal(
            "Pulled",
            format!(
                "Successfully pulled image \"{image}\" in {}. Image size: {} bytes.",
                go_duration(*took),
                fetched.size
            ),
        ),
        ImageUse::Plain => Note::normal(
            "NotIsolated",
            format!(
                "Image \"{image}\" is not on this node: the command runs as a plain process of the host, not \
                 isolated"
            ),
        ),
    };
    out.push(Effect::Record(note.about(name)));
}
