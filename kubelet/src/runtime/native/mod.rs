//! Containers as plain processes of the host, each under a shim.
//!
//! **Not isolated**: a container sees the host's files, processes and network. Its image is a name and no
//! more; `command` says what runs. What a plain process can't honour is refused by name.
//!
//! Always holds: every container this node ever started has a directory that says so before its process
//! exists, so a restarted agent finds all of them; no signal reaches a process that only has the number
//! of ours.

mod enter;
mod exec;
mod launcher;
mod port_forward;
mod pty;
mod store;
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
use crate::pod::{ContainerId, PodRef, volumes};
use crate::runtime::native::launcher::Launcher;
use crate::runtime::native::store::NativeStore;
use crate::runtime::{
    ByteStream, ContainerConfig, EVENT_QUEUE, ExecOutput, FoundContainer, FoundState, Runtime, RuntimeError,
    RuntimeEvent, Session, Streams,
};
use crate::shim::record::{ContainerDir, Order, RunningRecord};

pub use store::{log_path, power_off};

/// Runs containers as processes of the host.
pub struct NativeRuntime {
    store: NativeStore,
    launcher: Arc<Launcher>,
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
    /// Keeps its records below `data_dir`. `shim_command` ends in [`crate::shim_main`].
    pub fn new(data_dir: &Path, shim_command: Vec<OsString>, limits: LogLimits) -> Self {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        Self {
            store: NativeStore::new(data_dir),
            launcher: Arc::new(Launcher::new(shim_command, data_dir)),
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
        volumes::refusal(pod, container)
    }

    async fn run_sandbox(&self, _pod: &PodRef) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.containers.lock().retain(|_, known| known.config.pod.uid != pod.uid);
        let (store, pod) = (self.store.clone(), pod.clone());
        blocking("remove the pod's records", move || store.remove_pod(&pod)).await
    }

    async fn ensure_image(&self, config: &ContainerConfig) -> Result<(), RuntimeError> {
        if !config.command.is_empty() {
            return Ok(());
        }
        Err(RuntimeError::Image(format!(
            "image {} has no local filesystem; the native runtime runs `command` as a host process: \
             set spec.containers[].command",
            config.image
        )))
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let (id, dir) = self.store.place(&config.pod, &config.container, config.attempt);
        let log_path = self.store.log_path(&config.pod, &config.container, config.attempt);
        let order = Order { config: config.clone(), log_path, limits: self.limits };
        let created = dir.clone();
        blocking("record the container", move || created.create(&order)).await?;
        self.remember(&id, dir, config);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<Timestamp, RuntimeError> {
        let known = self.known(id)?;
        let launcher = self.launcher.clone();
        // The answer is waited for on a thread that may block.
        let launched = tokio::task::spawn_blocking(move || launcher.launch(known.dir.path())).await;
        launched.map_err(io::Error::other).map_err(system("start a supervisor"))??;
        let (known, record) = self.running(id)?;
        let started_at = record.started_at;
        self.watch(id, &known, record);
        Ok(started_at)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Ok((_, record)) = self.running(id) else { return Ok(()) };
        let signal = if grace.is_zero() { Signal::SIGKILL } else { Signal::SIGTERM };
        let attempted = format!("send {signal} to container {id}");
        match record.process.open().map_err(system(attempted.clone()))? {
            Some(process) => process.signal(signal).map_err(system(attempted)),
            None => Ok(()),
        }
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
            let ContainerConfig { pod, container, attempt, .. } = run.config;
            found.push(FoundContainer { id: run.id, pod, container, attempt, state });
        }
        Ok(found)
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

    async fn port_forward(&self, _pod: &PodRef, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
        port_forward::dial(port).await
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
