//! How a pod gets going: its sandbox, then its containers, each in its turn, and again after a back-off.
//!
//! Always holds: init containers run in their order and before the apps; nothing is started in a pod that ends.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use crate::pod::ContainerName;
use crate::pod::backoff::Delay;
use crate::pod::container::{Ended, State, WaitReason};
use crate::pod::effect::{Effect, Note};
use crate::pod::life::{PodLife, Sandbox};
use crate::pod::phase::restarts_after;
use crate::pod::roles::{Role, spec_of};
use crate::pod::time::{go_duration, later, since};

/// Between tries to make a sandbox.
const SANDBOX_RETRY: Duration = Duration::from_secs(5);

impl PodLife {
    pub(crate) fn sandbox_ready(&mut self, address: Option<String>) {
        if self.sandbox == Sandbox::Creating {
            self.sandbox = Sandbox::Ready;
            self.address = address;
        }
    }

    pub(crate) fn sandbox_failed(&mut self, message: String, now: Timestamp, out: &mut Vec<Effect>) {
        self.sandbox = Sandbox::Missing { retry_at: Some(later(now, SANDBOX_RETRY)) };
        let text = format!("Failed to create pod sandbox: {message}");
        out.push(Effect::Record(Note::warning("FailedCreatePodSandBox", text)));
    }

    /// As after a restart of the machine: it is made anew, and the container then gets its turn again.
    pub(crate) fn sandbox_lost(&mut self, name: &ContainerName, out: &mut Vec<Effect>) {
        if let Some(container) = self.container_mut(name) {
            container.give_start_up();
        }
        if self.sandbox == Sandbox::Ready {
            self.sandbox = Sandbox::Missing { retry_at: None };
            let text = "Pod sandbox changed, it will be killed and re-created.";
            out.push(Effect::Record(Note::normal("SandboxChanged", text)));
        }
    }

    pub(crate) fn sandbox_is_ready(&mut self, now: Timestamp, out: &mut Vec<Effect>) -> bool {
        if let Sandbox::Missing { retry_at } = self.sandbox
            && retry_at.is_none_or(|at| at <= now)
        {
            self.sandbox = Sandbox::Creating;
            out.push(Effect::RunSandbox);
        }
        self.sandbox == Sandbox::Ready
    }

    /// Something that containers are made of has changed: those that wait for it get another try, and those whose
    /// image is another one now begin as if they had never failed.
    pub(crate) fn try_again(&mut self, now: Timestamp) {
        for index in 0..self.containers.len() {
            let renewed = self.is_of_another_image(index);
            let container = &mut self.containers[index];
            if renewed {
                (container.delay, container.image_delay) = (Delay::none(now), Delay::none(now));
            }
            if let State::Waiting(waiting) = &mut container.state
                && waiting.until.is_some()
                && (renewed || waiting.awaits_change())
            {
                waiting.until = Some(now);
            }
        }
    }

    fn is_of_another_image(&self, index: usize) -> bool {
        let container = &self.containers[index];
        let wanted = spec_of(&self.pod, &container.name).and_then(|spec| spec.image.clone());
        container.asked_image.is_some() && container.asked_image != wanted
    }

    /// What runs of another image than the pod names now is made anew, as upstream does it. An init container has
    /// done its part.
    fn renew_changed(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            let stays = matches!(container.role, Role::App | Role::Sidecar);
            let runs = container.run().is_some_and(|run| run.stopping.is_none());
            if stays && runs && self.is_of_another_image(index) {
                let message = format!("Container {} definition changed, will be restarted", container.name);
                self.containers[index].renews = true;
                self.begin_stop(index, message, later(now, self.spec_grace()), now, out);
            }
        }
        self.press_on_with_stops(now, out);
    }

    pub(crate) fn advance_containers(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.renew_changed(now, out);
        let inits = self.containers.iter().take_while(|c| c.role != Role::App).count();
        let apps = self.containers[inits..].iter().take_while(|c| c.role == Role::App).count();
        // Also into a pod that can't begin one may want to look.
        (inits + apps..self.containers.len()).for_each(|index| self.tend(index, now, out));
        if self.advance_inits(inits, now, out) {
            self.advance_apps(inits..inits + apps, now, out);
        }
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
        if self.containers[index].resources.restarts || self.containers[index].renews {
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
        let Some(image) = container.missing.clone() else { return self.start(index, false, now, out) };
        let text = format!("Back-off pulling image \"{}\"", image.name);
        container.refused(
            WaitReason::ImagePullBackOff,
            format!("{text}: ErrImagePull: {message}"),
            Some(until),
        );
        image.tell(Note::normal("BackOff", text), &name, out);
        image.tell_refusal(WaitReason::ImagePullBackOff, &name, out);
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
        let image = spec_of(&self.pod, &container.name).and_then(|spec| spec.image.clone());
        container.begin_start(image);
        out.push(Effect::StartContainer { container: container.name.clone(), attempt: container.attempts });
    }
}
