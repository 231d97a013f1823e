//! Two runtimes on one node: each pod goes to the one that its RuntimeClass's handler names.
//!
//! Always holds: a pod stays with the runtime that has made anything of it; a container's identifier is
//! answered by the runtime that gave it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::container::cgroup::{Limits, PodGroup};
use crate::image::ImageStore;
use crate::node::images::NodeImage;
use crate::pod::{ContainerId, PodRef, PodUid};
use crate::runtime::{
    Begins, ByteStream, Collect, ContainerConfig, EVENT_QUEUE, ExecOutput, Fetch, FoundContainer, ImageUse,
    NATIVE_HANDLER, Runtime, RuntimeError, RuntimeEvent, SandboxConfig, Session, Streams,
};
use crate::stats::ContainerUsage;

/// The runtime within the agent, and another one that takes all pods that don't ask for the first.
pub struct ByClass {
    native: Arc<dyn Runtime>,
    other: Arc<dyn Runtime>,
    /// Those of the native runtime; all else is the other's.
    native_pods: Mutex<BTreeSet<PodUid>>,
    native_containers: Mutex<BTreeSet<ContainerId>>,
    forwarders: Mutex<JoinSet<()>>,
}

impl ByClass {
    /// With nothing running.
    pub fn new(native: Arc<dyn Runtime>, other: Arc<dyn Runtime>) -> Self {
        Self {
            native,
            other,
            native_pods: Mutex::default(),
            native_containers: Mutex::default(),
            forwarders: Mutex::default(),
        }
    }

    fn of(&self, pod: &PodRef) -> &dyn Runtime {
        let native = self.native_pods.lock().contains(&pod.uid);
        if native { &*self.native } else { &*self.other }
    }

    fn owner(&self, id: &ContainerId) -> &dyn Runtime {
        let native = self.native_containers.lock().contains(id);
        if native { &*self.native } else { &*self.other }
    }
}

#[async_trait]
impl Runtime for ByClass {
    fn name(&self) -> &str {
        self.other.name()
    }

    fn version(&self) -> &str {
        self.other.version()
    }

    fn refuses(&self, pod: &Pod, container: &Container) -> Option<String> {
        self.of(&PodRef::of(pod)).refuses(pod, container)
    }

    fn assign(&self, pod: &PodRef, handler: &str) -> Result<(), RuntimeError> {
        if handler == NATIVE_HANDLER {
            self.native_pods.lock().insert(pod.uid.clone());
        }
        self.of(pod).assign(pod, handler)
    }

    fn is_remote(&self, pod: &PodRef) -> bool {
        self.of(pod).is_remote(pod)
    }

    async fn address(&self, pod: &PodRef) -> Result<Option<String>, RuntimeError> {
        self.of(pod).address(pod).await
    }

    async fn has_lost(&self, pod: &PodRef) -> bool {
        self.of(pod).has_lost(pod).await
    }

    async fn set_hosts(&self, pod: &PodRef, hosts: &str) -> Result<(), RuntimeError> {
        self.of(pod).set_hosts(pod, hosts).await
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<(), RuntimeError> {
        self.of(&config.pod).run_sandbox(config).await
    }

    async fn stop_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.of(pod).stop_sandbox(pod).await
    }

    /// Of both: a pod of an earlier agent, of which there are only records, may be anybody's.
    async fn remove_sandbox(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        self.native.remove_sandbox(pod).await?;
        self.other.remove_sandbox(pod).await?;
        self.native_pods.lock().remove(&pod.uid);
        Ok(())
    }

    async fn ensure_image(
        &self,
        config: &ContainerConfig,
        fetch: &Fetch,
        begins: &Begins<'_>,
    ) -> Result<ImageUse, RuntimeError> {
        self.of(&config.pod).ensure_image(config, fetch, begins).await
    }

    async fn images(&self) -> Result<Vec<NodeImage>, RuntimeError> {
        let mut all = self.native.images().await?;
        all.extend(self.other.images().await?);
        Ok(all)
    }

    fn lacks_image_volumes(&self, pod: &PodRef) -> Option<String> {
        self.of(pod).lacks_image_volumes(pod)
    }

    fn sandbox_dir(&self, pod: &PodRef) -> Option<PathBuf> {
        self.of(pod).sandbox_dir(pod)
    }

    fn image_store(&self) -> Option<&ImageStore> {
        self.native.image_store()
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let pod = config.pod.clone();
        let id = self.of(&pod).create_container(config).await?;
        if self.native_pods.lock().contains(&pod.uid) {
            self.native_containers.lock().insert(id.clone());
        }
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<Timestamp, RuntimeError> {
        self.owner(id).start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.owner(id).stop_container(id, grace).await
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        limits: &Limits,
        pod: &PodGroup,
    ) -> Result<(), RuntimeError> {
        self.owner(id).update_container(id, limits, pod).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.owner(id).remove_container(id).await?;
        self.native_containers.lock().remove(id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<FoundContainer>, RuntimeError> {
        let mut all = self.native.list_containers().await?;
        self.native_pods.lock().extend(all.iter().map(|found| found.pod.uid.clone()));
        self.native_containers.lock().extend(all.iter().map(|found| found.id.clone()));
        all.extend(self.other.list_containers().await?);
        Ok(all)
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        self.owner(id).exec_sync(id, command, timeout).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, RuntimeError> {
        self.owner(id).exec(id, command, streams).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Session, RuntimeError> {
        self.owner(id).attach(id, streams).await
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
        self.of(pod).port_forward(pod, port).await
    }

    async fn shut_down(&self) -> Result<(), RuntimeError> {
        self.native.shut_down().await?;
        self.other.shut_down().await
    }

    /// The agent's own answers for itself, by the agent's signs of life.
    async fn troubles(&self) -> Result<Vec<String>, RuntimeError> {
        self.other.troubles().await
    }

    async fn collect_images(&self, what: Collect) -> Result<u64, RuntimeError> {
        let (own, other) = (self.native.collect_images(what).await, self.other.collect_images(what).await);
        Ok(own? + other?)
    }

    async fn image_dirs(&self) -> Vec<PathBuf> {
        [self.native.image_dirs().await, self.other.image_dirs().await].concat()
    }

    async fn usage(&self) -> Result<Vec<ContainerUsage>, RuntimeError> {
        let mut all = self.native.usage().await?;
        all.extend(self.other.usage().await?);
        Ok(all)
    }

    /// One queue for both. Its forwarders wait when it is full, and with them the runtimes' own watchers.
    fn events(&self) -> Option<mpsc::Receiver<RuntimeEvent>> {
        let (to, receiver) = mpsc::channel(EVENT_QUEUE);
        let sources = [self.native.events()?, self.other.events()?];
        let mut forwarders = self.forwarders.lock();
        for mut from in sources {
            let to = to.clone();
            forwarders.spawn(async move {
                while let Some(event) = from.recv().await {
                    if to.send(event).await.is_err() {
                        return;
                    }
                }
            });
        }
        Some(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{FakeRuntime, FakeScript};

    #[tokio::test]
    async fn pods_go_where_their_class_says_and_stay_there() {
        let fake = || Arc::new(FakeRuntime::new(FakeScript::default())) as Arc<dyn Runtime>;
        let (native, other) = (fake(), fake());
        let both = ByClass::new(native.clone(), other.clone());
        let pod = |uid: &str| PodRef { uid: PodUid(uid.to_owned()), ..PodRef::default() };
        for (uid, handler) in [("n", NATIVE_HANDLER), ("o", "")] {
            both.assign(&pod(uid), handler).expect("known");
            let config = ContainerConfig { pod: pod(uid), ..ContainerConfig::default() };
            let id = both.create_container(config).await.expect("made");
            both.start_container(&id).await.expect("started");
        }
        let pods = async |runtime: &Arc<dyn Runtime>| {
            let found = runtime.list_containers().await.expect("listed");
            found.into_iter().map(|found| found.pod.uid.0).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((pods(&native).await, pods(&other).await), ("n".to_owned(), "o".to_owned()));
        // The next agent finds each where it is.
        let next = ByClass::new(native, other);
        assert_eq!(next.list_containers().await.expect("listed").len(), 2);
        assert!(std::ptr::addr_eq(next.of(&pod("n")), &*next.native));
        assert!(std::ptr::addr_eq(next.of(&pod("o")), &*next.other));
        let refused = both.assign(&pod("x"), "gvisor").expect_err("the fake one knows no other");
        assert_eq!(
            refused.to_string(),
            "failed to get sandbox runtime: no runtime for \"gvisor\" is configured"
        );
    }
}
