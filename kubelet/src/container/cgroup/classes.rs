//! The groups of pods and of their classes: a pod weighs what its containers ask for, a class what its pods do.
//!
//! As upstream has them: guaranteed pods stand in `kubepods` itself, the others in a group of their class. What a
//! class weighs is read off its pods' groups, so agents that share a machine agree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::settings::{Whose, shares, weight};
use super::{Cgroup, Limits, is_unified};

/// What all pods are in.
const ALL: &str = "kubepods";
/// Where a pod's group may stand, by its class.
const PLACES: [&str; 3] = [ALL, "kubepods/burstable", "kubepods/besteffort"];
/// The most that the kernel takes.
const HEAVIEST: u64 = 10_000;

/// A pod's group, and what its containers may use together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodGroup {
    /// Below the root of each tree.
    pub path: String,
    /// For all of it.
    pub limits: Limits,
}

impl PodGroup {
    /// Of a pod of this class (`status.qosClass`).
    pub fn new(class: &str, uid: &str, limits: Limits) -> Self {
        Self { path: format!("{}/pod{uid}", place(class)), limits }
    }

    /// The group of one of its containers.
    pub fn container(&self, id: &str) -> Cgroup {
        Cgroup(format!("{}/{id}", self.path))
    }

    pub(super) fn group(&self) -> Cgroup {
        Cgroup(self.path.clone())
    }
}

fn place(class: &str) -> &'static str {
    match class {
        "Guaranteed" => PLACES[0],
        "BestEffort" => PLACES[2],
        _ => PLACES[1],
    }
}

/// Removes what is left of a pod's groups, whatever its class. Its processes have ended.
pub fn remove_pod(uid: &str) {
    PLACES.iter().for_each(|place| Cgroup(format!("{place}/pod{uid}")).remove_below());
}

/// Weighs the classes by the pods in them, and all pods by the machine. `cores`: of the machine.
///
/// # Errors
/// A group can't be written to; where there is none yet, nothing is to be done.
pub fn weigh(cores: u64) -> io::Result<()> {
    let (file, all, least) = match is_unified() {
        true => ("cpu.weight", weight(Whose::Pod, cores * 1000), weight(Whose::Pod, 0)),
        false => ("cpu.shares", shares(cores * 1000), shares(0)),
    };
    let dir = |place: &str| Cgroup(place.to_owned()).dir("cpu");
    let [kubepods, burstable, best_effort] = PLACES.map(dir);
    let of_pods = burstable.as_deref().map(|dir| weights_below(dir, file)).unwrap_or_default();
    set(kubepods, file, all)?;
    set(burstable, file, sum(&of_pods, least))?;
    set(best_effort, file, least)
}

/// A class without pods weighs as one that asks for nothing.
fn sum(pods: &[u64], least: u64) -> u64 {
    let most = if is_unified() { HEAVIEST } else { shares(u64::MAX / 1024) };
    pods.iter().sum::<u64>().clamp(least, most)
}

fn weights_below(dir: &Path, file: &str) -> Vec<u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter_map(|pod| fs::read_to_string(pod.join(file)).ok()?.trim().parse().ok()).collect()
}

fn set(dir: Option<PathBuf>, file: &str, value: u64) -> io::Result<()> {
    let Some(path) = dir.map(|dir| dir.join(file)).filter(|path| path.exists()) else { return Ok(()) };
    let value = value.to_string();
    match fs::read_to_string(&path)?.trim() == value {
        true => Ok(()),
        false => fs::write(&path, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_stand_where_upstream_puts_them() {
        for (class, want) in [
            ("Guaranteed", "kubepods/podu"),
            ("Burstable", "kubepods/burstable/podu"),
            ("BestEffort", "kubepods/besteffort/podu"),
        ] {
            let group = PodGroup::new(class, "u", Limits::default());
            assert_eq!(group.path, want);
            assert_eq!(group.container("c"), Cgroup(format!("{want}/c")));
        }
    }

    #[test]
    fn a_class_weighs_what_its_pods_do() {
        assert_eq!(sum(&[], 2), 2);
        assert_eq!(sum(&[256, 512], 2), 768);
        assert_eq!(sum(&[1 << 18, 1 << 18], 2), sum(&[1 << 30], 2), "the kernel takes no more");
    }

    #[test]
    fn weights_are_read_off_the_groups() {
        let dir = tempfile::tempdir().expect("a directory");
        for (pod, weight) in [("poda", "10\n"), ("podb", "39\n")] {
            fs::create_dir(dir.path().join(pod)).expect("mkdir");
            fs::write(dir.path().join(pod).join("cpu.weight"), weight).expect("write");
        }
        // The class's own, and what else stands there.
        fs::write(dir.path().join("cpu.weight"), "1\n").expect("write");
        let mut found = weights_below(dir.path(), "cpu.weight");
        found.sort();
        assert_eq!(found, [10, 39]);
        assert!(weights_below(&dir.path().join("none"), "cpu.weight").is_empty());
        set(Some(dir.path().to_owned()), "cpu.weight", 49).expect("set");
        assert_eq!(fs::read_to_string(dir.path().join("cpu.weight")).expect("read"), "49");
        set(Some(dir.path().join("none")), "cpu.weight", 49).expect("nothing to set");
    }
}
