//! What the agent keeps of a pod beside a runtime: `cri/UID/` below the node's directory.
//!
//! | path | what |
//! |---|---|
//! | `sandbox` | the order by which its sandbox was made; containers are made with the same |
//! | `hosts` | `/etc/hosts` of its containers |
//! | `CONTAINER/ATTEMPT/termination-log` | a run's last words |
//! | `CONTAINER/ATTEMPT/mounts/N` | a part of a volume, looked up inside of it and mounted |

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use prost::Message;

use super::container::RunFiles;
use super::proto;
use super::state::LAST_WORDS;
use crate::config::LogLimits;
use crate::confined::{Confined, by_descriptor};
use crate::container::Mount;
use crate::container::namespaces::unmount_below;
use crate::pod::{ContainerName, PodRef};
use crate::runtime::RuntimeError;
use crate::runtime::native::{log_path, pod_log_dir};
use crate::shim::log;

/// The files of one pod.
#[derive(Clone, Debug)]
pub struct PodFiles {
    data_dir: PathBuf,
    dir: PathBuf,
    pod: PodRef,
}

fn system(attempted: &str) -> impl FnOnce(io::Error) -> RuntimeError {
    let attempted = attempted.to_owned();
    |source| RuntimeError::System { attempted, source }
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl PodFiles {
    /// Those of this pod.
    pub fn new(data_dir: &Path, pod: &PodRef) -> Self {
        let dir = data_dir.join("cri").join(&pod.uid.0);
        Self { data_dir: data_dir.to_owned(), dir, pod: pod.clone() }
    }

    /// Makes the pod's directories; that of its logs.
    pub fn make_dirs(&self) -> Result<PathBuf, RuntimeError> {
        let logs = pod_log_dir(&self.data_dir, &self.pod);
        let made = fs::create_dir_all(&self.dir).and_then(|()| fs::create_dir_all(&logs));
        made.map_err(system("make the pod's directories"))?;
        Ok(logs)
    }

    /// Keeps the order of the sandbox.
    pub fn keep(&self, order: &proto::PodSandboxConfig) -> Result<(), RuntimeError> {
        let kept = fs::write(self.dir.join("sandbox"), order.encode_to_vec());
        kept.map_err(system("keep what the pod's sandbox is made from"))
    }

    /// The order of the sandbox.
    pub fn order(&self) -> Result<proto::PodSandboxConfig, RuntimeError> {
        let read = fs::read(self.dir.join("sandbox"));
        let order = read.and_then(|bytes| proto::PodSandboxConfig::decode(&*bytes).map_err(io::Error::other));
        order.map_err(system("read what the pod's sandbox was made from"))
    }

    /// Writes `/etc/hosts`.
    pub fn set_hosts(&self, hosts: &str) -> Result<(), RuntimeError> {
        fs::write(self.dir.join("hosts"), hosts).map_err(system("write the pod's hosts"))
    }

    /// The directory of one run.
    pub fn run(&self, container: &ContainerName, attempt: u32) -> PathBuf {
        self.dir.join(&container.0).join(attempt.to_string())
    }

    /// Makes what one run needs on the host. Whoever the command is may write its last words.
    pub fn make_run(&self, container: &ContainerName, attempt: u32) -> Result<RunFiles, RuntimeError> {
        let run = self.run(container, attempt);
        let last_words = run.join(LAST_WORDS);
        let make = || {
            fs::create_dir_all(&run)?;
            fs::create_dir_all(pod_log_dir(&self.data_dir, &self.pod).join(&container.0))?;
            let file = fs::File::create(&last_words)?;
            file.set_permissions(fs::Permissions::from_mode(0o666))
        };
        make().map_err(system("make the container's directory"))?;
        let log = format!("{container}/{attempt}.log");
        Ok(RunFiles { hosts: self.dir.join("hosts"), last_words, log })
    }

    /// Looks parts of volumes up, confined to them, and holds what was found by a mount of its own: what the
    /// runtime is told of can't be replaced by a link meanwhile.
    pub fn resolve(
        &self,
        mounts: &[Mount],
        container: &ContainerName,
        attempt: u32,
    ) -> Result<Vec<Mount>, RuntimeError> {
        let held = self.run(container, attempt).join("mounts");
        let resolve = |(n, wanted): (usize, &Mount)| match &wanted.sub_path {
            // Only the runtime knows what is in its images.
            Some(part) if wanted.image.is_none() => {
                let place = held.join(n.to_string());
                hold(&wanted.source, part, &place).map_err(system(&format!(
                    "mount {} of {}",
                    part.display(),
                    wanted.source.display()
                )))?;
                Ok(Mount { source: place, sub_path: None, ..wanted.clone() })
            }
            _ => Ok(wanted.clone()),
        };
        mounts.iter().enumerate().map(resolve).collect()
    }

    /// Removes what one run has left, and its logs.
    pub fn remove_run(
        &self,
        container: &ContainerName,
        attempt: u32,
        limits: LogLimits,
    ) -> Result<(), RuntimeError> {
        let run = self.run(container, attempt);
        let remove = || {
            if run.join("mounts").exists() {
                unmount_below(&run)?;
            }
            ignore_missing(fs::remove_dir_all(&run))?;
            let path = log_path(&self.data_dir, &self.pod, container, attempt);
            log::files(&path, limits).iter().try_for_each(fs::remove_file)
        };
        remove().map_err(system("remove the container's files"))
    }

    /// Removes everything of the pod.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        let remove = || {
            if self.dir.exists() {
                unmount_below(&self.dir)?;
            }
            ignore_missing(fs::remove_dir_all(&self.dir))?;
            ignore_missing(fs::remove_dir_all(pod_log_dir(&self.data_dir, &self.pod)))
        };
        remove_cgroups(&self.pod);
        remove().map_err(system("remove the pod's files"))
    }
}

/// Mounts a part of `root` at `place`; a part that is missing is made as a directory, as upstream does.
fn hold(root: &Path, part: &Path, place: &Path) -> io::Result<()> {
    let confined = Confined::open(root)?;
    let found = match confined.lookup(part, OFlag::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            confined.make_dir(part, Mode::from_bits_truncate(0o777))?
        }
        found => found?,
    };
    let source = by_descriptor(found.as_fd());
    fs::create_dir_all(place.parent().unwrap_or(place))?;
    match fs::metadata(&source)?.is_dir() {
        true => fs::create_dir_all(place)?,
        false => fs::File::create(place).map(drop)?,
    }
    Ok(mount(Some(&source), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

/// The runtime removes the groups of containers, and nobody else the one that holds them. In each tree, on its
/// own or beside others.
fn remove_cgroups(pod: &PodRef) {
    let group = super::sandbox::cgroup(pod);
    let group = group.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let trees = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for tree in trees.chain([root.to_owned()]) {
        // One that isn't there, or isn't empty, stays as it is.
        let _ = fs::remove_dir(tree.join(group));
    }
}
