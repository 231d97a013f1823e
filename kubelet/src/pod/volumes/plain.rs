//! Which mounts a plain process of the host can be given.
//!
//! It sees the host's files and no others: a `hostPath` mounted where it lies is honoured by doing
//! nothing, the service account's token projection is left out, and everything else is refused by name.

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::pod::volumes::{kind, volume};

/// Where upstream mounts the token that the service account admission adds to each pod.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why the container's mounts can't be honoured; `None` if they can.
pub fn refusal(pod: &Pod, container: &Container) -> Option<String> {
    let mounts = container.volume_mounts.iter().flatten();
    let mut refused = mounts.filter(|mount| !is_harmless(pod, mount));
    let mount = refused.next()?;
    let kind = volume(pod, &mount.name).map_or("unknown", kind);
    Some(format!(
        "volume \"{}\" ({kind}) cannot be mounted at {}: the native runtime runs containers as processes of \
         the host without a file system of their own",
        mount.name, mount.mount_path
    ))
}

fn is_harmless(pod: &Pod, mount: &VolumeMount) -> bool {
    let path = mount.mount_path.trim_end_matches('/');
    let host_path = volume(pod, &mount.name).and_then(|volume| volume.host_path.as_ref());
    let lies_there = host_path.is_some_and(|host| host.path.trim_end_matches('/') == path);
    path == TOKEN_PATH || lies_there && mount.sub_path.is_none()
}
