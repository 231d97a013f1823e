//! What the containers of a pod share: the files that tell them who they are, and an IPC namespace.
//!
//! | path below `sandboxes/UID/` | what |
//! |---|---|
//! | `hosts`, `hostname`, `resolv.conf` | seen in `/etc` by each container |
//! | `ipc` | an IPC namespace, held by a mount; only where there are several containers |
//! | `shm` | their `/dev/shm` |
//! | `processes` | locked by who holds their pid namespace; only where they share one |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use network::held_namespace::{self, Kind};
use nix::mount::{MsFlags, mount};

use crate::container::Mount;
use crate::container::namespaces::{is_mount_point, unmount_below};
use crate::container::shared_processes::SharedProcesses;
use crate::pod::PodRef;
use crate::runtime::SandboxConfig;

/// The sandboxes of a node.
#[derive(Clone, Debug)]
pub struct Sandboxes(PathBuf);

/// The files in `/etc`.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

impl Sandboxes {
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("sandboxes"))
    }

    pub fn dir(&self, pod: &PodRef) -> PathBuf {
        self.0.join(&pod.uid.0)
    }

    /// Makes what is missing, so that it can be asked for again after a restart.
    pub fn make(&self, config: &SandboxConfig) -> io::Result<()> {
        let dir = self.dir(&config.pod);
        fs::create_dir_all(&dir)?;
        let contents = [&config.hosts, &config.hostname, &config.resolv_conf];
        for (name, text) in FILES.iter().zip(contents) {
            fs::write(dir.join(name), text)?;
        }
        SharedProcesses::of(&dir).renew()?;
        let ipc = dir.join("ipc");
        if config.shares_ipc && nix::unistd::geteuid().is_root() && !ipc.exists() {
            // Only a place: plain processes need no mounts, which would outlive a cluster that is killed.
            fs::File::create(ipc)?;
        }
        Ok(())
    }

    /// Mounts what an isolated container of the pod shares with the others: for the first one, and again when the
    /// node's agent was stopped together with its pods, or the host restarted.
    pub fn share(&self, pod: &PodRef) -> io::Result<()> {
        let dir = self.dir(pod);
        if !dir.join("ipc").exists() {
            return Ok(());
        }
        held_namespace::hold(Kind::Ipc, &dir.join("ipc"))?;
        shared_memory(&dir.join("shm"))
    }

    /// The processes that the containers of the pod share.
    pub fn processes(&self, pod: &PodRef) -> SharedProcesses {
        SharedProcesses::of(&self.dir(pod))
    }

    /// Ends what holds processes of pods: all have ended, or are to.
    pub fn end_processes(&self) -> io::Result<()> {
        let dirs = super::store::entries(&self.0)?;
        dirs.iter().try_for_each(|dir| SharedProcesses::of(dir).end())
    }

    pub fn remove(&self, pod: &PodRef) -> io::Result<()> {
        let dir = self.dir(pod);
        self.processes(pod).end()?;
        unmount_below(&dir)?;
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// What each container sees of the files, unless a mount of its own is in that place.
pub fn file_mounts(sandbox: &Path, own: &[Mount], read_only: bool) -> Vec<Mount> {
    let etc = Path::new("/etc");
    let files = FILES.iter().map(|name| (sandbox.join(name), etc.join(name)));
    let free = files.filter(|(_, target)| !own.iter().any(|mount| mount.target == *target));
    free.map(|(source, target)| Mount { read_only, ..Mount::new(source, target) }).collect()
}

fn shared_memory(dir: &Path) -> io::Result<()> {
    if is_mount_point(dir)? {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("shm"), dir, Some("tmpfs"), flags, Some("mode=1777,size=65536k"))?)
}
