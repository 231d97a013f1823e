//! Control groups: what a container may use, counted and limited by the kernel.
//!
//! Two interfaces behind one: the unified hierarchy (v2), and one tree for each controller (v1), as on hosts
//! where both are mounted. A container's group is `kubepods/podUID/ID` in each tree, below the agent's own
//! group where that is v1's way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The controllers that are used.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
/// The period of CPU quotas, in microseconds.
const PERIOD: u64 = 100_000;

/// What a container may use.
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

/// A container's group, by its path in each tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup(String);

/// Where the trees are mounted and what of them is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trees {
    Unified(PathBuf),
    /// By controller.
    Split(Vec<(String, PathBuf)>),
    None,
}

fn trees() -> &'static Trees {
    static KNOWN: OnceLock<Trees> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        find_trees(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    })
}

/// Whether the host has the unified hierarchy alone.
pub fn is_unified() -> bool {
    matches!(trees(), Trees::Unified(_))
}

/// Looks at the host once, so that processes forked later needn't.
pub fn look() {
    trees();
}

fn find_trees(mounts: &str, own: &str) -> Trees {
    let mut split: Vec<(String, PathBuf)> = Vec::new();
    let mut unified = None;
    for line in mounts.lines() {
        let Some((place, source)) = line.split_once(" - ") else { continue };
        let mut place = place.split(' ').skip(3);
        let (Some(root), Some(point)) = (place.next(), place.next()) else { continue };
        let (kind, options) = (source.split(' ').next(), source.rsplit(' ').next().unwrap_or_default());
        match kind {
            Some("cgroup2") => unified = Some(PathBuf::from(point)),
            Some("cgroup") => {
                let used = CONTROLLERS.iter().filter(|name| options.split(',').any(|o| o == **name));
                split.extend(used.map(|name| (name.to_string(), own_group(point, root, own, name))));
            }
            _ => {}
        }
    }
    match unified {
        _ if split.iter().any(|(name, _)| name == "memory") => Trees::Split(split),
        Some(point) => Trees::Unified(point),
        None => Trees::None,
    }
}

/// The directory of this process's group of one controller.
fn own_group(point: &str, root: &str, own: &str, controller: &str) -> PathBuf {
    let mut lines =
        own.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    let found = lines.find(|[names, _]: &[&str; 2]| names.split(',').any(|name| name == controller));
    let path = found.map_or("/", |[_, path]| path);
    let below = Path::new(path)
        .strip_prefix(root)
        .unwrap_or(Path::new(path).strip_prefix("/").unwrap_or(Path::new("")));
    Path::new(point).join(below)
}

impl Cgroup {
    /// Of a container of a pod.
    pub fn of(pod: &str, id: &str) -> Self {
        Self(format!("kubepods/pod{pod}/{id}"))
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

    /// Makes it with these limits.
    pub fn create(&self, limits: &Limits) -> io::Result<()> {
        for dir in self.dirs() {
            // The pod's directory goes with its last container, maybe just now.
            let mut made = fs::create_dir_all(&dir);
            for _ in 0..3 {
                if made.is_ok() {
                    break;
                }
                made = fs::create_dir_all(&dir);
            }
            made?;
        }
        if let Trees::Unified(point) = trees() {
            delegate(point, Path::new(&self.0));
        }
        self.limit(limits)
    }

    /// Sets the limits of a container that runs. Less memory than it uses is refused: the kernel would kill for it.
    pub fn change(&self, limits: &Limits) -> io::Result<()> {
        let used = self.memory_used();
        match limits.memory.filter(|limit| *limit < used) {
            Some(limit) => Err(io::Error::other(format!(
                "attempting to set container memory limit ({limit}) below current usage ({used})"
            ))),
            None => self.limit(limits),
        }
    }

    /// Without what the kernel could drop at once.
    fn memory_used(&self) -> u64 {
        let Some(dir) = self.dir("memory") else { return 0 };
        let (file, droppable) = match is_unified() {
            true => ("memory.current", "inactive_file "),
            false => ("memory.usage_in_bytes", "total_inactive_file "),
        };
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let used: u64 = read(file).trim().parse().unwrap_or(0);
        let stat = read("memory.stat");
        let droppable = stat.lines().find_map(|line| line.strip_prefix(droppable)?.parse().ok());
        used.saturating_sub(droppable.unwrap_or(0))
    }

    /// Sets the limits.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        let settings = if is_unified() { unified(limits) } else { split(limits) };
        for setting in settings {
            let Some(dir) = self.dir(setting.controller) else {
                if setting.optional {
                    continue;
                }
                let why =
                    format!("the host has no {} controller to set {}", setting.controller, setting.file);
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            };
            let path = dir.join(setting.file);
            match fs::write(&path, &setting.value) {
                Err(error) if !setting.optional => {
                    let text = format!("write {:?} to {}: {error}", setting.value, path.display());
                    return Err(io::Error::new(error.kind(), text));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves this process, which has one thread, into it.
    ///
    /// By the file `tasks` where there is one: who moves only itself waits for no grace period of all the machine's
    /// forks (the kernel's `cgroup_threadgroup_rwsem`), which was 12 ms and half of a pod's start.
    pub fn join(&self) -> io::Result<()> {
        let file = if is_unified() { "cgroup.procs" } else { "tasks" };
        self.dirs().iter().try_for_each(|dir| fs::write(dir.join(file), "0"))
    }

    /// How many of its processes were killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.dir("memory") else { return 0 };
        let file = if is_unified() { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Kills whoever is in it.
    pub fn kill(&self) {
        let Some(dir) = self.dir("memory").or_else(|| self.dir("pids")) else { return };
        // Who forks meanwhile is met by the next look; one that can't die is nobody's to wait for.
        for _ in 0..100 {
            let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            let members: Vec<i32> = members.lines().filter_map(|line| line.parse().ok()).collect();
            if members.is_empty() {
                return;
            }
            for pid in members {
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::yield_now();
        }
    }

    /// Removes it, and its pod's where it was the last. Its processes have ended.
    pub fn remove(&self) {
        for dir in self.dirs() {
            // One that isn't empty stays for whoever is in it.
            let _ = fs::remove_dir(&dir);
            let _ = dir.parent().map(fs::remove_dir);
        }
    }
}

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
    optional: bool,
}

fn setting(controller: &'static str, file: &'static str, value: String) -> Setting {
    Setting { controller, file, value, optional: false }
}

/// Makes controllers available on the way down; what the host doesn't allow, setting the limit will tell.
fn delegate(point: &Path, group: &Path) {
    let mut dir = point.to_owned();
    for part in group {
        for controller in CONTROLLERS {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        dir.push(part);
    }
}

/// The kernel's measure of v1, from 2 to 262144; 1024 is one CPU.
fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// Microseconds of each period; the kernel takes no less than a thousand.
fn quota(milli: u64) -> u64 {
    (milli * PERIOD / 1000).max(1000)
}

fn unified(limits: &Limits) -> Vec<Setting> {
    let weight = 1 + (shares(limits.cpu_request) - 2) * 9999 / 262_142;
    let most = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    let unlimited = *limits == Limits { cpu_request: limits.cpu_request, ..Limits::default() };
    let mut settings = vec![
        Setting { optional: true, ..setting("cpu", "cpu.weight", weight.to_string()) },
        setting("cpu", "cpu.max", format!("{} {PERIOD}", most(limits.cpu.map(quota)))),
        setting("memory", "memory.max", most(limits.memory)),
        setting("pids", "pids.max", most(limits.pids)),
    ];
    if unlimited {
        settings.iter_mut().for_each(|setting| setting.optional = true);
    }
    settings.push(Setting { optional: true, ..setting("memory", "memory.swap.max", "0".to_owned()) });
    // As upstream: a container that is out of memory goes as a whole.
    settings.push(Setting { optional: true, ..setting("memory", "memory.oom.group", "1".to_owned()) });
    settings
}

fn split(limits: &Limits) -> Vec<Setting> {
    let most = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    let pids = limits.pids.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    let or_none = |limit: Option<u64>, setting: Setting| Setting { optional: limit.is_none(), ..setting };
    vec![
        Setting { optional: true, ..setting("cpu", "cpu.shares", shares(limits.cpu_request).to_string()) },
        Setting { optional: true, ..setting("cpu", "cpu.cfs_period_us", PERIOD.to_string()) },
        or_none(limits.cpu, setting("cpu", "cpu.cfs_quota_us", most(limits.cpu.map(quota)))),
        or_none(limits.memory, setting("memory", "memory.limit_in_bytes", most(limits.memory))),
        or_none(limits.pids, setting("pids", "pids.max", pids)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:28 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      33 30 0:29 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
                      34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn trees_are_found_in_either_form() {
        assert_eq!(find_trees(V2, "0::/user.slice\n"), Trees::Unified("/sys/fs/cgroup".into()));
        let own = "4:memory:/box/agent\n3:cpu,cpuacct:/\n0::/\n";
        let found = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
        let want = vec![
            found("cpu", "/sys/fs/cgroup/cpu,cpuacct/"),
            found("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/"),
            found("memory", "/sys/fs/cgroup/memory/agent"),
        ];
        assert_eq!(find_trees(V1, own), Trees::Split(want));
        assert_eq!(find_trees("", ""), Trees::None);
    }

    #[test]
    fn limits_are_told_in_the_words_of_each_interface() {
        let limits = Limits { cpu_request: 250, cpu: Some(500), memory: Some(1 << 20), pids: Some(64) };
        let told = |settings: Vec<Setting>| -> Vec<String> {
            settings.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
        };
        let want = [
            "cpu.weight=10",
            "cpu.max=50000 100000",
            "memory.max=1048576",
            "pids.max=64",
            "memory.swap.max=0",
            "memory.oom.group=1",
        ];
        assert_eq!(told(unified(&limits)), want);
        let want = [
            "cpu.shares=256",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "memory.limit_in_bytes=1048576",
            "pids.max=64",
        ];
        assert_eq!(told(split(&limits)), want);
        assert!(unified(&Limits::default()).iter().all(|setting| setting.optional), "no limit, no complaint");
    }
}
