//! A runtime in which nothing runs: deterministic, for tests and simulated nodes.
//!
//! What a container does is written in its pod: the variable `FAKE_SCRIPT` holds a script of
//! its runs, one word each, the last one repeated: `run` (until stopped), `exit:CODE` (at once),
//! `exit:CODE:MILLISECONDS`, `fail` (can't be started), `pull` (no such image).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::container::cgroup::{Limits, PodGroup};
use crate::pod::{ContainerId, PodRef};
use crate::runtime::{
    Begins, ByteStream, ContainerConfig, EVENT_QUEUE, ExecOutput, Exit, Fetch, FoundContainer, FoundState,
    ImageUse, Runtime, RuntimeError, RuntimeEvent, SandboxConfig, Session, Streams,
};
use crate::stats::ContainerUsage;

/// The environment variable through which a container says what it does.
pub const SCRIPT_VARIABLE: &str = "FAKE_SCRIPT";

/// What the fake runtime does with the containers it is asked to run.
#[derive(Clone, Debug, Default)]
pub struct FakeScript {
    /// Between the request to start a container and its start.
    pub start_delay: Duration,
    /// Between the request to end a container and its end.
    pub stop_delay: Duration,
    /// So many requests to end a container fail, as while a runtime is being restarted; then they are heard.
    pub unheard_stops: u32,
}

/// What one run of a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Run,
    Exit { code: i32, after: Duration },
    Fail,
    Pull,
}

/// The act of the n-th run: `run,exit:1:50,fail` and so on, the last one repeated.
fn act(script: &str, attempt: u32) -> Act {
    let words: Vec<&str> = script.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let index = usize::try_from(attempt).unwrap_or(usize::MAX);
    let Some(word) = words.get(index).or(words.last()) else { return Act::Run };
    let mut parts = word.split(':');
    match parts.next() {
        Some("exit") => {
            let code = parts.next().and_then(|code| code.parse().ok()).unwrap_or(0);
            let millis = parts.next().and_then(|millis| millis.parse().ok()).unwrap_or(0);
            Act::Exit { code, after: Duration::from_millis(millis) }
        }
        Some("fail") => Act::Fail,
        Some("pull") => Act::Pull,
        _ => Act::Run,
    }
}

/// A runtime in which nothing runs.
pub struct FakeRuntime {
    script: FakeScript,
    unheard_stops: AtomicU32,
    events: mpsc::Sender<RuntimeEvent>,
    receiver: Mutex<Option<mpsc::Receiver<RuntimeEvent>>>,
    shared: Arc<Mutex<BTreeMap<ContainerId, FakeContainer>>>,
    timers: Mutex<JoinSet<()>>,
}

struct FakeContainer {
    config: ContainerConfig,
    state: FoundState,
}

impl FakeRuntime {
    /// With nothing running.
    pub fn new(script: FakeScript) -> Self {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        Self {
            unheard_stops: AtomicU32::new(script.unheard_stops),
            script,
            events,
            receiver: Mutex::new(Some(receiver)),
            shared: Arc::default(),
            timers: Mutex::new(JoinSet::new()),
        }
    }

    /// Ends a running container after a while and tells it.
    fn end_later(&self, id: &ContainerId, code: i32, after: Duration) {
        let (shared, events, id) = (self.shared.clone(), self.events.clone(), id.clone());
        let mut timers = self.timers.lock();
        while timers.try_join_next().is_some() {}
        timers.spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(event) = end(&shared, &id, code) {
                // The receiver is gone only when the node ends.
                let _ = events.send(event).await;
            }
        });
    }
}

/// `None` if it wasn't running.
fn end(
    shared: &Mutex<BTreeMap<ContainerId, FakeContainer>>,
    id: &ContainerId,
    code: i32,
) -> Option<RuntimeEvent> {
    let mut shared = shared.lock();
    let container = shared.get_mut(id)?;
    let FoundState::Running { started_at } = container.state else { return None };
    let exit = Exit::with_code(code, started_at, Timestamp::now());
    container.state = FoundState::Exited(exit.clone());
    Some(RuntimeEvent { pod: container.config.pod.clone(), id: id.clone(), exit })
}

fn script_of(config: &ContainerConfig) -> &str {
    config.env.get(SCRIPT_VARIABLE).map(String::as_str).unwrap_or_default()
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn name(&self) -> &str {
        "fake"
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn refuses(&self, _pod: &Pod, _container: &Container) -> Option<String> {
        None
    }

    async fn run_sandbox(&self, _config: &SandboxConfig) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.shared.lock().retain(|_, container| container.config.pod.uid != pod.uid);
        Ok(())
    }

    async fn ensure_image(
        &self,
        config: &ContainerConfig,
        _fetch: &Fetch,
        _begins: &Begins<'_>,
    ) -> Result<ImageUse, RuntimeError> {
        match act(script_of(config), config.attempt) {
            Act::Pull => Err(RuntimeError::Image(format!("image {} is not to be had", config.image))),
            _ => Ok(ImageUse::Present(None)),
        }
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let id = ContainerId(format!("{}-{}-{}", config.pod.uid, config.container, config.attempt));
        self.shared.lock().insert(id.clone(), FakeContainer { config, state: FoundState::Created });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<Timestamp, RuntimeError> {
        if !self.script.start_delay.is_zero() {
            tokio::time::sleep(self.script.start_delay).await;
        }
        let now = Timestamp::now();
        let act = {
            let mut shared = self.shared.lock();
            let container = shared.get_mut(id).ok_or_else(|| RuntimeError::NotRunning(id.clone()))?;
            let act = act(script_of(&container.config), container.config.attempt);
            if act == Act::Fail {
                return Err(RuntimeError::Start("the script says fail".to_owned()));
            }
            container.state = FoundState::Running { started_at: now };
            act
        };
        if let Act::Exit { code, after } = act {
            self.end_later(id, code, after);
        }
        Ok(now)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let left =
            self.unheard_stops.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left.is_ok() {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            return Err(RuntimeError::System { attempted: format!("stop container {id}"), source });
        }
        if grace.is_zero() {
            self.end_later(id, 137, Duration::ZERO);
        } else {
            self.end_later(id, 143, self.script.stop_delay);
        }
        Ok(())
    }

    async fn update_container(
        &self,
        _id: &ContainerId,
        _limits: &Limits,
        _pod: &PodGroup,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.shared.lock().remove(id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<FoundContainer>, RuntimeError> {
        let shared = self.shared.lock();
        let found = shared.iter().map(|(id, container)| FoundContainer {
            id: id.clone(),
            pod: container.config.pod.clone(),
            container: container.config.container.clone(),
            attempt: container.config.attempt,
            state: container.state.clone(),
            image_id: None,
        });
        Ok(found.collect())
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        _command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        match self.shared.lock().get(id).map(|container| &container.state) {
            Some(FoundState::Running { .. }) => Ok(ExecOutput { code: 0, output: Vec::new() }),
            _ => Err(RuntimeError::NotRunning(id.clone())),
        }
    }

    async fn exec(
        &self,
        id: &ContainerId,
        _command: &[String],
        _streams: Streams,
    ) -> Result<Session, RuntimeError> {
        Err(RuntimeError::NotRunning(id.clone()))
    }

    async fn attach(&self, id: &ContainerId, _streams: Streams) -> Result<Session, RuntimeError> {
        Err(RuntimeError::NotRunning(id.clone()))
    }

    async fn port_forward(&self, _pod: &PodRef, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(RuntimeError::System { attempted: format!("connect to port {port}"), source })
    }

    async fn usage(&self) -> Result<Vec<ContainerUsage>, RuntimeError> {
        Ok(Vec::new())
    }

    fn events(&self) -> Option<mpsc::Receiver<RuntimeEvent>> {
        self.receiver.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_say_what_each_run_does() {
        let exit = |code, millis| Act::Exit { code, after: Duration::from_millis(millis) };
        for (script, attempt, want) in [
            ("", 0, Act::Run),
            ("run", 3, Act::Run),
            ("exit:1", 0, exit(1, 0)),
            ("exit:1:50, run", 0, exit(1, 50)),
            ("exit:1:50, run", 7, Act::Run),
            ("fail,pull", 0, Act::Fail),
            ("fail,pull", 1, Act::Pull),
        ] {
            assert_eq!(act(script, attempt), want, "{script} {attempt}");
        }
    }
}
