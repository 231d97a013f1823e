//! Measures what the node has left, so that the loop can decide who must go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use nix::sys::statvfs::statvfs;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::eviction::threshold::{Resource, Signal, Threshold};
use crate::eviction::{Observation, PodUsage, Supply};
use crate::pod::PodUid;
use crate::runtime::{Collect, Runtime};
use crate::stats::{ContainerUsage, machine};

/// Between two looks, as upstream's.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Where the numbers come from.
pub trait Measure: Send + Sync + 'static {
    /// What is left of what. What can't be measured is missing.
    fn supplies(&self) -> BTreeMap<Signal, Supply>;

    /// Gives back what nobody uses.
    fn reclaim_disk(&self);

    /// Bytes and files that a pod has on the node's disk.
    fn disk_of(&self, pod: &PodUid) -> (u64, u64);
}

/// This machine.
pub struct Host {
    /// Where pods' files are: containers, volumes.
    data_dir: PathBuf,
    /// Who has the images.
    runtime: Arc<dyn Runtime>,
    /// Measuring is a matter of files, and done on threads that may wait; the runtime is asked from there.
    asking: Handle,
}

impl Host {
    /// With pods' files there. Within tokio's runtime.
    pub fn new(data_dir: &Path, runtime: Arc<dyn Runtime>) -> Self {
        Self { data_dir: data_dir.to_owned(), runtime, asking: Handle::current() }
    }

    /// The disk of images that has the smallest part of it free, where there are several.
    fn image_disk(&self) -> Option<(Supply, Option<Supply>)> {
        let dirs = self.asking.block_on(self.runtime.image_dirs());
        let share = |(bytes, _): &(Supply, _)| bytes.available * 1000 / bytes.capacity.max(1);
        dirs.iter().filter_map(|dir| disk(dir)).min_by_key(share)
    }
}

impl Measure for Host {
    fn supplies(&self) -> BTreeMap<Signal, Supply> {
        let mut all = BTreeMap::new();
        if let Ok(machine) = machine() {
            let available = machine.memory.saturating_sub(machine.usage.working_set);
            all.insert(Signal::MemoryAvailable, Supply { available, capacity: machine.memory });
        }
        if let Some((bytes, files)) = disk(&self.data_dir) {
            all.insert(Signal::NodeFsAvailable, bytes);
            all.extend(files.map(|files| (Signal::NodeFsInodesFree, files)));
        }
        if let Some((bytes, files)) = self.image_disk() {
            all.insert(Signal::ImageFsAvailable, bytes);
            all.extend(files.map(|files| (Signal::ImageFsInodesFree, files)));
        }
        all.extend(processes().map(|supply| (Signal::PidAvailable, supply)));
        all
    }

    fn reclaim_disk(&self) {
        match self.asking.block_on(self.runtime.collect_images(Collect::All)) {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "removed images that nobody uses: the disk is nearly full"),
            Err(error) => tracing::warn!(error = %error.chain(), "remove images that nobody uses"),
        }
    }

    fn disk_of(&self, pod: &PodUid) -> (u64, u64) {
        let mut sum = (0, 0);
        for part in ["containers", "volumes"] {
            // What vanishes while it is counted counts as nothing.
            let _ = add_tree(&self.data_dir.join(part).join(&pod.0), &mut sum);
        }
        sum
    }
}

/// Bytes, and files where the file system has a limit of them.
fn disk(path: &Path) -> Option<(Supply, Option<Supply>)> {
    let found = statvfs(path).ok()?;
    let size = found.fragment_size();
    let bytes = Supply { available: found.blocks_available() * size, capacity: found.blocks() * size };
    let files = Supply { available: found.files_available(), capacity: found.files() };
    Some((bytes, Some(files).filter(|files| files.capacity > 0)))
}

/// How many more processes and threads the host can have.
fn processes() -> Option<Supply> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let capacity = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let running: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Supply { available: capacity.saturating_sub(running), capacity })
}

/// Without following links, and without what is mounted from elsewhere.
pub fn add_tree(dir: &Path, sum: &mut (u64, u64)) -> io::Result<()> {
    let device = fs::symlink_metadata(dir)?.dev();
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != device {
                continue;
            }
            sum.0 += meta.blocks() * 512;
            sum.1 += 1;
            if meta.is_dir() {
                next.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Looks again and again and tells the loop, which takes one look after the other.
pub async fn watch(
    measure: Arc<dyn Measure>,
    runtime: Arc<dyn Runtime>,
    thresholds: Vec<Threshold>,
    tell: mpsc::Sender<Observation>,
    shutdown: Shutdown,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        let containers = runtime.usage().await.unwrap_or_default();
        let (measure, thresholds) = (measure.clone(), thresholds.clone());
        let look = tokio::task::spawn_blocking(move || observe(measure.as_ref(), &thresholds, &containers));
        let Ok(seen) = look.await else { continue };
        if tell.send(seen).await.is_err() {
            return;
        }
    }
}

/// Between two looks at the images, as upstream's.
const IMAGE_INTERVAL: Duration = Duration::from_secs(300);

/// Removes images that nobody uses whenever their disk is nearly full, also if none is fetched.
pub async fn collect_images(runtime: Arc<dyn Runtime>, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(IMAGE_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = runtime.collect_images(Collect::WhatIsLacking).await {
            tracing::warn!(error = %error.chain(), "remove images that nobody uses");
        }
    }
}

/// One look. Where the disk is short, what nobody uses goes first; only then pods' files are counted.
pub fn observe(
    measure: &dyn Measure,
    thresholds: &[Threshold],
    containers: &[ContainerUsage],
) -> Observation {
    let mut supplies = measure.supplies();
    let short = |supplies: &BTreeMap<Signal, Supply>| {
        let of_disk = thresholds.iter().filter(|threshold| threshold.signal.resource() == Resource::Disk);
        of_disk.into_iter().any(|threshold| {
            supplies.get(&threshold.signal).is_some_and(|supply| threshold.is_crossed(*supply, false))
        })
    };
    if short(&supplies) {
        measure.reclaim_disk();
        supplies = measure.supplies();
    }
    let mut pods: BTreeMap<PodUid, PodUsage> = BTreeMap::new();
    for container in containers {
        let pod = pods.entry(container.pod.uid.clone()).or_default();
        pod.memory.insert(container.container.clone(), container.usage.working_set);
        pod.processes += container.usage.processes;
    }
    if short(&supplies) {
        pods.iter_mut().for_each(|(uid, usage)| (usage.disk, usage.inodes) = measure.disk_of(uid));
    }
    Observation { supplies, pods }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::threshold::hard;
    use crate::pod::{ContainerId, ContainerName, PodRef};
    use crate::runtime::fake::{FakeRuntime, FakeScript};
    use crate::stats::{Stalls, Usage};
    use jiff::Timestamp;
    use parking_lot::Mutex;

    /// A disk that gets room when it is asked to; says what it was asked.
    struct Fake(Mutex<Vec<String>>, u64);

    impl Measure for Fake {
        fn supplies(&self) -> BTreeMap<Signal, Supply> {
            let reclaimed = self.0.lock().iter().any(|asked| asked == "reclaim");
            let available = if reclaimed { self.1 } else { 1 };
            [(Signal::ImageFsAvailable, Supply { available, capacity: 100 })].into()
        }

        fn reclaim_disk(&self) {
            self.0.lock().push("reclaim".to_owned());
        }

        fn disk_of(&self, pod: &PodUid) -> (u64, u64) {
            self.0.lock().push(format!("count {pod}"));
            (7, 1)
        }
    }

    #[test]
    fn what_nobody_uses_goes_before_pods_are_looked_at() {
        let container = ContainerUsage {
            id: ContainerId("r".to_owned()),
            pod: PodRef { namespace: "d".to_owned(), name: "p".to_owned(), uid: PodUid("u".to_owned()) },
            container: ContainerName("main".to_owned()),
            group: String::new(),
            started_at: Timestamp::UNIX_EPOCH,
            usage: Usage { working_set: 5, processes: 3, ..Usage::default() },
            stalls: Stalls::default(),
            pod_stalls: Stalls::default(),
        };
        let thresholds = hard("imagefs.available<15%").expect("a threshold");
        for (after, asked, disk) in [(20, vec!["reclaim"], 0), (14, vec!["reclaim", "count u"], 7)] {
            let fake = Fake(Mutex::default(), after);
            let seen = observe(&fake, &thresholds, std::slice::from_ref(&container));
            assert_eq!(*fake.0.lock(), asked);
            let usage = &seen.pods[&PodUid("u".to_owned())];
            assert_eq!((usage.disk, usage.processes, usage.memory.values().sum::<u64>()), (disk, 3, 5));
        }
        let fake = Fake(Mutex::default(), 0);
        observe(&fake, &hard("memory.available<1Gi").expect("a threshold"), &[]);
        assert!(fake.0.lock().is_empty(), "the disk is nobody's worry");
    }

    #[tokio::test]
    async fn this_machine_can_be_measured() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("containers/u/main")).expect("a directory");
        fs::write(dir.path().join("containers/u/main/file"), vec![1; 100_000]).expect("a file");
        let host = Arc::new(Host::new(dir.path(), Arc::new(FakeRuntime::new(FakeScript::default()))));
        let measuring = host.clone();
        let supplies = tokio::task::spawn_blocking(move || measuring.supplies()).await.expect("measured");
        for signal in [Signal::MemoryAvailable, Signal::NodeFsAvailable, Signal::PidAvailable] {
            let supply = supplies[&signal];
            assert!(supply.available > 0 && supply.available <= supply.capacity, "{signal:?} {supply:?}");
        }
        let (bytes, files) = host.disk_of(&PodUid("u".to_owned()));
        assert!(bytes >= 100_000 && files == 2, "{bytes} in {files}");
    }
}
