//! Carries out what the pods' lives ask for, and brings back the answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::self_fence;
use client::backoff::{Backoff, Policy};
use client::recorder::{Note as EventNote, Recorder, Severity, reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use network::pod::host_ports::HostPort;
use tokio::sync::watch;

use crate::agent::action;
use crate::agent::checkpoint::Checkpoints;
use crate::agent::images::Images;
use crate::agent::network::Network;
use crate::agent::references::References;
use crate::agent::runtime_class::RuntimeClasses;
use crate::agent::services::Services;
use crate::agent::volumes::Volumes;
use crate::container::Mount;
use crate::fence;
use crate::pod::admission::{amounts, unsupported};
use crate::pod::downward::NodeFacts;
use crate::pod::effect::{Effect, Hook, Note, PodEvent, ProbeKind, ProbeOutcome, StartFailure};
use crate::pod::env::{Sources, container_references, environment};
use crate::pod::expand::expand_all;
use crate::pod::hostname::DEFAULT_DOMAIN;
use crate::pod::isolation::{self, Ground};
use crate::pod::roles::{roles, spec_of, target_of};
use crate::pod::sandbox::{HostFiles, sandbox};
use crate::pod::volumes::mounts::mounts;
use crate::pod::{ContainerId, ContainerName, PodRef, PodUid, group, handler};
use crate::runtime::{Asked, ContainerConfig, NetworkPlace, Runtime, RuntimeError};
use crate::stats::Operation::{
    CreateContainer, RemoveContainer, RunPodSandbox, StartContainer, StopContainer,
};
use crate::stats::Operations;

/// A postStart hook has no limit upstream; this one keeps a hanging hook from holding a task forever.
const POST_START_LIMIT: Duration = Duration::from_secs(3600);
/// How long a container that ends with the node's promise waits for one before its start fails.
const PROMISE_LIMIT: Duration = Duration::from_secs(10);
/// Where upstream leaves termination messages. The host has one such file for all, so it isn't read.
const SHARED_MESSAGE_PATH: &str = "/dev/termination-log";

/// What effects are carried out with.
#[derive(Clone)]
pub struct Performer {
    /// Runs the containers.
    pub runtime: Arc<dyn Runtime>,
    /// The pods' records.
    pub checkpoints: Checkpoints,
    /// ConfigMaps and Secrets.
    pub references: References,
    /// Services that environments tell of.
    pub services: Services,
    /// The pods' volumes.
    pub volumes: Volumes,
    /// What the downward API tells of the node.
    pub node: Arc<NodeFacts>,
    /// Pods' own addresses; without it they have the host's network.
    pub network: Option<Arc<Network>>,
    /// Which runtime a pod asks for.
    pub classes: RuntimeClasses,
    /// Where Events go.
    pub recorder: Recorder,
    /// The most processes and threads of a pod.
    pub pod_max_pids: Option<u64>,
    /// Until when pods that fence themselves may run.
    pub promised: watch::Receiver<Duration>,
    /// What the runtime is asked for.
    pub operations: Operations,
}

/// A pod's place in the network.
#[derive(Default)]
struct Place {
    /// Its own address; `None`: the host's.
    ip: Option<String>,
    /// The namespace that we have made for it.
    namespace: Option<PathBuf>,
}

impl Performer {
    /// Carries out one effect; the answer, if there is one, is the pod's next event.
    pub async fn perform(self, pod: Arc<Pod>, effect: Effect) -> Option<(PodUid, PodEvent)> {
        let pod_ref = PodRef::of(&pod);
        let answer = match effect {
            Effect::RunSandbox => Some(self.run_sandbox(&pod).await),
            Effect::StartContainer { container, attempt } => {
                Some(self.start(&pod, pod_ref.clone(), container, attempt).await)
            }
            Effect::StopContainer { id, grace } => {
                self.stop(&pod_ref, &id, grace).await;
                None
            }
            Effect::ResizeContainer { container, id } => self.resize(&pod, &container, id).await,
            Effect::RemoveContainer { id } => {
                let removed =
                    self.operations.timed(RemoveContainer, self.runtime.remove_container(&id)).await;
                complain(&pod_ref, "remove a container", removed);
                None
            }
            Effect::Probe { container, id, kind } => Some(self.probe(&pod, &container, id, kind).await),
            Effect::RunHook { container, id, hook } => Some(self.hook(&pod, &container, id, hook).await),
            Effect::Record(note) => {
                self.record(&pod, note);
                None
            }
        };
        answer.map(|event| (pod_ref.uid, event))
    }

    /// Asks until the runtime has heard it: one that is just being restarted can't, and a pod is asked to end once.
    async fn stop(&self, pod: &PodRef, id: &ContainerId, grace: Duration) {
        let mut backoff = Backoff::new(Policy::RETRY);
        let stop = || self.operations.timed(StopContainer, self.runtime.stop_container(id, grace));
        while let Err(error) = stop().await {
            complain(pod, "stop a container", Err(error));
            tokio::time::sleep(backoff.failed(rand::random())).await;
        }
    }

    async fn run_sandbox(&self, pod: &Arc<Pod>) -> PodEvent {
        let (checkpoints, record) = (self.checkpoints.clone(), pod.clone());
        let saved = tokio::task::spawn_blocking(move || checkpoints.save(&record)).await;
        let saved = saved.map_err(std::io::Error::other).and_then(|result| result);
        if let Err(error) = saved {
            return PodEvent::SandboxFailed { message: format!("record the pod: {error}") };
        }
        self.sync_record(PodRef::of(pod));
        match self.operations.timed(RunPodSandbox, self.make_sandbox(pod)).await {
            Ok(ip) => PodEvent::SandboxReady { ip },
            Err(message) => PodEvent::SandboxFailed { message },
        }
    }

    /// Has the pod's record survive a power cut, which its start doesn't wait for.
    fn sync_record(&self, pod: PodRef) {
        let checkpoints = self.checkpoints.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = checkpoints.sync(&pod.uid) {
                tracing::warn!(%pod, %error, "sync the pod's record");
            }
        });
    }

    /// Makes what the pod's containers share; its own address. Where the runtime makes the network, that is known
    /// only when all is made.
    async fn make_sandbox(&self, pod: &Pod) -> Result<Option<String>, String> {
        let chain = |error: RuntimeError| error.chain();
        let who = PodRef::of(pod);
        self.runtime.assign(&who, &self.classes.handler(pod).await?).map_err(chain)?;
        let host = host_files();
        let resolver = self.network.as_ref().map(|network| &network.resolver);
        let config = |place: &Place| sandbox(pod, &host, &self.address(place), resolver);
        if !self.runtime.is_remote(&who) {
            let place = self.place(pod).await?;
            self.runtime.run_sandbox(&config(&place)?).await.map_err(chain)?;
            return Ok(place.ip);
        }
        self.runtime.run_sandbox(&config(&Place::default())?).await.map_err(chain)?;
        let place = self.place(pod).await?;
        self.runtime.set_hosts(&who, &config(&place)?.hosts).await.map_err(chain)?;
        Ok(place.ip)
    }

    /// The pod's place in the network; one that we give is made unless it is there.
    async fn place(&self, pod: &Pod) -> Result<Place, String> {
        let who = PodRef::of(pod);
        if self.runtime.is_remote(&who) {
            let ip = self.runtime.address(&who).await.map_err(|error| error.chain())?;
            return Ok(Place { ip, namespace: None });
        }
        let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let Some(network) = self.network.as_ref().filter(|_| !on_host) else { return Ok(Place::default()) };
        let had = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        let attached = network.pods.attach(&who.uid.0, had, &HostPort::of(pod)).await;
        let attached = attached.map_err(|error| error.to_string())?;
        Ok(Place { ip: Some(attached.ip.to_string()), namespace: Some(attached.namespace) })
    }

    /// The address of a pod with this place in the network.
    fn address(&self, place: &Place) -> String {
        place.ip.clone().unwrap_or_else(|| self.node.host_ip.clone())
    }

    async fn pod_ip(&self, pod: &Pod) -> String {
        self.address(&self.place(pod).await.unwrap_or_default())
    }

    async fn start(&self, pod: &Pod, pod_ref: PodRef, container: ContainerName, attempt: u32) -> PodEvent {
        let Some(spec) = spec_of(pod, &container) else {
            let failure = StartFailure::Config("the container is gone".to_owned());
            return PodEvent::StartFailed { container, failure, image: None };
        };
        if self.runtime.has_lost(&pod_ref).await {
            return PodEvent::SandboxLost { container };
        }
        let memory = amounts(&self.node.allocatable).get("memory").copied().unwrap_or(0);
        let bare = ContainerConfig {
            pod_group: Some(group::of(pod, self.pod_max_pids)),
            ..bare_config(pod, pod_ref, &spec, attempt, memory)
        };
        let images = match self.images(pod, &spec, &bare).await {
            Ok(images) => images,
            Err(failure) => return PodEvent::StartFailed { container, failure, image: None },
        };
        match self.try_start(pod, &spec, bare, &images).await {
            Ok((id, at)) => {
                let mounted = images.mounted.into_iter().map(|(volume, image)| (volume, image.id)).collect();
                PodEvent::Started { container, id, at, image: images.own, mounted }
            }
            Err(failure) => PodEvent::StartFailed { container, failure, image: Some(images.own) },
        }
    }

    async fn try_start(
        &self,
        pod: &Pod,
        spec: &Container,
        bare: ContainerConfig,
        images: &Images,
    ) -> Result<(ContainerId, Timestamp), StartFailure> {
        if let Some(refusal) = unsupported(pod, spec) {
            return Err(StartFailure::Config(refusal));
        }
        let config = self.resolve(pod, spec, bare).await.map_err(StartFailure::Config)?;
        let config = self.isolate(pod, spec, config, images).await?;
        if config.self_fence {
            self.wait_for_promise().await;
        }
        let created = self.operations.timed(CreateContainer, self.runtime.create_container(config)).await;
        let id = created.map_err(|error| match error {
            RuntimeError::Config(message) => StartFailure::Config(message),
            other => StartFailure::Create(other.chain()),
        })?;
        match self.operations.timed(StartContainer, self.runtime.start_container(&id)).await {
            Ok(at) => Ok((id, at)),
            Err(error) => Err(StartFailure::Run { id, message: error.chain() }),
        }
    }

    /// A node that has just started, or is heard of again, promises something in a moment. Without that the container's
    /// supervisor refuses.
    async fn wait_for_promise(&self) {
        let mut promised = self.promised.clone();
        let holds = promised.wait_for(|until| fence::now() < *until);
        let _ = tokio::time::timeout(PROMISE_LIMIT, holds).await;
    }

    /// Gives the container a root of its own and its volumes, if there is an image to make it from.
    async fn isolate(
        &self,
        pod: &Pod,
        spec: &Container,
        config: ContainerConfig,
        images: &Images,
    ) -> Result<ContainerConfig, StartFailure> {
        if self.runtime.is_remote(&config.pod) {
            return self.ask(pod, spec, config, images).await;
        }
        let found = (images.own.image(), self.runtime.image_store(), self.runtime.sandbox_dir(&config.pod));
        let (Some(image), Some(store), Some(sandbox)) = found else {
            return match self.runtime.refuses(pod, spec) {
                Some(refusal) => Err(StartFailure::Config(refusal)),
                None => Ok(config),
            };
        };
        if let Some(refusal) = isolation::refusal(pod, spec) {
            return Err(StartFailure::Config(refusal));
        }
        let mounts = self.mounts(pod, spec, &config, images).await?;
        let domain = self.network.as_ref().map_or(DEFAULT_DOMAIN, |network| &network.resolver.domain);
        let (image_file, layers_dir) = (store.config_path(&image.id), store.layers());
        let ground = Ground { image, image_file, layers_dir, sandbox, domain };
        let config = ContainerConfig { termination_message_path: Some(last_words_path(spec)), ..config };
        isolation::isolate(pod, spec, &ground, config, mounts).map_err(StartFailure::Config)
    }

    /// Makes the container's volumes and says where it sees them.
    async fn mounts(
        &self,
        pod: &Pod,
        spec: &Container,
        config: &ContainerConfig,
        images: &Images,
    ) -> Result<Vec<Mount>, StartFailure> {
        let mut roots =
            self.volumes.prepare(pod, spec, Timestamp::now()).await.map_err(StartFailure::Volume)?;
        roots.extend(self.image_roots(images));
        mounts(pod, spec, &roots, &config.env).map_err(StartFailure::Config)
    }

    /// Adds what another program needs that isolates the container.
    async fn ask(
        &self,
        pod: &Pod,
        spec: &Container,
        config: ContainerConfig,
        images: &Images,
    ) -> Result<ContainerConfig, StartFailure> {
        let image = images.own.image();
        let image = image.ok_or_else(|| StartFailure::Config("the container has no image".to_owned()))?;
        if config.self_fence {
            let why = "only the agent's own runtime ends containers when the node is silent: take the annotation away, or \
                       choose a RuntimeClass whose handler is `native`";
            return Err(StartFailure::Config(format!("annotation {}: {why}", self_fence::ANNOTATION)));
        }
        let mounts = self.mounts(pod, spec, &config, images).await?;
        let asked = Asked { pod: Arc::new(pod.clone()), image: Box::new(image.clone()), mounts };
        let termination_message_path = Some(last_words_path(spec));
        Ok(ContainerConfig { asked: Some(asked), termination_message_path, ..config })
    }

    /// Fills in the environment, and all that refers to it.
    async fn resolve(
        &self,
        pod: &Pod,
        spec: &Container,
        bare: ContainerConfig,
    ) -> Result<ContainerConfig, String> {
        let services = self.services.variables(pod).await?;
        let sources = self.references.sources(&bare.pod.namespace, &container_references(spec)).await?;
        let sources = Sources { services, ..sources };
        let place = self.place(pod).await?;
        let facts = NodeFacts { pod_ip: self.address(&place), ..(*self.node).clone() };
        let env = environment(pod, spec, &sources, &facts)?;
        let files = self.runtime.sandbox_dir(&bare.pod).unwrap_or_default();
        Ok(ContainerConfig {
            command: expand_all(&bare.command, &env),
            args: expand_all(&bare.args, &env),
            env,
            network: place.namespace.map(|namespace| NetworkPlace { namespace, files }),
            ..bare
        })
    }

    async fn resize(&self, pod: &Pod, name: &ContainerName, id: ContainerId) -> Option<PodEvent> {
        let limits = isolation::limits(spec_of(pod, name)?.as_ref());
        let done = self.runtime.update_container(&id, &limits, &group::of(pod, self.pod_max_pids)).await;
        Some(PodEvent::Resized { id, outcome: done.map_err(|error| error.chain()) })
    }

    async fn probe(&self, pod: &Pod, name: &ContainerName, id: ContainerId, kind: ProbeKind) -> PodEvent {
        let outcome = match handler::probe(pod, name, kind, &self.pod_ip(pod).await) {
            Ok((action, timeout)) => action::probe(self.runtime.as_ref(), &id, &action, timeout).await,
            Err(message) => ProbeOutcome::Error(message),
        };
        PodEvent::Probed { id, kind, outcome }
    }

    async fn hook(&self, pod: &Pod, name: &ContainerName, id: ContainerId, hook: Hook) -> PodEvent {
        let limit = match hook {
            Hook::PostStart => POST_START_LIMIT,
            Hook::PreStop => grace(pod),
        };
        let outcome = match handler::hook(pod, name, hook, &self.pod_ip(pod).await) {
            Ok(action) => action::perform(self.runtime.as_ref(), &id, &action, limit).await,
            Err(message) => Err(message),
        };
        PodEvent::HookDone { id, hook, outcome }
    }

    /// Records an Event; never waits.
    pub fn record(&self, pod: &Pod, note: Note) {
        let severity = if note.warning { Severity::Warning } else { Severity::Normal };
        let field_path = note.container.as_ref().and_then(|name| field_path(pod, name));
        self.recorder.note(EventNote {
            regarding: ObjectReference { field_path, ..reference(pod) },
            severity,
            reason: note.reason.into_owned(),
            message: note.message,
            component: None,
        });
    }
}

/// Where the container finds the file of its last words.
fn last_words_path(spec: &Container) -> PathBuf {
    spec.termination_message_path.as_deref().unwrap_or(SHARED_MESSAGE_PATH).into()
}

fn grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn field_path(pod: &Pod, name: &ContainerName) -> Option<String> {
    let (_, role) = roles(pod).find(|(container, _)| container.name == name.0)?;
    Some(format!("spec.{}{{{name}}}", role.list()))
}

/// The part of the configuration that needs no lookups.
fn bare_config(
    pod: &Pod,
    pod_ref: PodRef,
    spec: &Container,
    attempt: u32,
    memory_of_node: i128,
) -> ContainerConfig {
    let own = spec.security_context.as_ref();
    let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let id = |own: Option<i64>, shared: Option<i64>| own.or(shared).and_then(|id| u32::try_from(id).ok());
    let message_path = spec.termination_message_path.as_deref().filter(|path| *path != SHARED_MESSAGE_PATH);
    ContainerConfig {
        pod: pod_ref,
        container: ContainerName(spec.name.clone()),
        target: target_of(pod, &ContainerName(spec.name.clone())),
        attempt,
        image: spec.image.clone().unwrap_or_default(),
        command: spec.command.clone().unwrap_or_default(),
        args: spec.args.clone().unwrap_or_default(),
        env: Default::default(),
        working_dir: spec.working_dir.as_ref().filter(|dir| !dir.is_empty()).map(Into::into),
        user: id(own.and_then(|c| c.run_as_user), shared.and_then(|c| c.run_as_user)),
        group: id(own.and_then(|c| c.run_as_group), shared.and_then(|c| c.run_as_group)),
        termination_message_path: message_path.map(Into::into),
        termination_message_from_logs: spec.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError"),
        stop_signal: None,
        pod_group: None,
        cgroup: None,
        limits: isolation::limits(spec),
        oom_score_adj: isolation::oom_score_adj(pod, spec, memory_of_node),
        network: None,
        isolation: None,
        stdin: spec.stdin == Some(true),
        stdin_once: spec.stdin_once == Some(true),
        tty: spec.tty == Some(true),
        asked: None,
        self_fence: self_fence::asks(pod.metadata.annotations.as_ref()),
    }
}

/// Read for each pod, since the host may be told of another resolver. A missing file is an empty one.
fn host_files() -> HostFiles {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    HostFiles {
        hosts: read("/etc/hosts"),
        resolv_conf: read("/etc/resolv.conf"),
        hostname: hostname.to_string_lossy().into_owned(),
    }
}

fn complain(pod: &PodRef, attempted: &str, result: Result<(), RuntimeError>) {
    if let Err(error) = result {
        tracing::error!(%pod, error = %error.chain(), "{attempted}");
    }
}

#[cfg(test)]
mod tests;
