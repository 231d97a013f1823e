//! Containers made in process, each under a shim: from an image with a root and namespaces of their own, or,
//! where the node has no such image and the pod says what to run, as plain processes of the host.
//!
//! **A plain process is not isolated**: it sees the host's files, processes and network. What it can't honour
//! is refused by name.
//!
//! Always holds: every container this node ever started has a directory that says so before its process
//! exists, so a restarted agent finds all of them; no signal reaches a process that only has the number
//! of ours.

mod attach;
mod enter;
mod exec;
mod launcher;
mod port_forward;
pub mod pty;
mod sandbox;
mod settled;
mod store;
mod usage;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::LogLimits;
use crate::container::cgroup::{self, Limits, PodGroup};
use crate::container::namespaces::unmount_below;
use crate::container::shared_processes::HolderOrder;
use crate::image::reference::names_registry;
use crate::image::{ImageError, ImageStore, Reference, registry};
use crate::node::images::NodeImage;
use crate::pod::{ContainerId, PodRef, volumes};
use crate::runtime::native::launcher::Launcher;
use crate::runtime::native::sandbox::Sandboxes;
use crate::runtime::native::store::NativeStore;
use crate::runtime::{
    Begins, ByteStream, Collect, ContainerConfig, EVENT_QUEUE, ExecOutput, Fetch, FoundContainer, FoundState,
    ImageUse, PullPolicy, Runtime, RuntimeError, RuntimeEvent, SandboxConfig, Session, Streams,
};
use crate::shim::record::{ContainerDir, Order, RunningRecord};
use crate::shim::request::Wanted;
use crate::stats::ContainerUsage;

pub use store::{log_path, pod_log_dir, power_off};

/// Runs containers as processes of the host.
pub struct NativeRuntime {
    store: NativeStore,
    images: ImageStore,
    sandboxes: Sandboxes,
    data_dir: PathBuf,
    launcher: Arc<Launcher>,
    /// Where the node's promise is kept.
    promise: PathBuf,
    limits: LogLimits,
    events: mpsc::Sender<RuntimeEvent>,
    receiver: Mutex<Option<mpsc::Receiver<RuntimeEvent>>>,
    /// Where each container that was made or found lives, with what it was made from.
    containers: Mutex<BTreeMap<ContainerId, Arc<Known>>>,
    /// One task per running container, waiting for its end.
    watchers: Mutex<JoinSet<()>>,
}

/// A container this runtime has made or found.
#[derive(Debug)]
struct Known {
    dir: ContainerDir,
    config: ContainerConfig,
}

fn system(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> RuntimeError {
    let attempted = attempted.into();
    |source| RuntimeError::System { attempted, source }
}

impl NativeRuntime {
    /// Keeps its records below `data_dir` and takes images from `images`. `shim_command` ends in
    /// [`crate::shim_main`].
    pub fn new(data_dir: &Path, images: ImageStore, shim_command: Vec<OsString>, limits: LogLimits) -> Self {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        cgroup::look();
        Self {
            store: NativeStore::new(data_dir),
            images,
            sandboxes: Sandboxes::new(data_dir),
            data_dir: data_dir.to_owned(),
            launcher: Arc::new(Launcher::new(shim_command, data_dir)),
            promise: crate::fence::path(data_dir),
            limits,
            events,
            receiver: Mutex::new(Some(receiver)),
            containers: Mutex::new(BTreeMap::new()),
            watchers: Mutex::new(JoinSet::new()),
        }
    }

    fn known(&self, id: &ContainerId) -> Result<Arc<Known>, RuntimeError> {
        self.containers.lock().get(id).cloned().ok_or_else(|| RuntimeError::NotRunning(id.clone()))
    }

    fn remember(&self, id: &ContainerId, dir: ContainerDir, config: ContainerConfig) {
        self.containers.lock().insert(id.clone(), Arc::new(Known { dir, config }));
    }

    fn running(&self, id: &ContainerId) -> Result<(Arc<Known>, RunningRecord), RuntimeError> {
        let known = self.known(id)?;
        let record = known.dir.running().map_err(system(format!("read the record of container {id}")))?;
        Ok((known, record.ok_or_else(|| RuntimeError::NotRunning(id.clone()))?))
    }

    /// Fetches an image from its registry, with the logins for that registry in their order and then without
    /// one. What nobody uses makes room first if the disk is nearly full.
    async fn pull(&self, image: &str, fetch: &Fetch, begins: &Begins<'_>) -> Result<ImageUse, RuntimeError> {
        let reference: Reference =
            image.parse().map_err(|error: ImageError| RuntimeError::Image(error.chain()))?;
        begins();
        self.make_room().await;
        let begun = std::time::Instant::now();
        match registry::pull_as(&self.images, &reference, &fetch.logins).await {
            Ok(image) => Ok(ImageUse::Pulled(Box::new(image), begun.elapsed())),
            Err(why) => Err(RuntimeError::Image(format!("failed to pull and unpack image {image:?}: {why}"))),
        }
    }

    async fn make_room(&self) {
        let images = self.images.clone();
        let collected = tokio::task::spawn_blocking(move || images.collect_if_full()).await;
        match collected {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => {
                tracing::info!(bytes, "removed images that nobody uses: the disk is nearly full")
            }
            Ok(Err(error)) => tracing::warn!(error = %error.chain(), "make room for an image"),
            Err(error) => tracing::warn!(%error, "make room for an image"),
        }
    }

    /// Leads a container that looks into another one to that one's first process.
    fn joined(&self, mut config: ContainerConfig) -> Result<ContainerConfig, RuntimeError> {
        let (Some(target), Some(isolation)) = (&config.target, &mut config.isolation) else {
            return Ok(config);
        };
        let is_target =
            |known: &Known| known.config.pod.uid == config.pod.uid && known.config.container == *target;
        let runs: Vec<ContainerId> = {
            let containers = self.containers.lock();
            containers.iter().filter(|(_, known)| is_target(known)).map(|(id, _)| id.clone()).collect()
        };
        let found = runs.iter().filter_map(|id| self.running(id).ok()).map(|(_, record)| record);
        let newest = found.max_by_key(|record| record.started_at);
        let newest = newest
            .ok_or_else(|| RuntimeError::Config(format!("unable to find target container {target}")))?;
        isolation.joins = Some(newest.process);
        Ok(config)
    }

    /// Has somebody hold the pid namespace that the containers of the pod share, unless somebody does.
    async fn hold_processes(&self, config: &ContainerConfig) -> Result<(), RuntimeError> {
        if config.isolation.as_ref().is_none_or(|isolation| !isolation.shares_processes) {
            return Ok(());
        }
        let (launcher, sandbox) = (self.launcher.clone(), self.sandboxes.dir(&config.pod));
        let network = config.network.as_ref().map(|place| place.namespace.clone());
        let hold = move || launcher.hold(&sandbox, HolderOrder { network });
        let held = tokio::task::spawn_blocking(hold).await;
        held.map_err(io::Error::other).map_err(system("hold the pod's processes"))?
    }

    /// Has the end of a running container told as an event.
    fn watch(&self, id: &ContainerId, known: &Known, record: RunningRecord) {
        let task = watch::end_of(
            id.clone(),
            known.config.pod.clone(),
            known.dir.clone(),
            record,
            self.events.clone(),
        );
        let mut watchers = self.watchers.lock();
        while watchers.try_join_next().is_some() {}
        watchers.spawn(task);
    }
}

#[async_trait]
impl Runtime for NativeRuntime {
    fn name(&self) -> &str {
        "amoeba"
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn refuses(&self, pod: &Pod, container: &Container) -> Option<String> {
        volumes::plain::refusal(pod, container)
    }

    fn sandbox_dir(&self, pod: &PodRef) -> Option<PathBuf> {
        Some(self.sandboxes.dir(pod))
    }

    fn image_store(&self) -> Option<&ImageStore> {
        Some(&self.images)
    }

    async fn has_lost(&self, pod: &PodRef) -> bool {
        let (launcher, sandbox) = (self.launcher.clone(), self.sandboxes.dir(pod));
        tokio::task::spawn_blocking(move || launcher.has_lost(&sandbox)).await.unwrap_or(false)
    }

    async fn stop_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        let processes = self.sandboxes.processes(pod);
        blocking("end what holds the pod's processes", move || processes.end()).await
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<(), RuntimeError> {
        let (sandboxes, config) = (self.sandboxes.clone(), config.clone());
        blocking("make the pod's sandbox", move || sandboxes.make(&config)).await
    }

    async fn remove_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.containers.lock().retain(|_, known| known.config.pod.uid != pod.uid);
        let (store, sandboxes, pod) = (self.store.clone(), self.sandboxes.clone(), pod.clone());
        let removed = move || {
            cgroup::remove_pod(&pod.uid.0);
            sandboxes.remove(&pod).and_then(|()| store.remove_pod(&pod))
        };
        blocking("remove the pod's records", removed).await
    }

    async fn ensure_image(
        &self,
        config: &ContainerConfig,
        fetch: &Fetch,
        begins: &Begins<'_>,
    ) -> Result<ImageUse, RuntimeError> {
        let (images, name) = (self.images.clone(), config.image.clone());
        let found = tokio::task::spawn_blocking(move || images.find(&name)).await;
        let found = found.map_err(io::Error::other).map_err(system("look for the image"))?;
        // Who says where an image comes from means that image and no other, least of all this machine's files.
        let plain = !config.command.is_empty() && !names_registry(&config.image);
        match (found, fetch.policy) {
            (Ok(Some(_)), PullPolicy::Always) => self.pull(&config.image, fetch, begins).await,
            (Ok(Some(image)), _) => Ok(ImageUse::Present(Some(Box::new(image)))),
            (Ok(None), _) if plain => Ok(ImageUse::Plain),
            (Ok(None), PullPolicy::Never) => Err(RuntimeError::NeverPull(format!(
                "Container image \"{}\" is not present with pull policy of Never",
                config.image
            ))),
            (Ok(None), _) => self.pull(&config.image, fetch, begins).await,
            (Err(ImageError::Reference { .. }), _) if plain => Ok(ImageUse::Plain),
            (Err(error @ ImageError::Reference { .. }), _) => {
                let (image, why) = (&config.image, error.chain());
                let text = format!("Failed to apply default image tag {image:?}: {why}");
                Err(RuntimeError::InvalidImageName(text))
            }
            (Err(error), _) => Err(RuntimeError::Image(error.chain())),
        }
    }

    async fn images(&self) -> Result<Vec<NodeImage>, RuntimeError> {
        let images = self.images.clone();
        let list = move || images.list().map_err(|error| io::Error::other(error.chain()));
        Ok(blocking("list the images", list).await?.into_iter().map(NodeImage::from).collect())
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let (id, dir) = self.store.place(&config.pod, &config.container, config.attempt);
        let config = settled::settled(self.joined(config)?, &id, dir.path());
        let log_path = self.store.log_path(&config.pod, &config.container, config.attempt);
        let promise = config.self_fence.then(|| self.promise.clone());
        let order = Order { config: config.clone(), log_path, limits: self.limits, promise };
        let created = dir.clone();
        let sandboxes = self.sandboxes.clone();
        let made = move || {
            created.create(&order)?;
            settled::last_words_file(&order)?;
            if order.config.isolation.is_some() { sandboxes.share(&order.config.pod) } else { Ok(()) }
        };
        blocking("record the container", made).await?;
        self.hold_processes(&config).await?;
        self.remember(&id, dir, config);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<Timestamp, RuntimeError> {
        let known = self.known(id)?;
        let launcher = self.launcher.clone();
        // The answer is waited for on a thread that may block.
        let launch = move || launcher.launch(Wanted::Supervisor, known.dir.path());
        let launched = tokio::task::spawn_blocking(launch).await;
        launched.map_err(io::Error::other).map_err(system("start a supervisor"))??;
        let (known, record) = self.running(id)?;
        let started_at = record.started_at;
        self.watch(id, &known, record);
        Ok(started_at)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Ok((known, record)) = self.running(id) else { return Ok(()) };
        let asks = known.config.stop_signal.and_then(|number| Signal::try_from(number).ok());
        let signal = if grace.is_zero() { Signal::SIGKILL } else { asks.unwrap_or(Signal::SIGTERM) };
        let attempted = format!("send {signal} to container {id}");
        match record.process.open().map_err(system(attempted.clone()))? {
            Some(process) => process.signal(signal).map_err(system(attempted)),
            None => Ok(()),
        }
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        limits: &Limits,
        pod: &PodGroup,
    ) -> Result<(), RuntimeError> {
        let (known, _) = self.running(id)?;
        let Some(cgroup) = known.config.cgroup.clone() else {
            return Err(RuntimeError::Create("a plain process has no limits to change".to_owned()));
        };
        // A pod of a time when pods had no limits of their own keeps none.
        let pod = known.config.pod_group.as_ref().map(|_| pod.clone());
        let limits = limits.clone();
        blocking("change the container's limits", move || cgroup.change(&limits, pod.as_ref())).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Some(known) = self.containers.lock().remove(id) else { return Ok(()) };
        let (store, limits) = (self.store.clone(), self.limits);
        blocking("remove the container's record", move || store.remove_run(&known.dir, &known.config, limits))
            .await
    }

    async fn list_containers(&self) -> Result<Vec<FoundContainer>, RuntimeError> {
        let store = self.store.clone();
        let runs = blocking("read the containers' records", move || store.runs()).await?;
        let mut found = Vec::with_capacity(runs.len());
        for run in runs {
            let state = watch::settled_state(&run.dir, Timestamp::now())
                .map_err(system(format!("read the record of container {}", run.id)))?;
            self.remember(&run.id, run.dir.clone(), run.config.clone());
            if let (FoundState::Running { .. }, Ok((known, record))) = (&state, self.running(&run.id)) {
                self.watch(&run.id, &known, record);
            }
            let ContainerConfig { pod, container, attempt, isolation, .. } = run.config;
            let image_id = isolation.map(|isolation| isolation.image_id);
            found.push(FoundContainer { id: run.id, pod, container, attempt, state, image_id });
        }
        Ok(found)
    }

    async fn shut_down(&self) -> Result<(), RuntimeError> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let (sandboxes, dir) = (self.sandboxes.clone(), self.data_dir.clone());
        let end = move || sandboxes.end_processes().and_then(|()| unmount_below(&dir));
        blocking("end and unmount what pods shared", end).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let (known, record) = self.running(id)?;
        exec::run(&known.config, &record, command, timeout).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, RuntimeError> {
        let (known, record) = self.running(id)?;
        exec::start(&known.config, &record, command, streams)
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Session, RuntimeError> {
        let (known, _) = self.running(id)?;
        // With a terminal both outputs are one.
        let streams = Streams { stderr: streams.stderr && !known.config.tty, ..streams };
        attach::start(known.dir.path(), streams).await
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
        let of_pod = |known: &Arc<Known>| known.config.pod.uid == pod.uid;
        let known = self.containers.lock().values().find(|known| of_pod(known)).cloned();
        port_forward::dial(known.and_then(|known| known.config.network.clone()), port).await
    }

    async fn collect_images(&self, what: Collect) -> Result<u64, RuntimeError> {
        let images = self.images.clone();
        let collected = tokio::task::spawn_blocking(move || match what {
            Collect::WhatIsLacking => images.collect_if_full(),
            Collect::All => images.collect(|| false),
        });
        let collected = collected.await.map_err(|error| RuntimeError::Image(error.to_string()))?;
        collected.map_err(|error| RuntimeError::Image(error.chain()))
    }

    async fn image_dirs(&self) -> Vec<PathBuf> {
        vec![self.images.layers()]
    }

    async fn usage(&self) -> Result<Vec<ContainerUsage>, RuntimeError> {
        let known: Vec<_> =
            self.containers.lock().iter().map(|(id, known)| (id.clone(), known.clone())).collect();
        blocking("measure the containers", move || usage::of_containers(known)).await
    }

    fn events(&self) -> Option<mpsc::Receiver<RuntimeEvent>> {
        self.receiver.lock().take()
    }
}

/// Runs file work off the event loop.
async fn blocking<T: Send + 'static>(
    attempted: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RuntimeError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|result| result);
    done.map_err(system(attempted))
}

/// The command of this very program that ends in the shim.
pub fn own_shim_command() -> io::Result<Vec<OsString>> {
    let program: PathBuf = std::env::current_exe()?;
    Ok(vec![program.into_os_string(), "shim".into()])
}
