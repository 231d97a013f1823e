//! Where the kernel's trees of control groups are mounted, and handing down controllers on the way to a group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The controllers that are used.
pub const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
/// Those of them that the unified hierarchy has; it counts processors' time without one.
const UNIFIED: [&str; 3] = ["cpu", "memory", "pids"];
/// Where whoever is in a tree's own group goes, so that the group can be divided.
const LEAF: &str = "init";
/// How often those are moved who came meanwhile.
const ROUNDS: usize = 100;

/// Where the trees are mounted and what of them is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trees {
    /// Version 2: one for all controllers.
    Unified(PathBuf),
    /// Version 1, by controller.
    Split(Vec<(String, PathBuf)>),
    /// None that is of use.
    None,
}

/// Those of this host; looked for once.
pub fn trees() -> &'static Trees {
    static KNOWN: OnceLock<Trees> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        find(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    })
}

/// `mounts` is a `mountinfo`, `own` the process's `cgroup`.
fn find(mounts: &str, own: &str) -> Trees {
    let mut split: Vec<(String, PathBuf)> = Vec::new();
    let mut unified: Vec<(&str, PathBuf)> = Vec::new();
    for line in mounts.lines() {
        let Some((place, source)) = line.split_once(" - ") else { continue };
        let mut place = place.split(' ').skip(3);
        let (Some(root), Some(point)) = (place.next(), place.next()) else { continue };
        let (kind, options) = (source.split(' ').next(), source.rsplit(' ').next().unwrap_or_default());
        match kind {
            Some("cgroup2") => unified.push((root, PathBuf::from(point))),
            Some("cgroup") => {
                let used = CONTROLLERS.iter().filter(|name| options.split(',').any(|o| o == **name));
                split.extend(used.map(|name| (name.to_string(), own_group(point, root, own, name))));
            }
            _ => {}
        }
    }
    if split.iter().any(|(name, _)| name == "memory") {
        return Trees::Split(split);
    }
    // Others mount the hierarchy, too, and parts of it.
    let whole = unified.iter().position(|(root, _)| *root == "/").unwrap_or(0);
    unified.into_iter().nth(whole).map_or(Trees::None, |(_, point)| Trees::Unified(point))
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

/// The group that a process is in, by the lines of its `cgroup`; only of the unified hierarchy.
pub fn group_of(point: &Path, lines: &str) -> Option<PathBuf> {
    let path = lines.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(point.join(path))
}

/// A controller that a group can't have, and why.
pub type Refused = (&'static str, io::Error);

/// Hands controllers down from the root to the group, for which all its parents give them to their children.
/// Returns those that can't be had: whether that matters is known when one is used.
pub fn hand_down(point: &Path, group: &Path) -> Vec<Refused> {
    let mut refused = Vec::new();
    if is_group(point) {
        // If it fails, the kernel says why it hands nothing down.
        let _ = vacate(point);
    }
    let mut dir = point.to_owned();
    for part in group {
        refused.extend(UNIFIED.iter().filter_map(|name| Some((*name, give(&dir, name).err()?))));
        dir.push(part);
    }
    refused
}

fn give(dir: &Path, controller: &str) -> io::Result<()> {
    fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))
}

/// The root of all groups isn't one. In a container what is mounted is the container's group, a root only to who
/// is inside. It must be empty before it is divided: the kernel refuses to hand memory down from a group with
/// processes, and if it handed down only controllers that threads can have, no process could be in a group below.
fn is_group(point: &Path) -> bool {
    point.join("cgroup.type").exists()
}

/// Moves whoever is in a group into a child of it.
fn vacate(dir: &Path) -> io::Result<()> {
    let leaf = dir.join(LEAF);
    fs::create_dir_all(&leaf)?;
    for _ in 0..ROUNDS {
        let members = fs::read_to_string(dir.join("cgroup.procs"))?;
        // A 0 stands for a process that this one can't see.
        let mut members = members.lines().filter(|pid| *pid != "0").peekable();
        if members.peek().is_none() {
            break;
        }
        for pid in members {
            match fs::write(leaf.join("cgroup.procs"), pid) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                done => done?,
            }
        }
    }
    Ok(())
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
        assert_eq!(find(V2, "0::/user.slice\n"), Trees::Unified("/sys/fs/cgroup".into()));
        let own = "4:memory:/box/agent\n3:cpu,cpuacct:/\n0::/\n";
        let found = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
        let want = vec![
            found("cpu", "/sys/fs/cgroup/cpu,cpuacct/"),
            found("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/"),
            found("memory", "/sys/fs/cgroup/memory/agent"),
        ];
        assert_eq!(find(V1, own), Trees::Split(want));
        assert_eq!(find("", ""), Trees::None);
    }

    #[test]
    fn of_several_mounts_of_one_hierarchy_the_whole_one_counts() {
        let part = "40 23 0:26 /system.slice /run/part rw - cgroup2 cgroup2 rw\n";
        let another = "41 23 0:26 / /run/another/cgroupv2 rw - cgroup2 none rw\n";
        let whole = Trees::Unified("/sys/fs/cgroup".into());
        assert_eq!(find(&format!("{part}{V2}{another}"), ""), whole);
        assert_eq!(find(part, ""), Trees::Unified("/run/part".into()));
    }

    #[test]
    fn a_process_is_where_it_says() {
        let point = Path::new("/sys/fs/cgroup");
        let lines = "1:name=systemd:/x\n0::/kubepods/podu/id/nested\n";
        assert_eq!(group_of(point, lines), Some(point.join("kubepods/podu/id/nested")));
        assert_eq!(group_of(point, "3:cpu:/\n"), None);
    }
}
