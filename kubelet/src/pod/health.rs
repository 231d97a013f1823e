//! What probes and hooks say about a container that runs.

use std::time::Duration;

use jiff::Timestamp;

use crate::pod::effect::{Effect, Hook, Note, ProbeKind, ProbeOutcome};
use crate::pod::life::PodLife;
use crate::pod::phase::restarts_after;
use crate::pod::roles::spec_of;
use crate::pod::time::{later, seconds};
use crate::pod::{ContainerId, ContainerName};

/// How a run ends that had to be killed: not well.
const KILLED: i32 = 137;

/// What an event says of a probe, if anything.
fn told(kind: ProbeKind, outcome: ProbeOutcome) -> Option<Note> {
    let title = kind.title();
    match outcome {
        ProbeOutcome::Success => None,
        ProbeOutcome::Warning(text) => {
            Some(Note::warning("ProbeWarning", format!("{title} probe warning: {text}")))
        }
        ProbeOutcome::Failure(text) => {
            Some(Note::warning("Unhealthy", format!("{title} probe failed: {text}")))
        }
        ProbeOutcome::Error(why) => {
            let text = format!("{title} probe errored and resulted in unknown state: {why}");
            Some(Note::warning("Unhealthy", text))
        }
    }
}

impl PodLife {
    pub(crate) fn send_probes(&mut self, index: usize, now: Timestamp, out: &mut Vec<Effect>) {
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

    pub(crate) fn probed(
        &mut self,
        id: &ContainerId,
        kind: ProbeKind,
        outcome: ProbeOutcome,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let Some(index) = self.index_of_run(id) else { return };
        let container = &mut self.containers[index];
        let changed = container.probed(kind, &outcome, now);
        out.extend(told(kind, outcome).map(|note| Effect::Record(note.about(&container.name))));
        if changed == Some(false) && kind != ProbeKind::Readiness {
            self.kill_unhealthy(index, kind, now, out);
        }
    }

    fn kill_unhealthy(&mut self, index: usize, kind: ProbeKind, now: Timestamp, out: &mut Vec<Effect>) {
        let name = self.containers[index].name.clone();
        let again = restarts_after(&self.pod, &self.containers[index], KILLED);
        let then = if again { ", will be restarted" } else { "" };
        let message = format!("Container {name} failed {} probe{then}", kind.word());
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

    pub(crate) fn hook_done(
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
}
