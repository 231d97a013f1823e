//! Which containers a pod has, and the part that each plays in it.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

use crate::pod::ContainerName;

/// The part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the next one begins.
    Init,
    /// An init container with `restartPolicy: Always`: started in its turn, runs as long as the pod.
    Sidecar,
    /// One of `spec.containers`.
    App,
    /// Added to a pod that runs, to look into it: started once, and nothing depends on it.
    Ephemeral,
}

impl Role {
    /// The pod is ready, or over, by those that stay with it: sidecars and app containers.
    pub fn counts_for_readiness(self) -> bool {
        matches!(self, Self::Sidecar | Self::App)
    }

    /// The list of the pod's `spec` that it stands in.
    pub fn list(self) -> &'static str {
        match self {
            Self::Init | Self::Sidecar => "initContainers",
            Self::App => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The containers that the pod was made with, and their roles; init containers first.
pub fn declared(pod: &Pod) -> impl Iterator<Item = (&Container, Role)> {
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let apps = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let init_role = |c: &Container| match c.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    };
    inits.iter().map(move |c| (c, init_role(c))).chain(apps.iter().map(|c| (c, Role::App)))
}

/// All containers of a pod with their roles: those it was made with, then those that were added.
pub fn roles(pod: &Pod) -> impl Iterator<Item = (Cow<'_, Container>, Role)> {
    let added = ephemeral(pod).map(|c| (Cow::Owned(as_container(c)), Role::Ephemeral));
    declared(pod).map(|(c, role)| (Cow::Borrowed(c), role)).chain(added)
}

/// The specification of the named container.
pub fn spec_of<'a>(pod: &'a Pod, name: &ContainerName) -> Option<Cow<'a, Container>> {
    let made_with = declared(pod).map(|(container, _)| container).find(|container| container.name == name.0);
    let added = || ephemeral(pod).find(|container| container.name == name.0);
    made_with.map(Cow::Borrowed).or_else(|| added().map(as_container).map(Cow::Owned))
}

/// The container whose processes this ephemeral one sees as its own.
pub fn target_of(pod: &Pod, name: &ContainerName) -> Option<ContainerName> {
    let target = ephemeral(pod).find(|container| container.name == name.0)?.target_container_name.clone();
    target.filter(|target| !target.is_empty()).map(ContainerName)
}

/// Their names, in the order in which they were added.
pub fn ephemeral_names(pod: &Pod) -> impl Iterator<Item = &str> {
    ephemeral(pod).map(|container| container.name.as_str())
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten())
}

/// Everything but the target is as in any container (upstream's `EphemeralContainerCommon`).
fn as_container(added: &EphemeralContainer) -> Container {
    let added = added.clone();
    Container {
        args: added.args,
        command: added.command,
        env: added.env,
        env_from: added.env_from,
        image: added.image,
        image_pull_policy: added.image_pull_policy,
        name: added.name,
        resources: added.resources,
        security_context: added.security_context,
        stdin: added.stdin,
        stdin_once: added.stdin_once,
        termination_message_path: added.termination_message_path,
        termination_message_policy: added.termination_message_policy,
        tty: added.tty,
        volume_devices: added.volume_devices,
        volume_mounts: added.volume_mounts,
        working_dir: added.working_dir,
        ..Container::default()
    }
}
