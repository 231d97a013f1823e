//! Where the native runtime keeps its records: `containers/UID/CONTAINER/ATTEMPT/` and the logs beside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::Digest;

use crate::config::LogLimits;
use crate::pod::{ContainerId, ContainerName, PodRef};
use crate::process::tree_of;
use crate::runtime::ContainerConfig;
use crate::runtime::native::sandbox::Sandboxes;
use crate::shim::log;
use crate::shim::record::ContainerDir;

/// The records below one data directory.
#[derive(Clone, Debug)]
pub struct NativeStore {
    containers: PathBuf,
    logs: PathBuf,
}

/// One run found on disk.
#[derive(Clone, Debug)]
pub struct StoredRun {
    pub id: ContainerId,
    pub dir: ContainerDir,
    pub config: ContainerConfig,
}

/// Where a pod's logs are, as upstream lays them out: `NAMESPACE_NAME_UID`.
pub fn pod_log_dir(data_dir: &Path, pod: &PodRef) -> PathBuf {
    data_dir.join("logs").join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
}

/// Where one run's log is.
pub fn log_path(data_dir: &Path, pod: &PodRef, container: &ContainerName, attempt: u32) -> PathBuf {
    pod_log_dir(data_dir, pod).join(&container.0).join(format!("{attempt}.log"))
}

impl NativeStore {
    pub fn new(data_dir: &Path) -> Self {
        Self { containers: data_dir.join("containers"), logs: data_dir.to_owned() }
    }

    /// A fresh run's identifier and place. The same three always give the same identifier, so that a
    /// start that was cut short is found again.
    pub fn place(
        &self,
        pod: &PodRef,
        container: &ContainerName,
        attempt: u32,
    ) -> (ContainerId, ContainerDir) {
        let id = identifier(pod, container, attempt);
        let path = self.containers.join(&pod.uid.0).join(&container.0).join(attempt.to_string());
        (id, ContainerDir::new(path))
    }

    pub fn log_path(&self, pod: &PodRef, container: &ContainerName, attempt: u32) -> PathBuf {
        log_path(&self.logs, pod, container, attempt)
    }

    /// All runs on disk. A directory without a readable order was cut short before anything ran.
    pub fn runs(&self) -> io::Result<Vec<StoredRun>> {
        let mut runs = Vec::new();
        for pod in entries(&self.containers)? {
            for container in entries(&pod)? {
                for run in entries(&container)? {
                    runs.extend(stored_run(run));
                }
            }
        }
        Ok(runs)
    }

    pub fn remove_pod(&self, pod: &PodRef) -> io::Result<()> {
        remove_tree(&self.containers.join(&pod.uid.0))?;
        remove_tree(&pod_log_dir(&self.logs, pod))
    }

    pub fn remove_run(
        &self,
        dir: &ContainerDir,
        config: &ContainerConfig,
        limits: LogLimits,
    ) -> io::Result<()> {
        let path = self.log_path(&config.pod, &config.container, config.attempt);
        log::files(&path, limits).iter().try_for_each(fs::remove_file)?;
        remove_tree(dir.path())
    }
}

/// 64 hexadecimal digits, as runtimes have them: tools cut them to twelve.
fn identifier(pod: &PodRef, container: &ContainerName, attempt: u32) -> ContainerId {
    let name = format!("{}/{container}/{attempt}", pod.uid);
    let digest = sha2::Sha256::digest(name.as_bytes());
    ContainerId(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn stored_run(path: PathBuf) -> Option<StoredRun> {
    let dir = ContainerDir::new(path);
    let config = dir.order().ok()?.config;
    let id = identifier(&config.pod, &config.container, config.attempt);
    Some(StoredRun { id, dir, config })
}

/// What is in a directory; one that isn't there is empty.
pub fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Kills everything a node runs on this host, as a power cut would (for `amoeba chaos kill`). Returns
/// the number of containers killed. The agent itself is the caller's to kill, before.
pub fn power_off(data_dir: &Path) -> io::Result<usize> {
    let mut killed = 0;
    for run in NativeStore::new(data_dir).runs()? {
        killed += usize::from(kill_container(&run.dir)?);
    }
    Sandboxes::new(data_dir).end_processes()?;
    if nix::unistd::geteuid().is_root() {
        // As after a power cut, no namespace and no memory is left.
        crate::container::namespaces::unmount_below(data_dir)?;
    }
    Ok(killed)
}

/// The supervisor first, so that nobody writes down how the rest ended.
fn kill_container(dir: &ContainerDir) -> io::Result<bool> {
    let Some(record) = dir.running()? else { return Ok(false) };
    let Some(shim) = record.shim.open()? else { return Ok(false) };
    let tree = tree_of(record.shim.pid)?;
    shim.signal(Signal::SIGKILL)?;
    // Orphans of a supervisor that is gone: nobody else of this host would end them.
    for pid in tree.into_iter().skip(1) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(true)
}
