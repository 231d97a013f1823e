//! The calls to a runtime, each with a deadline: a runtime that hangs holds nobody up for ever.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use tonic::{Response, Status, Streaming};

use super::channel::Channel;
use super::proto::image_service_client::ImageServiceClient;
use super::proto::runtime_service_client::RuntimeServiceClient;
use super::proto::{self, PodSandboxState};
use crate::pod::ContainerId;
use crate::runtime::RuntimeError;

/// Upstream's limit for most calls.
const LIMIT: Duration = Duration::from_secs(120);
/// The network of a pod is made by plugins, which may take their time.
const SANDBOX_LIMIT: Duration = Duration::from_secs(240);
/// A layer may be large and its registry far away.
const PULL_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The longest list of containers that is understood, in bytes (upstream's).
const LONGEST: usize = 16 << 20;

/// One runtime, asked over its socket. Clones share the connection.
#[derive(Clone)]
pub struct CriClient {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// Waits for an answer, not longer than this.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
    }
}

/// A refusal as gRPC's own library in Go prints it, which users know.
pub fn text(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// An error that says what was attempted.
pub fn refused(attempted: &str) -> impl FnOnce(Status) -> RuntimeError {
    let attempted = attempted.to_owned();
    move |status| RuntimeError::System { attempted, source: io::Error::other(text(&status)) }
}

/// What isn't there need not be ended or removed.
fn gone_is_fine<T: Default>(answer: Result<T, Status>) -> Result<T, Status> {
    match answer {
        Err(status) if status.code() == tonic::Code::NotFound => Ok(T::default()),
        other => other,
    }
}

impl CriClient {
    /// To the runtime that listens on this socket.
    pub fn new(socket: &Path) -> Self {
        let channel = Channel::new(socket);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(LONGEST),
            images: ImageServiceClient::new(channel).max_decoding_message_size(LONGEST),
        }
    }

    /// Who it is.
    pub async fn version(&self) -> Result<proto::VersionResponse, Status> {
        let request = proto::VersionRequest { version: "v1".to_owned() };
        within(LIMIT, self.runtime.clone().version(request)).await
    }

    /// What it says of itself: whether it and its network are ready.
    pub async fn status(&self) -> Result<proto::RuntimeStatus, Status> {
        let answer =
            within(LIMIT, self.runtime.clone().status(proto::StatusRequest { verbose: false })).await?;
        Ok(answer.status.unwrap_or_default())
    }

    /// What becomes of containers, from now on, whoever's they are. Servers written with gRPC's Go library answer
    /// only when there is something to tell, so this waits as long as it must.
    pub async fn events(&self) -> Result<Streaming<proto::ContainerEventResponse>, Status> {
        let answer = self.runtime.clone().get_container_events(proto::GetEventsRequest {}).await?;
        Ok(answer.into_inner())
    }

    /// The sandboxes with these labels, the newest first.
    pub async fn sandboxes(
        &self,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<proto::PodSandbox>, Status> {
        let filter = proto::PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = proto::ListPodSandboxRequest { filter: Some(filter) };
        let mut items = within(LIMIT, self.runtime.clone().list_pod_sandbox(request)).await?.items;
        items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
        Ok(items)
    }

    /// Makes one; its identifier.
    pub async fn run_sandbox(
        &self,
        config: proto::PodSandboxConfig,
        handler: String,
    ) -> Result<String, Status> {
        let request = proto::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        let made = within(SANDBOX_LIMIT, self.runtime.clone().run_pod_sandbox(request)).await?;
        Ok(made.pod_sandbox_id)
    }

    /// Whether it can be used, and its address; none in the host's network.
    pub async fn sandbox_status(&self, id: &str) -> Result<(bool, Option<String>), Status> {
        let request = proto::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let status = within(LIMIT, self.runtime.clone().pod_sandbox_status(request)).await?.status;
        let status = status.unwrap_or_default();
        let address = status.network.as_ref().map(|network| network.ip.clone()).filter(|ip| !ip.is_empty());
        Ok((status.state() == PodSandboxState::SandboxReady, address))
    }

    /// Ends its processes and takes its network away.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = proto::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within(SANDBOX_LIMIT, self.runtime.clone().stop_pod_sandbox(request)).await).map(drop)
    }

    /// Removes it with its containers.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = proto::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within(LIMIT, self.runtime.clone().remove_pod_sandbox(request)).await).map(drop)
    }

    /// The containers with these labels.
    pub async fn containers(
        &self,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<proto::Container>, Status> {
        let filter = proto::ContainerFilter { label_selector: labels, ..Default::default() };
        let request = proto::ListContainersRequest { filter: Some(filter) };
        Ok(within(LIMIT, self.runtime.clone().list_containers(request)).await?.containers)
    }

    /// All of one container.
    pub async fn container_status(&self, id: &ContainerId) -> Result<proto::ContainerStatus, Status> {
        let request = proto::ContainerStatusRequest { container_id: id.0.clone(), verbose: false };
        let answer = within(LIMIT, self.runtime.clone().container_status(request)).await?;
        Ok(answer.status.unwrap_or_default())
    }

    /// Makes a container, without starting it.
    pub async fn create_container(
        &self,
        request: proto::CreateContainerRequest,
    ) -> Result<ContainerId, Status> {
        let made = within(LIMIT, self.runtime.clone().create_container(request)).await?;
        Ok(ContainerId(made.container_id))
    }

    /// Starts a container that was made.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), Status> {
        let request = proto::StartContainerRequest { container_id: id.0.clone() };
        within(LIMIT, self.runtime.clone().start_container(request)).await.map(drop)
    }

    /// Asks a container to end, and kills it after the grace; returns when it has ended.
    pub async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Status> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let timeout = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = proto::StopContainerRequest { container_id: id.0.clone(), timeout };
        let answer = within(LIMIT.saturating_add(grace), self.runtime.clone().stop_container(request)).await;
        gone_is_fine(answer).map(drop)
    }

    /// Changes what a container may use.
    pub async fn update_container(
        &self,
        id: &ContainerId,
        resources: proto::LinuxContainerResources,
    ) -> Result<(), Status> {
        let (container_id, linux) = (id.0.clone(), Some(resources));
        let request = proto::UpdateContainerResourcesRequest { container_id, linux };
        within(LIMIT, self.runtime.clone().update_container_resources(request)).await.map(drop)
    }

    /// Forgets a container that has ended.
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), Status> {
        let request = proto::RemoveContainerRequest { container_id: id.0.clone() };
        gone_is_fine(within(LIMIT, self.runtime.clone().remove_container(request)).await).map(drop)
    }

    /// Has the runtime open the container's log by its name again: the file was moved away.
    pub async fn reopen_log(&self, id: &ContainerId) -> Result<(), Status> {
        let request = proto::ReopenContainerLogRequest { container_id: id.0.clone() };
        within(LIMIT, self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }

    /// Runs a command beside a container and waits for its end.
    pub async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<proto::ExecSyncResponse, Status> {
        let seconds = i64::try_from(timeout.as_secs().max(1)).unwrap_or(i64::MAX);
        let (container_id, cmd) = (id.0.clone(), command.to_vec());
        let request = proto::ExecSyncRequest { container_id, cmd, timeout: seconds };
        within(LIMIT.saturating_add(timeout), self.runtime.clone().exec_sync(request)).await
    }

    /// Where the streams of a command will be.
    pub async fn exec(&self, request: proto::ExecRequest) -> Result<String, Status> {
        Ok(within(LIMIT, self.runtime.clone().exec(request)).await?.url)
    }

    /// Where a container's own streams will be.
    pub async fn attach(&self, request: proto::AttachRequest) -> Result<String, Status> {
        Ok(within(LIMIT, self.runtime.clone().attach(request)).await?.url)
    }

    /// Where connections to a pod's port will be.
    pub async fn port_forward(&self, sandbox: &str, port: u16) -> Result<String, Status> {
        let (pod_sandbox_id, port) = (sandbox.to_owned(), vec![i32::from(port)]);
        let request = proto::PortForwardRequest { pod_sandbox_id, port };
        Ok(within(LIMIT, self.runtime.clone().port_forward(request)).await?.url)
    }

    /// What the containers with these labels use.
    pub async fn stats(
        &self,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<proto::ContainerStats>, Status> {
        let filter = proto::ContainerStatsFilter { label_selector: labels, ..Default::default() };
        let request = proto::ListContainerStatsRequest { filter: Some(filter) };
        Ok(within(LIMIT, self.runtime.clone().list_container_stats(request)).await?.stats)
    }

    /// All images that the runtime has.
    pub async fn images(&self) -> Result<Vec<proto::Image>, Status> {
        let request = proto::ListImagesRequest {};
        Ok(within(LIMIT, self.images.clone().list_images(request)).await?.images)
    }

    /// The image of this name, if the runtime has it.
    pub async fn image(&self, name: &str) -> Result<Option<proto::Image>, Status> {
        let image = proto::ImageSpec { image: name.to_owned() };
        let request = proto::ImageStatusRequest { image: Some(image), verbose: false };
        Ok(within(LIMIT, self.images.clone().image_status(request)).await?.image)
    }

    /// Fetches an image; what to call it from now on.
    pub async fn pull(&self, name: &str, auth: Option<proto::AuthConfig>) -> Result<String, Status> {
        let image = proto::ImageSpec { image: name.to_owned() };
        let request = proto::PullImageRequest { image: Some(image), auth, sandbox_config: None };
        Ok(within(PULL_LIMIT, self.images.clone().pull_image(request)).await?.image_ref)
    }
    /// Forgets an image with all its names.
    pub async fn remove_image(&self, id: &str) -> Result<(), Status> {
        let image = proto::ImageSpec { image: id.to_owned() };
        let request = proto::RemoveImageRequest { image: Some(image) };
        gone_is_fine(within(LIMIT, self.images.clone().remove_image(request)).await).map(drop)
    }

    /// Where it has its images.
    pub async fn image_file_systems(&self) -> Result<Vec<proto::FilesystemUsage>, Status> {
        let answer = within(LIMIT, self.images.clone().image_fs_info(proto::ImageFsInfoRequest {})).await?;
        Ok(answer.image_filesystems)
    }
}
