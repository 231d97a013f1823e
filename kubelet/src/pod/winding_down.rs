//! How a pod and its containers end: preStop, TERM, and KILL when the grace is over.
//!
//! App and init containers end first, all at once; sidecars follow one by one, last started first.

use std::time::Duration;

use jiff::Timestamp;

use crate::pod::container::{ContainerLife, Ended, State, Stopping};
use crate::pod::effect::{Effect, Hook, Note};
use crate::pod::life::{Ending, PodLife, Sandbox, Verdict, Why};
use crate::pod::roles::{Role, spec_of};
use crate::pod::time::{later, seconds, since};
use crate::runtime::Exit;

/// What a process gets between TERM and KILL even if its preStop hook has used up the grace.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

impl PodLife {
    /// Decides that the pod ends, or ends for a stronger reason, or sooner.
    pub(crate) fn end(&mut self, why: Why, now: Timestamp) {
        let deadline = later(now, self.grace_of(why));
        match &mut self.ending {
            None => self.ending = Some(Ending { why, deadline }),
            Some(ending) => {
                ending.why = ending.why.max(why);
                ending.deadline = ending.deadline.min(deadline);
            }
        }
    }

    pub(crate) fn agent_stopping(&mut self, grace: Duration, now: Timestamp) {
        self.end(Why::AgentStopping, now);
        if let Some(ending) = &mut self.ending {
            ending.deadline = ending.deadline.min(later(now, grace));
        }
    }

    /// A pod that ends anyway ends sooner, for the reason that it has.
    pub(crate) fn evicted(&mut self, verdict: Verdict, grace: Duration, now: Timestamp) {
        if self.ending.is_none() {
            self.verdict = Some(verdict);
        }
        self.end(Why::Over, now);
        if let Some(ending) = &mut self.ending {
            ending.deadline = ending.deadline.min(later(now, grace));
        }
    }

    /// A deletion says how long it may take; all else goes by the pod's own word.
    fn grace_of(&self, why: Why) -> Duration {
        let asked = self.pod.metadata.deletion_grace_period_seconds.map(seconds);
        match why {
            Why::Deleted => asked.unwrap_or_else(|| self.spec_grace()),
            _ => self.spec_grace(),
        }
    }

    /// Begins to end one run, unless it is being ended already: then the deadline only moves closer.
    pub(crate) fn begin_stop(
        &mut self,
        index: usize,
        message: String,
        deadline: Timestamp,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let container = &mut self.containers[index];
        let name = container.name.clone();
        let Some(run) = container.run_mut() else { return };
        if let Some(stopping) = &mut run.stopping {
            stopping.deadline = stopping.deadline.min(deadline);
            return;
        }
        let spec = spec_of(&self.pod, &name);
        let lifecycle = spec.as_ref().and_then(|spec| spec.lifecycle.as_ref());
        let hooked = lifecycle.is_some_and(|l| l.pre_stop.is_some()) && deadline > now;
        run.stopping = Some(Stopping {
            deadline,
            not_before: now,
            pre_stop_pending: hooked,
            asked: false,
            killed: false,
        });
        let id = run.id.clone();
        out.push(Effect::Record(Note::normal("Killing", message).about(&name)));
        if hooked {
            out.push(Effect::RunHook { container: name, id, hook: Hook::PreStop });
        }
    }

    /// Takes every run that is being ended one step further.
    pub(crate) fn press_on_with_stops(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let limit = self.ending.as_ref().map(|ending| ending.deadline);
        self.containers.iter_mut().for_each(|container| press_on(container, limit, now, out));
    }

    /// Ends what still runs and closes the pod when nothing does.
    pub(crate) fn wind_down(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(deadline) = self.ending.as_ref().map(|ending| ending.deadline) else { return };
        for index in self.to_stop_now() {
            let message = format!("Stopping container {}", self.containers[index].name);
            self.begin_stop(index, message, deadline, now, out);
        }
        self.press_on_with_stops(now, out);
        if !self.is_any_active() && self.sandbox != Sandbox::Creating {
            self.close(now);
        }
    }

    fn to_stop_now(&self) -> Vec<usize> {
        let is_main = |c: &ContainerLife| c.role != Role::Sidecar;
        let active = |i: &usize| self.containers[*i].is_active();
        let main: Vec<usize> =
            (0..self.containers.len()).filter(|i| is_main(&self.containers[*i])).filter(active).collect();
        if main.is_empty() {
            (0..self.containers.len()).rev().find(active).into_iter().collect()
        } else {
            main
        }
    }

    /// The last process is gone.
    fn close(&mut self, now: Timestamp) {
        let for_good = self.ending.as_ref().is_some_and(|ending| ending.why >= Why::Over);
        if !for_good {
            return;
        }
        assert!(!self.is_any_active(), "a pod is closed only after its last process");
        let deleted = self.ending.as_ref().is_some_and(|ending| ending.why >= Why::Deleted);
        if deleted && self.settled.is_none() {
            self.containers.iter_mut().for_each(|container| declare_ended(container, now));
        }
        self.sandbox = Sandbox::Gone;
        self.settle();
    }
}

/// TERM follows the preStop hook, KILL the deadline.
fn press_on(container: &mut ContainerLife, limit: Option<Timestamp>, now: Timestamp, out: &mut Vec<Effect>) {
    let Some(run) = container.run_mut() else { return };
    let id = run.id.clone();
    let Some(stopping) = &mut run.stopping else { return };
    let shortened = limit.map_or(stopping.deadline, |limit| stopping.deadline.min(limit));
    stopping.deadline = shortened.max(stopping.not_before);
    let hook_timed_out = stopping.pre_stop_pending && stopping.deadline <= now;
    if !stopping.asked && (!stopping.pre_stop_pending || hook_timed_out) {
        ask(stopping, hook_timed_out, now);
        out.push(Effect::StopContainer { id: id.clone(), grace: since(stopping.deadline, now) });
        stopping.killed = stopping.deadline <= now;
    }
    if !stopping.killed && stopping.asked && stopping.deadline <= now {
        stopping.killed = true;
        out.push(Effect::StopContainer { id, grace: Duration::ZERO });
    }
}

fn ask(stopping: &mut Stopping, hook_timed_out: bool, now: Timestamp) {
    stopping.asked = true;
    if hook_timed_out {
        stopping.pre_stop_pending = false;
        stopping.not_before = later(now, MINIMUM_GRACE);
        stopping.deadline = stopping.not_before;
    }
}

/// A container that never ran, in a pod that is over, is reported as upstream reports it.
fn declare_ended(container: &mut ContainerLife, now: Timestamp) {
    if let State::Waiting(_) = container.state {
        container.state = match container.last.take() {
            Some(ended) => State::Ended(ended),
            None => State::Ended(Ended { id: None, exit: Exit::never_located(now) }),
        };
    }
}
