//! Control groups: what a container may use, counted and limited by the kernel.
//!
//! Two interfaces behind one: the unified hierarchy (v2), and one tree for each controller (v1), as on hosts
//! where both are mounted. A container's group is `kubepods/CLASS/podUID/ID` in each tree, below the agent's own
//! group where that is v1's way.
//!
//! `trees.rs` knows where, `settings.rs` what is written, `usage.rs` what is read, `classes.rs` what holds for pods.

mod classes;
mod settings;
mod trees;
mod usage;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub use classes::{PodGroup, remove_pod, weigh};
use settings::{Setting, Whose};
use trees::{CONTROLLERS, Refused, Trees, trees};

/// What a container may use, or a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Its share when CPUs are scarce, in thousandths of a CPU.
    pub cpu_request: u64,
    /// The most it may use, in thousandths of a CPU.
    pub cpu: Option<u64>,
    /// The most it may use, in bytes.
    pub memory: Option<u64>,
    /// The most processes and threads it may have.
    pub pids: Option<u64>,
}

/// A group, by its path in each tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup(String);

/// Whether the host has the unified hierarchy alone.
pub fn is_unified() -> bool {
    matches!(trees(), Trees::Unified(_))
}

/// Looks at the host once, so that processes forked later needn't.
pub fn look() {
    trees();
}

impl Cgroup {
    /// Below the root of each tree.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// Its directory for one controller; `None` where the host has none.
    pub fn dir(&self, controller: &str) -> Option<PathBuf> {
        match trees() {
            Trees::Unified(point) => Some(point.join(&self.0)),
            Trees::Split(trees) => {
                trees.iter().find(|(name, _)| name == controller).map(|(_, base)| base.join(&self.0))
            }
            Trees::None => None,
        }
    }

    fn dirs(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = CONTROLLERS.iter().filter_map(|name| self.dir(name)).collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// Makes a container's group with these limits in that of its pod; `None` for a pod of a time when pods had none.
    ///
    /// # Errors
    /// A directory can't be made, or a limit not be set.
    pub fn create(&self, limits: &Limits, pod: Option<&PodGroup>) -> io::Result<()> {
        self.dirs().iter().try_for_each(|dir| make(dir))?;
        let refused = match trees() {
            Trees::Unified(point) => trees::hand_down(point, Path::new(&self.0)),
            _ => Vec::new(),
        };
        if let Some(pod) = pod {
            pod.group().limit(Whose::Pod, &pod.limits, &refused)?;
        }
        self.limit(Whose::Container, limits, &refused)
    }

    /// Sets the limits of a container that runs, and of its pod. Less memory than is used is refused: the kernel
    /// would kill for it.
    ///
    /// # Errors
    /// As said, or a limit can't be set.
    pub fn change(&self, limits: &Limits, pod: Option<&PodGroup>) -> io::Result<()> {
        let of_pod = || pod.map_or(Ok(()), |pod| pod.group().change_one(Whose::Pod, &pod.limits));
        // In the order that fits: v1 lets no container have more CPU than its pod, at any moment.
        let pods_first = of_pod().is_ok();
        self.change_one(Whose::Container, limits)?;
        if pods_first { Ok(()) } else { of_pod() }
    }

    fn change_one(&self, whose: Whose, limits: &Limits) -> io::Result<()> {
        let used = self.working_set();
        match limits.memory.filter(|limit| *limit < used) {
            Some(limit) => {
                let whose = if whose == Whose::Pod { "pod" } else { "container" };
                Err(io::Error::other(format!(
                    "attempting to set {whose} memory limit ({limit}) below current usage ({used})"
                )))
            }
            None => self.limit(whose, limits, &[]),
        }
    }

    fn limit(&self, whose: Whose, limits: &Limits, refused: &[Refused]) -> io::Result<()> {
        let settings = if is_unified() { settings::unified(whose, limits) } else { settings::split(limits) };
        settings.into_iter().try_for_each(|setting| match self.set(&setting) {
            Err(_) if setting.optional => Ok(()),
            Err(error) => Err(with_cause(error, setting.controller, refused)),
            Ok(()) => Ok(()),
        })
    }

    fn set(&self, setting: &Setting) -> io::Result<()> {
        let Setting { controller, file, value, .. } = setting;
        let Some(dir) = self.dir(controller) else {
            let why = format!("the host has no {controller} controller to set {file}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        };
        let path = dir.join(file);
        fs::write(&path, value).map_err(|error| {
            io::Error::new(error.kind(), format!("write {value:?} to {}: {error}", path.display()))
        })
    }

    /// Moves this process, which has one thread, into it.
    ///
    /// By the file `tasks` where there is one: who moves only itself waits for no grace period of all the machine's
    /// forks (the kernel's `cgroup_threadgroup_rwsem`), which was 12 ms and half of a pod's start.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn join(&self) -> io::Result<()> {
        if self.is_own() {
            return Ok(());
        }
        let file = if is_unified() { "cgroup.procs" } else { "tasks" };
        self.dirs().iter().try_for_each(|dir| fs::write(dir.join(file), "0"))
    }

    /// Its directory, for a process to be born in; only version 2 can do that.
    pub fn open(&self) -> Option<File> {
        match trees() {
            Trees::Unified(point) => File::open(point.join(&self.0)).ok(),
            _ => None,
        }
    }

    /// Whether this process was born in it.
    fn is_own(&self) -> bool {
        let Trees::Unified(point) = trees() else { return false };
        let lines = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        trees::group_of(point, &lines).is_some_and(|group| group == point.join(&self.0))
    }

    /// Moves this process, which has one thread, into it, or to where this member of it is: a container that divides its group
    /// (Docker or systemd inside) has nobody in the group itself.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn join_beside(&self, member: i32) -> io::Result<()> {
        match (self.join(), trees()) {
            (Err(error), Trees::Unified(point)) if error.raw_os_error() == Some(libc::EBUSY) => {
                let lines = fs::read_to_string(format!("/proc/{member}/cgroup"))?;
                let group = trees::group_of(point, &lines).ok_or(error)?;
                fs::write(group.join("cgroup.procs"), "0")
            }
            (done, _) => done,
        }
    }

    /// Kills whoever is in it, or in a group that was made in it.
    pub fn kill(&self) {
        let Some(dir) = self.dir("memory").or_else(|| self.dir("pids")) else { return };
        // Who forks meanwhile is met by the next look; one that can't die is nobody's to wait for.
        for _ in 0..100 {
            let members = members(&dir);
            if members.is_empty() {
                return;
            }
            if fs::write(dir.join("cgroup.kill"), "1").is_err() {
                // A kernel before 5.14, or version 1.
                for pid in members {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            std::thread::yield_now();
        }
    }

    /// Removes it, and its pod's where it was the last. Its processes have ended.
    pub fn remove(&self) {
        self.remove_below();
        self.dirs().iter().filter_map(|dir| dir.parent()).for_each(|pod| drop(fs::remove_dir(pod)));
    }

    /// Removes it with what was made in it. One that isn't empty stays for whoever is in it.
    fn remove_below(&self) {
        for dir in self.dirs() {
            let mut all = below(&dir);
            all.reverse();
            all.iter().for_each(|dir| drop(fs::remove_dir(dir)));
        }
    }
}

/// The pod's directory goes with its last container, maybe just now.
fn make(dir: &Path) -> io::Result<()> {
    let again = (0..3).find_map(|_| fs::create_dir_all(dir).ok());
    again.map_or_else(|| fs::create_dir_all(dir), Ok)
}

/// A group without the controller has no file for it, which says little.
fn with_cause(error: io::Error, controller: &str, refused: &[Refused]) -> io::Error {
    match refused.iter().find(|(name, _)| *name == controller) {
        Some((_, cause)) => io::Error::new(
            error.kind(),
            format!("{error} (the {controller} controller can't be handed down: {cause})"),
        ),
        None => error,
    }
}

/// A group and all that were made in it, parents first.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while next < all.len() {
        let entries = fs::read_dir(&all[next]).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let groups: Vec<PathBuf> = groups.map(|entry| entry.path()).collect();
        all.extend(groups);
        next += 1;
    }
    all
}

fn members(dir: &Path) -> Vec<i32> {
    let texts = below(dir).into_iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
    texts.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_from_the_innermost_on() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("a/b")).expect("mkdir");
        fs::create_dir_all(dir.path().join("c")).expect("mkdir");
        fs::write(dir.path().join("cgroup.procs"), "1\n2\n").expect("write");
        fs::write(dir.path().join("a/b/cgroup.procs"), "3\n").expect("write");
        let all = below(dir.path());
        assert_eq!((all.len(), &all[0], &all[3]), (4, &dir.path().to_owned(), &dir.path().join("a/b")));
        assert_eq!(members(dir.path()), [1, 2, 3]);
    }

    #[test]
    fn a_limit_that_cannot_be_set_says_what_its_controller_lacks() {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "write \"1\" to x/cpu.max: not found");
        let refused = [("cpu", io::Error::other("busy"))];
        let told = with_cause(missing(), "cpu", &refused).to_string();
        assert!(told.ends_with("(the cpu controller can't be handed down: busy)"), "{told}");
        assert_eq!(with_cause(missing(), "memory", &refused).to_string(), missing().to_string());
    }
}
