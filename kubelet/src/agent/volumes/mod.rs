//! A pod's volumes on the host: `volumes/UID/NAME` below the node's directory.
//!
//! Always holds: what is made of objects changes as a whole or not at all; a pod's volumes go after its
//! containers; nothing of a volume is followed out of it when it is removed.

mod atomic;
mod claims;
mod host_path;
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume};
use kube::Client;
use nix::mount::{MsFlags, mount};
use parking_lot::Mutex;

use crate::agent::references::References;
use crate::agent::volumes::tokens::Tokens;
use crate::container::namespaces::{is_mount_point, unmount_below};
use crate::pod::downward::NodeFacts;
use crate::pod::volumes::mounts::Root;
use crate::pod::volumes::payload::{Ground, payload};
use crate::pod::volumes::{is_made_of_objects, kind, volume, volume_references, volumes};
use crate::pod::{PodRef, PodUid};

/// The volumes of a node's pods.
#[derive(Clone)]
pub struct Volumes {
    dir: PathBuf,
    client: Client,
    references: References,
    node: Arc<NodeFacts>,
    tokens: Tokens,
    /// Held while files are written: two updates of one volume must not cross.
    writing: Arc<Mutex<()>>,
}

impl Volumes {
    /// Below this data directory.
    pub fn new(data_dir: &Path, client: Client, references: References, node: Arc<NodeFacts>) -> Self {
        let tokens = Tokens::new(client.clone());
        Self { dir: data_dir.join("volumes"), client, references, node, tokens, writing: Arc::default() }
    }

    /// Makes the volumes that a container mounts, but for images, and says where they are. The error names the volume.
    pub async fn prepare(
        &self,
        pod: &Pod,
        container: &Container,
        now: Timestamp,
    ) -> Result<BTreeMap<String, Root>, String> {
        let mut roots = BTreeMap::new();
        for mount in container.volume_mounts.iter().flatten() {
            let Some(volume) = volume(pod, &mount.name) else { continue };
            if volume.image.is_some() || roots.contains_key(&volume.name) {
                continue;
            }
            let root = self.prepare_one(pod, volume, now).await;
            let root = root.map_err(|why| failed(&volume.name, &why))?;
            roots.insert(volume.name.clone(), Root::Host(root));
        }
        Ok(roots)
    }

    async fn prepare_one(&self, pod: &Pod, volume: &Volume, now: Timestamp) -> Result<PathBuf, String> {
        let pod_ref = PodRef::of(pod);
        let place = self.dir.join(&pod_ref.uid.0).join(&volume.name);
        if is_made_of_objects(volume) {
            self.show_objects(pod, volume, &place, now).await?;
            return Ok(place);
        }
        if let Some(source) = &volume.empty_dir {
            let (source, group, made) = (source.clone(), group(pod), place.clone());
            blocking(move || empty_dir(&made, &source, group)).await?;
            return Ok(place);
        }
        if let Some(source) = &volume.host_path {
            let (path, kind) = (PathBuf::from(&source.path), source.type_.clone().unwrap_or_default());
            return host_path::prepare(&path, &kind).map(|()| path);
        }
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let own = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod_ref.name, volume.name));
        match claim.or(own) {
            Some(claim) => claims::directory(&self.client, &pod_ref.namespace, &claim).await,
            None => Err(format!("volumes of kind {} are not supported by this node", kind(volume))),
        }
    }

    async fn show_objects(
        &self,
        pod: &Pod,
        volume: &Volume,
        place: &Path,
        now: Timestamp,
    ) -> Result<bool, String> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let sources = self.references.sources(&namespace, &volume_references(volume)).await?;
        let tokens = self.tokens.of(pod, volume, now).await?;
        let ground = Ground { pod, sources: &sources, node: &self.node, tokens: &tokens };
        let files = payload(volume, ground)?;
        let (place, group, writing) = (place.to_owned(), group(pod), self.writing.clone());
        blocking(move || {
            let _alone = writing.lock();
            atomic::write(&place, &files, group, now)
        })
        .await
    }

    /// Brings the volumes that the pod's containers already see up to date. What can't be had now stays as
    /// it was.
    pub async fn refresh(&self, pod: &Pod, now: Timestamp) {
        let pod_ref = PodRef::of(pod);
        for volume in volumes(pod).filter(|volume| is_made_of_objects(volume)) {
            let place = self.dir.join(&pod_ref.uid.0).join(&volume.name);
            if !place.exists() {
                continue;
            }
            if let Err(error) = self.show_objects(pod, volume, &place, now).await {
                tracing::warn!(pod = %pod_ref, volume = %volume.name, %error, "update a volume");
            }
        }
    }

    /// Waits until tokens have to be renewed and says whose.
    pub async fn due(&self) -> Vec<PodUid> {
        self.tokens.due().await
    }

    /// Removes the pod's volumes. Its processes have ended.
    pub fn remove(&self, pod: &PodUid) -> io::Result<()> {
        self.tokens.forget(pod);
        let dir = self.dir.join(&pod.0);
        if !dir.exists() {
            return Ok(());
        }
        if nix::unistd::geteuid().is_root() {
            unmount_below(&dir)?;
        }
        fs::remove_dir_all(&dir)
    }
}

/// What an event says of a volume that can't be had.
pub fn failed(volume: &str, why: &str) -> String {
    format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}")
}

/// `fsGroup`: volumes that the node makes belong to it.
fn group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// A directory for the pod's life, open to every user; in memory if so asked.
fn empty_dir(place: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> io::Result<()> {
    let in_memory = source.medium.as_deref() == Some("Memory");
    if place.is_dir() && (!in_memory || is_mount_point(place)?) {
        return Ok(());
    }
    fs::create_dir_all(place)?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
            let size = limit.map(|limit| format!(",size={}", limit.value())).unwrap_or_default();
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(format!("mode=0777{size}").as_str()))?;
        }
        other => {
            return Err(io::Error::other(format!("emptyDir medium {other:?} is not supported by this node")));
        }
    }
    chown(place, None, group)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(place, fs::Permissions::from_mode(mode))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|result| result);
    done.map_err(|error| error.to_string())
}
