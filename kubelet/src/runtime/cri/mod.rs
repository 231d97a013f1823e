//! Containers by way of the Container Runtime Interface: another program, such as containerd, makes roots,
//! namespaces and the pod's network, and gives the pod its address.
//!
//! The pod's life is the same as on the native runtime. `client.rs` speaks; `sandbox.rs` and `container.rs` say
//! what is asked for, as values; `watch.rs` looks how containers end, as soon as `events.rs` hears of it.
//!
//! Always holds: what this agent makes bears its label, and nothing else of the runtime is touched; what a
//! restarted agent needs it reads from the runtime and from the pod's directory.

mod channel;
mod client;
mod collect;
mod container;
mod events;
#[cfg(test)]
mod fake_socket;
mod files;
mod image;
mod sandbox;
mod state;
mod status;
mod streams;
mod watch;

/// The interface's messages.
#[allow(missing_docs, clippy::all, reason = "generated")]
mod proto {
    tonic::include_proto!("runtime.v1");
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use self::client::{CriClient, refused, text};
use self::proto::{ContainerState, PodSandboxState};
use self::state::{Known, Life, Pace, Sandbox, Shared, usage};
use self::streams::Trust;
use crate::config::LogLimits;
use crate::container::cgroup::{Limits, PodGroup};
use crate::node::images::NodeImage;
use crate::pod::{ContainerId, ContainerName, PodRef, PodUid};
use crate::runtime::{
    Begins, ByteStream, Collect, ContainerConfig, EVENT_QUEUE, EXEC_OUTPUT_LIMIT, ExecOutput, Fetch,
    FoundContainer, FoundState, ImageUse, NATIVE_HANDLER, Runtime, RuntimeError, RuntimeEvent, SandboxConfig,
    Session, Streams,
};
use crate::stats::{ContainerUsage, Stalls};

/// The handler by which a RuntimeClass asks for this runtime's own default.
pub const HANDLER: &str = "cri";

/// Runs containers by way of a runtime's socket.
pub struct CriRuntime {
    shared: Arc<Shared>,
    name: String,
    version: String,
    receiver: Mutex<Option<mpsc::Receiver<RuntimeEvent>>>,
    /// The handler of each pod's class, as the runtime knows it.
    handlers: Mutex<BTreeMap<PodUid, String>>,
    sandboxes: Mutex<BTreeMap<PodUid, Sandbox>>,
    watcher: Mutex<JoinSet<()>>,
    /// Of the streaming server, if that speaks HTTPS.
    trust: Trust,
}

impl CriRuntime {
    /// Asks the runtime at this socket who it is. `agent` tells this agent's pods from those of others.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn connect(
        socket: &Path,
        data_dir: &Path,
        agent: String,
        limits: LogLimits,
    ) -> Result<Self, RuntimeError> {
        Self::connect_at(Pace::default(), socket, data_dir, agent, limits).await
    }

    async fn connect_at(
        pace: Pace,
        socket: &Path,
        data_dir: &Path,
        agent: String,
        limits: LogLimits,
    ) -> Result<Self, RuntimeError> {
        let client = CriClient::new(socket);
        let attempted = format!("ask the container runtime at unix://{} for its version", socket.display());
        let version = client.version().await.map_err(refused(&attempted))?;
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let shared = Shared {
            client,
            agent,
            data_dir: data_dir.to_owned(),
            limits,
            events,
            known: Mutex::default(),
            look: Notify::new(),
            images: Mutex::default(),
            hears: AtomicBool::new(false),
            pace,
        };
        Ok(Self {
            shared: Arc::new(shared),
            name: version.runtime_name,
            version: version.runtime_version,
            receiver: Mutex::new(Some(receiver)),
            handlers: Mutex::default(),
            sandboxes: Mutex::default(),
            watcher: Mutex::default(),
            trust: Trust::default(),
        })
    }

    /// Believes the streaming server by the authorities of this file, in place of the machine's.
    ///
    /// # Errors
    /// It can't be read, or holds none.
    pub fn trusting(mut self, authorities: &Path) -> Result<Self, RuntimeError> {
        let attempted =
            || format!("read the authority of the runtime's streams in {}", authorities.display());
        let failed = |source| RuntimeError::System { attempted: attempted(), source };
        self.trust = Trust::of_file(authorities).map_err(failed)?;
        Ok(self)
    }

    fn client(&self) -> &CriClient {
        &self.shared.client
    }

    /// All sandboxes of the pod, the newest first.
    async fn listed(&self, pod: &PodRef) -> Result<Vec<proto::PodSandbox>, RuntimeError> {
        let mut labels = self.shared.agents_labels();
        labels.insert(sandbox::POD_UID.to_owned(), pod.uid.0.clone());
        self.client().sandboxes(labels).await.map_err(refused("list the pod's sandboxes"))
    }

    /// The pod's sandbox, if there is one that can be used.
    async fn sandbox(&self, pod: &PodRef) -> Result<Sandbox, RuntimeError> {
        let known = self.sandboxes.lock().get(&pod.uid).cloned();
        let id = match &known {
            Some(known) => known.id.clone(),
            None => self.listed(pod).await?.into_iter().next().map(|newest| newest.id).unwrap_or_default(),
        };
        let lost = || RuntimeError::SandboxLost(pod.clone());
        let (ready, address) = match self.client().sandbox_status(&id).await {
            Err(status) if status.code() == tonic::Code::NotFound || id.is_empty() => return Err(lost()),
            answer => answer.map_err(refused("look at the pod's sandbox"))?,
        };
        if !ready {
            self.sandboxes.lock().remove(&pod.uid);
            return Err(lost());
        }
        let order = match known {
            Some(known) => known.order,
            None => self.shared.files(pod).order()?,
        };
        let sandbox = Sandbox { id, address, order };
        self.sandboxes.lock().insert(pod.uid.clone(), sandbox.clone());
        Ok(sandbox)
    }

    /// The one that can be used, or a new one; what is left of older ones gives its network back.
    async fn make(&self, config: &SandboxConfig) -> Result<(), RuntimeError> {
        let listed = self.listed(&config.pod).await?;
        let attempts =
            listed.iter().filter_map(|one| one.metadata.as_ref()).map(|metadata| metadata.attempt + 1);
        let attempt = attempts.max().unwrap_or(0);
        let files = self.shared.files(&config.pod);
        let logs = files.make_dirs()?;
        let ready = listed.iter().find(|one| one.state() == PodSandboxState::SandboxReady);
        for dead in listed.iter().filter(|one| one.state() != PodSandboxState::SandboxReady) {
            self.client().stop_sandbox(&dead.id).await.map_err(refused("stop an older sandbox"))?;
        }
        self.sandboxes.lock().remove(&config.pod.uid);
        if ready.is_some() {
            return Ok(());
        }
        let order = sandbox::order(config, &self.shared.agent, &logs, attempt);
        files.keep(&order)?;
        let handler = self.handlers.lock().get(&config.pod.uid).cloned().unwrap_or_default();
        let made = self.client().run_sandbox(order, handler).await;
        made.map(drop).map_err(|status| RuntimeError::Create(text(&status)))
    }

    fn found(&self, listed: &proto::Container) -> Option<(ContainerId, Known)> {
        let label = |name: &str| listed.labels.get(name).cloned();
        let metadata = listed.metadata.as_ref()?;
        let pod = PodRef {
            namespace: label(sandbox::POD_NAMESPACE)?,
            name: label(sandbox::POD_NAME)?,
            uid: PodUid(label(sandbox::POD_UID)?),
        };
        let container = ContainerName(label(container::CONTAINER_NAME)?);
        let known = Known { pod, container, attempt: metadata.attempt, life: Life::Created };
        Some((ContainerId(listed.id.clone()), known))
    }

    async fn state(
        &self,
        listed: &proto::Container,
        id: &ContainerId,
        known: &Known,
    ) -> Result<(FoundState, Life), tonic::Status> {
        Ok(match listed.state() {
            ContainerState::ContainerCreated => (FoundState::Created, Life::Ended),
            ContainerState::ContainerRunning => {
                let status = self.client().container_status(id).await?;
                let started_at = watch::time(status.started_at).unwrap_or_else(Timestamp::now);
                (FoundState::Running { started_at }, Life::Running(started_at))
            }
            _ => (FoundState::Exited(watch::exit_of(&self.shared, id, known).await?), Life::Ended),
        })
    }
}

#[async_trait]
impl Runtime for CriRuntime {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn refuses(&self, _pod: &Pod, _container: &Container) -> Option<String> {
        None
    }

    fn assign(&self, pod: &PodRef, handler: &str) -> Result<(), RuntimeError> {
        if handler == NATIVE_HANDLER {
            return Err(RuntimeError::unknown_handler(handler));
        }
        let handler = if handler == HANDLER { "" } else { handler };
        self.handlers.lock().insert(pod.uid.clone(), handler.to_owned());
        Ok(())
    }

    fn is_remote(&self, _pod: &PodRef) -> bool {
        true
    }

    async fn address(&self, pod: &PodRef) -> Result<Option<String>, RuntimeError> {
        let known = self.sandboxes.lock().get(&pod.uid).map(|known| known.address.clone());
        match known {
            Some(address) => Ok(address),
            None => Ok(self.sandbox(pod).await?.address),
        }
    }

    async fn has_lost(&self, pod: &PodRef) -> bool {
        matches!(self.sandbox(pod).await, Err(RuntimeError::SandboxLost(_)))
    }

    async fn set_hosts(&self, pod: &PodRef, hosts: &str) -> Result<(), RuntimeError> {
        self.shared.files(pod).set_hosts(hosts)
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<(), RuntimeError> {
        self.make(config).await
    }

    async fn stop_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        for sandbox in self.listed(pod).await? {
            self.client().stop_sandbox(&sandbox.id).await.map_err(refused("stop the pod's sandbox"))?;
        }
        self.sandboxes.lock().remove(&pod.uid);
        Ok(())
    }

    async fn remove_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.stop_sandbox(pod).await?;
        for sandbox in self.listed(pod).await? {
            self.client().remove_sandbox(&sandbox.id).await.map_err(refused("remove the pod's sandbox"))?;
        }
        self.handlers.lock().remove(&pod.uid);
        self.shared.known.lock().retain(|_, known| known.pod.uid != pod.uid);
        let files = self.shared.files(pod);
        let removed = tokio::task::spawn_blocking(move || files.remove()).await;
        removed.map_err(|error| RuntimeError::Create(error.to_string()))?
    }

    async fn ensure_image(
        &self,
        config: &ContainerConfig,
        fetch: &Fetch,
        begins: &Begins<'_>,
    ) -> Result<ImageUse, RuntimeError> {
        let found = image::ensure(self.client(), &config.image, fetch, begins).await?;
        if let Some(image) = found.image() {
            self.shared.images.lock().touch(&image.id.to_string(), Timestamp::now());
        }
        Ok(found)
    }

    async fn images(&self) -> Result<Vec<NodeImage>, RuntimeError> {
        let images = self.client().images().await.map_err(refused("list the runtime's images"))?;
        let told = |image: proto::Image| NodeImage {
            names: [image.repo_digests, image.repo_tags].concat(),
            size: image.size,
        };
        Ok(images.into_iter().map(told).collect())
    }

    fn lacks_image_volumes(&self, _pod: &PodRef) -> Option<String> {
        status::lacks_image_volumes(&self.name, &self.version)
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let asked = config.asked.as_ref();
        let asked =
            asked.ok_or_else(|| RuntimeError::Create("the pod of the container is unknown".to_owned()))?;
        let sandbox = self.sandbox(&config.pod).await?;
        let files = self.shared.files(&config.pod);
        let target = config.target.as_ref().and_then(|name| self.shared.running(&config.pod, name));
        let run = files.make_run(&config.container, config.attempt)?;
        let mounts = files.resolve(&asked.mounts, &config.container, config.attempt)?;
        let order = container::order(&config, asked, &mounts, &run, target, &self.shared.agent);
        let request = proto::CreateContainerRequest {
            pod_sandbox_id: sandbox.id,
            config: Some(order.map_err(RuntimeError::Config)?),
            sandbox_config: Some(sandbox.order),
        };
        let id = self.client().create_container(request).await;
        let id = id.map_err(|status| RuntimeError::Create(status.message().to_owned()))?;
        let ContainerConfig { pod, container, attempt, .. } = config;
        self.shared.known.lock().insert(id.clone(), Known { pod, container, attempt, life: Life::Created });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<Timestamp, RuntimeError> {
        if let Err(status) = self.client().start_container(id).await {
            // Its end is told by this answer.
            self.shared.end(id);
            return Err(RuntimeError::Start(status.message().to_owned()));
        }
        let status = self.client().container_status(id).await;
        let began = status.ok().and_then(|status| watch::time(status.started_at));
        let began = began.unwrap_or_else(Timestamp::now);
        let mut known = self.shared.known.lock();
        // It may have ended, and been told of, by now.
        known.get_mut(id).filter(|known| known.life == Life::Created).into_iter().for_each(|known| {
            known.life = Life::Running(began);
        });
        Ok(began)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let stopped = self.client().stop_container(id, grace).await;
        self.shared.look.notify_one();
        stopped.map_err(refused(&format!("stop container {id}")))
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        limits: &Limits,
        _pod: &PodGroup,
    ) -> Result<(), RuntimeError> {
        // A score of 0 changes nothing: the runtime takes what isn't set for what is to stay.
        let updated = self.client().update_container(id, container::resources(limits, 0)).await;
        updated.map_err(|status| RuntimeError::Create(status.message().to_owned()))
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let known = self.shared.known.lock().remove(id);
        self.client().remove_container(id).await.map_err(refused(&format!("remove container {id}")))?;
        let Some(known) = known else { return Ok(()) };
        self.shared.files(&known.pod).remove_run(&known.container, known.attempt, self.shared.limits)
    }

    async fn list_containers(&self) -> Result<Vec<FoundContainer>, RuntimeError> {
        let failed = || refused("list the runtime's containers");
        let listed = self.client().containers(self.shared.agents_labels()).await.map_err(failed())?;
        let mut all = Vec::with_capacity(listed.len());
        for one in &listed {
            let Some((id, known)) = self.found(one) else { continue };
            let (state, life) = self.state(one, &id, &known).await.map_err(failed())?;
            let Known { pod, container, attempt, .. } = known.clone();
            let image_id = Some(one.image_ref.clone()).filter(|image| !image.is_empty());
            all.push(FoundContainer { id: id.clone(), pod, container, attempt, state, image_id });
            self.shared.known.lock().insert(id, Known { life, ..known });
        }
        let mut watcher = self.watcher.lock();
        if watcher.is_empty() {
            watcher.spawn(watch::watch(self.shared.clone()));
            watcher.spawn(events::follow(self.shared.clone()));
            watcher.spawn(collect::sweep(self.shared.clone()));
        }
        Ok(all)
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        match self.client().exec_sync(id, command, timeout).await {
            Ok(done) => {
                let mut output = [done.stdout, done.stderr].concat();
                output.truncate(EXEC_OUTPUT_LIMIT);
                Ok(ExecOutput { code: done.exit_code, output })
            }
            Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
                Err(RuntimeError::ExecTimeout(timeout))
            }
            Err(status) => Err(RuntimeError::Start(text(&status))),
        }
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, RuntimeError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let (container_id, cmd) = (id.0.clone(), command.to_vec());
        let request = proto::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr: stderr && !tty };
        let url = self.client().exec(request).await.map_err(refused("exec in the container"))?;
        streams::start(&url, streams, &self.trust).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Session, RuntimeError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let container_id = id.0.clone();
        let request = proto::AttachRequest { container_id, stdin, tty, stdout, stderr: stderr && !tty };
        let url = self.client().attach(request).await.map_err(refused("attach to the container"))?;
        streams::start(&url, streams, &self.trust).await
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
        let sandbox = self.sandbox(pod).await?;
        let url = self.client().port_forward(&sandbox.id, port).await;
        streams::dial(&url.map_err(refused("forward a port of the pod"))?, port, &self.trust).await
    }

    /// What containers shared would outlive the agent that ends with them; the next start makes it anew.
    async fn shut_down(&self) -> Result<(), RuntimeError> {
        let all = self.client().sandboxes(self.shared.agents_labels()).await;
        for sandbox in all.map_err(refused("list the sandboxes"))? {
            self.client().stop_sandbox(&sandbox.id).await.map_err(refused("stop a sandbox"))?;
        }
        self.sandboxes.lock().clear();
        Ok(())
    }

    async fn troubles(&self) -> Result<Vec<String>, RuntimeError> {
        let status = self.client().status().await.map_err(refused("ask the container runtime how it is"))?;
        Ok(status::troubles(&status))
    }

    async fn collect_images(&self, what: Collect) -> Result<u64, RuntimeError> {
        collect::images(&self.shared, what).await.map_err(refused("remove images that nobody uses"))
    }

    async fn image_dirs(&self) -> Vec<PathBuf> {
        collect::image_dirs(&self.shared).await.unwrap_or_default()
    }

    async fn usage(&self) -> Result<Vec<ContainerUsage>, RuntimeError> {
        let failed = refused("measure the containers");
        let stats = self.client().stats(self.shared.agents_labels()).await.map_err(failed)?;
        let known = self.shared.known.lock();
        let of = |stats: &proto::ContainerStats| {
            let id = ContainerId(stats.attributes.as_ref()?.id.clone());
            let found = known.get(&id)?;
            let Known { pod, container, .. } = found.clone();
            Some(ContainerUsage {
                pod,
                container,
                group: format!("{}/{id}", sandbox::cgroup(&found.pod).trim_start_matches('/')),
                started_at: found.life.started_at()?,
                usage: usage(stats),
                stalls: Stalls::default(),
                pod_stalls: Stalls::default(),
                id,
            })
        };
        Ok(stats.iter().filter_map(of).collect())
    }

    fn events(&self) -> Option<mpsc::Receiver<RuntimeEvent>> {
        self.receiver.lock().take()
    }
}
