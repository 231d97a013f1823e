//! One container of a pod through all its runs.
//!
//! Always holds: `attempts` never decreases, at most one run exists at a time, and an event of an
//! earlier run changes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use crate::config::Backoff;
use crate::pod::backoff::Delay;
use crate::pod::effect::{NeededImage, ProbeKind, ProbeOutcome};
use crate::pod::probe::Prober;
use crate::pod::resize::Allocation;
use crate::pod::roles::Role;
use crate::pod::{ContainerId, ContainerName};
use crate::runtime::Exit;

/// One container of a pod.
#[derive(Clone, Debug)]
pub struct ContainerLife {
    /// Its name in the pod.
    pub name: ContainerName,
    /// Its part in the pod.
    pub role: Role,
    /// What it is doing.
    pub state: State,
    /// How the run before the one in `state` ended.
    pub last: Option<Ended>,
    /// Runs begun so far; `restartCount` is one less.
    pub attempts: u32,
    /// The name of the image that the newest run was to be made from; `None` before the first.
    pub asked_image: Option<String>,
    /// Its run is ended and made anew, whatever the restart policy says: another image is asked for.
    pub renews: bool,
    /// The identity of the image that the newest run was made from; `None` for a plain process.
    pub image_id: Option<String>,
    /// The identities of the images that it mounts, by their volumes' names.
    pub mounted: BTreeMap<String, String>,
    /// The image that could not be had when it was last tried.
    pub missing: Option<NeededImage>,
    /// The delay before the next restart.
    pub delay: Delay,
    /// The delay before the next try to get the image.
    pub image_delay: Delay,
    /// Processor and memory.
    pub resources: Allocation,
    /// The startup, liveness and readiness probes of the current run, in this order.
    pub probes: Vec<(ProbeKind, Prober)>,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing runs; the next try comes in its turn or at a known time.
    Waiting(Waiting),
    /// The driver is starting it; the old state is what is reported meanwhile.
    Starting(Box<State>),
    /// Its process runs.
    Running(Run),
    /// Its last run has ended.
    Ended(Ended),
}

/// Why nothing runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Upstream's word for it.
    pub reason: WaitReason,
    /// Details.
    pub message: Option<String>,
    /// When the next try is due; `None`: when its turn comes.
    pub until: Option<Timestamp>,
}

impl Waiting {
    /// What it waits for may be there as soon as something of the pod or of what it refers to has changed.
    pub fn awaits_change(&self) -> bool {
        let for_volume = self.reason == WaitReason::NotYet && self.until.is_some();
        let refused = [WaitReason::CreateContainerConfigError, WaitReason::CreateContainerError];
        for_volume || refused.contains(&self.reason)
    }
}

/// Upstream's words for why a container waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Its turn hasn't come: `ContainerCreating`, or `PodInitializing` where there are init containers.
    NotYet,
    /// It failed and waits before the next run.
    CrashLoopBackOff,
    /// A ConfigMap, Secret, key or mount is missing.
    CreateContainerConfigError,
    /// The runtime refused to create it.
    CreateContainerError,
    /// It could not be started.
    RunContainerError,
    /// The image can't be had.
    ErrImagePull,
    /// The image can't be had, and the next try waits.
    ImagePullBackOff,
    /// The image isn't there and may not be fetched.
    ErrImageNeverPull,
    /// The image's name is none.
    InvalidImageName,
}

impl WaitReason {
    /// As upstream spells it; `None` where that depends on the pod.
    pub fn word(self) -> Option<&'static str> {
        Some(match self {
            Self::NotYet => return None,
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::InvalidImageName => "InvalidImageName",
        })
    }
}

/// A run in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The runtime's identifier.
    pub id: ContainerId,
    /// When its process began.
    pub started_at: Timestamp,
    /// A postStart hook is in flight: the container doesn't count as started yet.
    pub post_start_pending: bool,
    /// Set while it is being ended.
    pub stopping: Option<Stopping>,
}

/// A run being ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// When it will be killed.
    pub deadline: Timestamp,
    /// The deadline never moves before this.
    pub not_before: Timestamp,
    /// A preStop hook is in flight; the request to end follows it.
    pub pre_stop_pending: bool,
    /// It was asked to end.
    pub asked: bool,
    /// It was killed.
    pub killed: bool,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The run; `None` if there never was one.
    pub id: Option<ContainerId>,
    /// How.
    pub exit: Exit,
}

impl ContainerLife {
    /// A container of this specification that has never run.
    pub fn of(spec: &Container, role: Role, now: Timestamp) -> Self {
        Self { resources: Allocation::of(spec.resources.as_ref()), ..Self::new(&spec.name, role, now) }
    }

    /// A container that has never run and asks for nothing.
    pub fn new(name: &str, role: Role, now: Timestamp) -> Self {
        Self {
            name: ContainerName(name.to_owned()),
            role,
            state: State::Waiting(Waiting { reason: WaitReason::NotYet, message: None, until: None }),
            last: None,
            attempts: 0,
            asked_image: None,
            renews: false,
            image_id: None,
            mounted: BTreeMap::new(),
            missing: None,
            delay: Delay::none(now),
            image_delay: Delay::none(now),
            resources: Allocation::default(),
            probes: Vec::new(),
        }
    }

    /// The current run.
    pub fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(run) => Some(run),
            _ => None,
        }
    }

    /// The current run, to change.
    pub fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            State::Running(run) => Some(run),
            _ => None,
        }
    }

    /// A process exists or is being made.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Starting(_) | State::Running(_))
    }

    /// How the last run ended, if it is over.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Runs begun after the first.
    pub fn restarts(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// It runs, its postStart hook is done and its startup probe, if any, has succeeded.
    pub fn is_started(&self) -> bool {
        let startup_passed = match self.probe(ProbeKind::Startup) {
            Some(prober) => prober.result() == Some(true),
            None => true,
        };
        self.run().is_some_and(|run| !run.post_start_pending) && startup_passed
    }

    /// As reported in `ready`.
    pub fn is_ready(&self) -> bool {
        match self.role {
            Role::Init => return self.ended().is_some_and(|ended| ended.exit.code == 0),
            Role::Ephemeral => return false,
            Role::Sidecar | Role::App => {}
        }
        let probed = self.probe(ProbeKind::Readiness).is_none_or(|prober| prober.result() == Some(true));
        self.is_started() && probed
    }

    /// The prober of this kind, if the current run has one.
    pub fn probe(&self, kind: ProbeKind) -> Option<&Prober> {
        self.probes.iter().find(|(k, _)| *k == kind).map(|(_, prober)| prober)
    }

    /// The driver has been asked to start the next run, of this image.
    pub fn begin_start(&mut self, image: Option<String>) {
        self.asked_image = image;
        self.resources.actual = self.resources.allocated.clone();
        self.resources.under_way = None;
        let before = std::mem::replace(
            &mut self.state,
            State::Waiting(Waiting { reason: WaitReason::NotYet, message: None, until: None }),
        );
        self.state = State::Starting(Box::new(before));
    }

    /// The start that was asked for is not to be: all is as before.
    pub fn give_start_up(&mut self) {
        if let State::Starting(before) = &self.state {
            self.state = (**before).clone();
        }
    }

    /// The next run began. Returns the record that no one needs any more.
    pub fn started(&mut self, run: Run, spec: Option<&Container>) -> Option<ContainerId> {
        assert!(self.run().is_none(), "a container has at most one run at a time");
        let dropped = self.settle_previous();
        self.renews = false;
        self.attempts += 1;
        self.resources.restarts = false;
        self.image_delay = Delay::none(run.started_at);
        self.missing = None;
        self.probes = spec.map(|spec| probers(spec, run.started_at)).unwrap_or_default();
        self.state = State::Running(run);
        dropped
    }

    /// The run ended.
    pub fn exited(&mut self, exit: Exit) {
        let id = self.run().map(|run| run.id.clone());
        self.probes.clear();
        self.state = State::Ended(Ended { id, exit });
    }

    /// The try failed before there was a run.
    pub fn refused(&mut self, reason: WaitReason, message: String, until: Option<Timestamp>) {
        self.settle_previous();
        self.renews = false;
        self.state = State::Waiting(Waiting { reason, message: Some(message), until });
    }

    /// The try failed for want of a volume: the container is still being created.
    pub fn awaits_volume(&mut self, until: Timestamp) {
        self.settle_previous();
        self.renews = false;
        self.state =
            State::Waiting(Waiting { reason: WaitReason::NotYet, message: None, until: Some(until) });
    }

    /// A run was created and failed to start. Returns the record that no one needs any more.
    pub fn failed_to_run(&mut self, ended: Ended) -> Option<ContainerId> {
        let dropped = self.settle_previous();
        self.renews = false;
        self.attempts += 1;
        self.resources.restarts = false;
        self.probes.clear();
        self.state = State::Ended(ended);
        dropped
    }

    /// Waits before the next run; the ended one becomes `lastState`.
    pub fn back_off(&mut self, reason: WaitReason, message: String, until: Timestamp) -> Option<ContainerId> {
        let dropped = self.settle_previous();
        self.state = State::Waiting(Waiting { reason, message: Some(message), until: Some(until) });
        dropped
    }

    /// Moves an ended run out of `state` into `last`; the older record is returned for removal, so
    /// that `logs --previous` always finds exactly one.
    fn settle_previous(&mut self) -> Option<ContainerId> {
        let ended = match &self.state {
            State::Ended(ended) => ended.clone(),
            State::Starting(before) => match before.as_ref() {
                State::Ended(ended) => ended.clone(),
                _ => return None,
            },
            _ => return None,
        };
        self.last.replace(ended).and_then(|older| older.id)
    }

    /// When this container's own timers want attention next.
    pub fn next_wake(&self) -> Option<Timestamp> {
        match &self.state {
            State::Waiting(waiting) => waiting.until,
            State::Running(run) => {
                let kill = run.stopping.as_ref().filter(|stopping| !stopping.killed).map(|s| s.deadline);
                self.probes_due(run).filter_map(|(_, prober)| prober.next()).chain(kill).min()
            }
            State::Starting(_) | State::Ended(_) => None,
        }
    }

    /// The probes that may run now: the startup probe holds the others back. Of a run that is being ended only the
    /// readiness is asked for, so that Services hear when it takes nobody any more.
    fn probes_due(&self, run: &Run) -> impl Iterator<Item = &(ProbeKind, Prober)> {
        let (started, hooked, stopping) = (self.is_started(), run.post_start_pending, run.stopping.is_some());
        let may = move |kind: ProbeKind| match kind {
            ProbeKind::Startup => !stopping,
            ProbeKind::Liveness => started && !stopping,
            ProbeKind::Readiness => started,
        };
        self.probes.iter().filter(move |(kind, _)| !hooked && may(*kind))
    }

    /// Takes the turns of all probes that are due.
    pub fn take_probe_turns(&mut self, now: Timestamp) -> Vec<ProbeKind> {
        let Some(run) = self.run() else { return Vec::new() };
        let allowed: Vec<ProbeKind> = self.probes_due(run).map(|(kind, _)| *kind).collect();
        self.probes
            .iter_mut()
            .filter(|(kind, _)| allowed.contains(kind))
            .filter_map(|(kind, prober)| prober.take_turn(now).then_some(*kind))
            .collect()
    }

    /// Hands an answer to its prober; returns the settled result if it changed.
    pub fn probed(&mut self, kind: ProbeKind, outcome: &ProbeOutcome, now: Timestamp) -> Option<bool> {
        let (_, prober) = self.probes.iter_mut().find(|(k, _)| *k == kind)?;
        let changed = match outcome {
            ProbeOutcome::Success | ProbeOutcome::Warning(_) => prober.answer(true, now),
            ProbeOutcome::Failure(_) => prober.answer(false, now),
            ProbeOutcome::Error(_) => {
                prober.skip(now);
                None
            }
        };
        if kind == ProbeKind::Startup && changed == Some(true) {
            self.probes.iter_mut().for_each(|(_, prober)| prober.hold_until(now));
        }
        changed
    }

    /// When the run after the one that ended at `ended` may begin.
    pub fn next_run(&self, ended: &Ended, backoff: &Backoff) -> Timestamp {
        self.delay.next_try(ended.exit.finished_at, backoff)
    }
}

/// The probers of a fresh run.
fn probers(spec: &Container, started: Timestamp) -> Vec<(ProbeKind, Prober)> {
    [
        (ProbeKind::Startup, &spec.startup_probe),
        (ProbeKind::Liveness, &spec.liveness_probe),
        (ProbeKind::Readiness, &spec.readiness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| Some((kind, Prober::new(kind, probe.as_ref()?, started))))
    .collect()
}
