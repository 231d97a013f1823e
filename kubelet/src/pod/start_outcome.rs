//! What a start came to: the container runs, or waits for another try, and events say why.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::pod::container::{Ended, Run, WaitReason};
use crate::pod::effect::{Effect, Hook, ImageFailure, NeededImage, Note, StartFailure};
use crate::pod::life::PodLife;
use crate::pod::roles::spec_of;
use crate::pod::time::{go_duration, later};
use crate::pod::{ContainerId, ContainerName};
use crate::runtime::{Exit, ImageUse};

/// After this long a container whose configuration could not be resolved is tried again, even if no
/// watch has told of a change (upstream's resync of pods).
const CONFIG_RETRY: Duration = Duration::from_secs(60);
/// How long a failed pull is shown before the wait for the next try is (upstream's resync after an error).
const ERR_IMAGE_PULL_SHOWN: Duration = Duration::from_secs(2);
/// Between tries to make a volume of which something is missing, if no watch tells of a change.
const VOLUME_RETRY: Duration = Duration::from_secs(10);

impl PodLife {
    pub(crate) fn started(
        &mut self,
        name: &ContainerName,
        (id, at): (ContainerId, Timestamp),
        image: &ImageUse,
        mounted: BTreeMap<String, String>,
        out: &mut Vec<Effect>,
    ) {
        let Some(spec) = spec_of(&self.pod, name).map(Cow::into_owned) else { return };
        let Some(container) = self.container_mut(name) else { return };
        let hooked = spec.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        let run = Run { id: id.clone(), started_at: at, post_start_pending: hooked, stopping: None };
        let dropped = container.started(run, Some(&spec));
        container.image_id = image.image().map(|image| image.id.to_string());
        container.mounted = mounted;
        out.extend(dropped.map(|id| Effect::RemoveContainer { id }));
        out.push(Effect::Record(found(spec.image.as_deref().unwrap_or_default(), image).about(name)));
        out.push(Effect::Record(Note::normal("Created", "Container created").about(name)));
        out.push(Effect::Record(Note::normal("Started", "Container started").about(name)));
        if let Some(known) = self.early_ends.iter().position(|(early, _)| *early == id) {
            let (_, exit) = self.early_ends.remove(known);
            self.exited(&id, exit);
        } else if hooked {
            out.push(Effect::RunHook { container: name.clone(), id, hook: Hook::PostStart });
        }
    }

    pub(crate) fn start_failed(
        &mut self,
        name: &ContainerName,
        failure: StartFailure,
        image: Option<&ImageUse>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        if let Some(image) = image {
            let named = spec_of(&self.pod, name).and_then(|spec| spec.image.clone()).unwrap_or_default();
            out.push(Effect::Record(found(&named, image).about(name)));
        }
        match failure {
            StartFailure::Config(message) => {
                self.refuse(name, WaitReason::CreateContainerConfigError, message, now, out);
            }
            StartFailure::Volume(message) => self.volume_failed(name, message, now, out),
            StartFailure::Create(message) => {
                self.refuse(name, WaitReason::CreateContainerError, message, now, out);
            }
            StartFailure::Image(image, failure) => self.image_failed(name, image, failure, now, out),
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
        out.push(Effect::Record(Note::warning("Failed", format!("Error: {message}")).about(name)));
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

    /// Shows `ErrImagePull` for a moment, then `ImagePullBackOff` until the next try. What no fetching would mend is
    /// looked at again like a configuration.
    fn image_failed(
        &mut self,
        name: &ContainerName,
        image: NeededImage,
        failure: ImageFailure,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let (reason, message) = failure.waiting();
        image.tell(event(reason, &image.name, &message), name, out);
        image.tell_refusal(reason, name, out);
        let backoff = self.settings.backoff;
        let Some(container) = self.container_mut(name) else { return };
        let shown = match reason {
            WaitReason::ErrImagePull => {
                container.image_delay.begin(now, now, &backoff);
                container.missing = Some(image);
                ERR_IMAGE_PULL_SHOWN
            }
            _ => CONFIG_RETRY,
        };
        container.refused(reason, message, Some(later(now, shown)));
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
}

impl ImageFailure {
    /// Why the container waits, and the details.
    fn waiting(self) -> (WaitReason, String) {
        match self {
            Self::Pull(why) => (WaitReason::ErrImagePull, why),
            Self::NeverPull(why) => (WaitReason::ErrImageNeverPull, why),
            Self::InvalidName(why) => (WaitReason::InvalidImageName, why),
        }
    }
}

/// What is told of an image that can't be had.
fn event(reason: WaitReason, image: &str, message: &str) -> Note {
    match reason {
        WaitReason::ErrImageNeverPull => Note::warning("ErrImageNeverPull", message),
        WaitReason::InvalidImageName => Note::warning("InspectFailed", message),
        _ => Note::warning("Failed", format!("Failed to pull image \"{image}\": {message}")),
    }
}

impl NeededImage {
    /// Tells of it: of the container's, or of the whole pod.
    fn about(&self, note: Note, container: &ContainerName) -> Note {
        if self.of_volume { note } else { note.about(container) }
    }

    /// It is about to be fetched.
    pub fn pulling(&self, container: &ContainerName) -> Note {
        self.about(Note::normal("Pulling", format!("Pulling image \"{}\"", self.name)), container)
    }

    /// Records what is told of it.
    pub(crate) fn tell(&self, note: Note, container: &ContainerName, out: &mut Vec<Effect>) {
        out.push(Effect::Record(self.about(note, container)));
    }

    /// Records that the container isn't made for want of it. Of a volume's upstream says only that it can't be had.
    pub(crate) fn tell_refusal(&self, why: WaitReason, container: &ContainerName, out: &mut Vec<Effect>) {
        if let Some(word) = why.word().filter(|_| !self.of_volume) {
            out.push(Effect::Record(Note::warning("Failed", format!("Error: {word}")).about(container)));
        }
    }
}

/// Says where an image was found.
pub fn found(image: &str, found: &ImageUse) -> Note {
    match found {
        ImageUse::Present(_) => Note::normal(
            "Pulled",
            format!("Container image \"{image}\" already present on machine and can be accessed by the pod"),
        ),
        ImageUse::Pulled(fetched, took) => {
            let (took, size) = (go_duration(*took), fetched.size);
            let text = format!("Successfully pulled image \"{image}\" in {took}. Image size: {size} bytes.");
            Note::normal("Pulled", text)
        }
        ImageUse::Plain => Note::normal(
            "NotIsolated",
            format!(
                "Image \"{image}\" is not on this node: the command runs as a plain process of the host, not \
                 isolated"
            ),
        ),
    }
}
