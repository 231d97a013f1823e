//! A container with a root of its own: what it is made of, and how it is made.
//!
//! Everything is made in process: the supervisor clones a child into fresh namespaces, the child builds its
//! root, gives up what it may not have, and becomes the command. There is no helper program; what containers of a
//! pod share is held by a mount of the namespace itself, but for a pid namespace, which needs a process ([`shared_processes`]).
//!
//! Always holds: nothing of the host is reachable by a path but what [`Isolation::mounts`] names; a path in
//! the image is looked up inside the new root only; privileges are given up before the command runs.

pub mod capabilities;
pub mod cgroup;
pub mod enter;
pub mod init;
pub mod layers;
pub mod mount;
pub mod namespaces;
pub mod root;
pub mod seccomp;
pub mod shared_processes;
pub mod spawn;
pub mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::container::capabilities::Capabilities;
use crate::process::ProcessIdentity;

/// What makes a container more than a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The image's configuration file; held locked while the container runs, so that the image stays.
    pub image: PathBuf,
    /// The image's identity, for the status.
    pub image_id: String,
    /// Where the layers' directories are.
    pub layers_dir: PathBuf,
    /// Their names, lowest first.
    pub layers: Vec<String>,
    /// What the pod's containers share.
    pub sandbox: PathBuf,
    /// The name that the container's host has.
    pub hostname: Option<String>,
    /// Sees the host's processes.
    pub host_pid: bool,
    /// Shares the host's semaphores, queues and shared memory.
    pub host_ipc: bool,
    /// Shares the processes and the semaphores of the container whose first process this is.
    #[serde(default)]
    pub joins: Option<ProcessIdentity>,
    /// Shares its processes with all containers of the pod.
    #[serde(default)]
    pub shares_processes: bool,
    /// Files and directories of the host that are seen inside, in the order of mounting.
    pub mounts: Vec<Mount>,
    /// Nothing can be written but to mounts.
    pub read_only_root: bool,
    /// As root on the host: all capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Show what is masked otherwise (`procMount: Unmasked`).
    pub unmasked: bool,
    /// Who the command is and what it may do.
    pub security: Security,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

impl Isolation {
    /// Its first process isn't the first of a pid namespace: what it leaves behind stays, as somebody else's.
    pub fn lives_elsewhere(&self) -> bool {
        self.joins.is_some() || self.shares_processes
    }

    /// The files of all images that the container is made from, its own first.
    pub fn images(&self) -> impl Iterator<Item = &Path> {
        let mounted = self.mounts.iter().filter_map(|mount| mount.image.as_ref());
        std::iter::once(self.image.as_path()).chain(mounted.map(|image| image.file.as_path()))
    }
}

/// Who a command is and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// `USER[:GROUP]` by names or numbers, as in an image; empty: root.
    pub user: String,
    /// Groups beside those that the image's own files name.
    pub groups: Vec<u32>,
    /// Whether the image's `/etc/group` adds the user's groups there.
    pub image_groups: bool,
    /// What is left of root's rights.
    pub capabilities: Capabilities,
    /// Running a program never gives more rights.
    pub no_new_privileges: bool,
    /// Refuse the system calls that containers have no business with.
    pub seccomp: bool,
}

/// Something of the host seen inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub source: PathBuf,
    /// A part of the source, looked up confined to it; made as a directory where missing.
    pub sub_path: Option<PathBuf>,
    /// In the container.
    pub target: PathBuf,
    /// Can't be written to.
    pub read_only: bool,
    /// Nor what is mounted below it.
    pub recursive: bool,
    /// Sees what the host mounts below the source later on.
    pub follows_host: bool,
    /// Device files below it work.
    pub devices: bool,
    /// An image whose files are shown; the source is where its layers are then.
    #[serde(default)]
    pub image: Option<MountedImage>,
}

/// An image that is seen inside as a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedImage {
    /// Its identity.
    pub id: String,
    /// Its configuration file; held locked while the container runs, so that the image stays.
    pub file: PathBuf,
    /// Its layers' names, lowest first.
    pub layers: Vec<String>,
}

impl Mount {
    /// A writable mount of the whole source, without devices.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            sub_path: None,
            target: target.into(),
            read_only: false,
            recursive: false,
            follows_host: false,
            devices: false,
            image: None,
        }
    }
}

/// A user as the kernel knows it, found when the container was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}
