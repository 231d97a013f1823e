//! What goes of a runtime that keeps its images and sandboxes itself: images that no container uses when their disk is
//! nearly full, and sandboxes that died and were replaced.
//!
//! Always holds: an image that any container of the runtime was made from stays, whoever's container it is; so does one
//! that the runtime has pinned, or that is only just there. Of each pod the newest sandbox stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use tokio::time::sleep;
use tonic::Status;

use super::client::text;
use super::proto::{self, PodSandboxState};
use super::sandbox::POD_UID;
use super::state::Shared;
use crate::pod::time::since;
use crate::runtime::Collect;

/// Percent of the images' disk that are in use when some have to go, and when enough have gone; upstream's defaults.
const IN_USE: (u64, u64) = (85, 80);
/// How long an image stays that nobody has used yet, as upstream's default.
pub const YOUTH: Duration = Duration::from_secs(120);
/// Between two looks at the sandboxes, as upstream's.
pub const PACE: Duration = Duration::from_secs(60);

/// What is remembered of the images between two looks.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    found: Timestamp,
    used: Option<Timestamp>,
    size: u64,
    is_pinned: bool,
}

impl Ledger {
    /// Takes in the images that are there, and what the containers that are there call theirs.
    fn look(&mut self, images: &[proto::Image], used: &BTreeSet<String>, now: Timestamp) {
        self.0.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let new = || Entry { found: now, used: None, size: 0, is_pinned: false };
            let entry = self.0.entry(image.id.clone()).or_insert_with(new);
            (entry.size, entry.is_pinned) = (image.size, image.pinned);
            if names(image).any(|name| used.contains(name)) {
                entry.used = Some(now);
            }
        }
    }

    /// A container is about to be made from it.
    pub fn touch(&mut self, id: &str, now: Timestamp) {
        self.0.entry(id.to_owned()).and_modify(|entry| entry.used = Some(now));
    }

    /// Whether it may go which nobody has used since the look at this time.
    fn is_free(&self, id: &str, looked: Timestamp, youth: Duration) -> bool {
        self.0.get(id).is_some_and(|entry| {
            let is_old = since(looked, entry.found) >= youth;
            is_old && !entry.is_pinned && entry.used.is_none_or(|used| used < looked)
        })
    }

    /// Those that may go, with their sizes, in upstream's order: the longest unused first, then the longest known.
    fn unused(&self, looked: Timestamp, youth: Duration) -> Vec<(String, u64)> {
        let mut free: Vec<_> = self.0.iter().filter(|(id, _)| self.is_free(id, looked, youth)).collect();
        free.sort_by_key(|(_, entry)| (entry.used, entry.found));
        free.into_iter().map(|(id, entry)| (id.clone(), entry.size)).collect()
    }
}

/// All by which containers refer to an image.
fn names(image: &proto::Image) -> impl Iterator<Item = &String> {
    [&image.id].into_iter().chain(&image.repo_tags).chain(&image.repo_digests)
}

/// Bytes that are to be freed of a disk; 0 while there is room.
fn lacking(available: u64, capacity: u64) -> u64 {
    let in_use = 100 - available.saturating_mul(100) / capacity.max(1);
    let wanted = capacity / 100 * (100 - IN_USE.1);
    if in_use >= IN_USE.0 { wanted.saturating_sub(available) } else { 0 }
}

fn lacking_at(dir: &Path) -> u64 {
    // One that can't be measured isn't full.
    let Ok(disk) = statvfs(dir) else { return 0 };
    let unit = disk.fragment_size();
    lacking(disk.blocks_available() * unit, disk.blocks() * unit)
}

/// Where the runtime has its images.
pub async fn image_dirs(shared: &Shared) -> Result<Vec<PathBuf>, Status> {
    let places = shared.client.image_file_systems().await?;
    Ok(places.into_iter().filter_map(|place| Some(PathBuf::from(place.fs_id?.mountpoint))).collect())
}

/// Removes images that nobody uses. Returns their sizes' sum.
pub async fn images(shared: &Shared, what: Collect) -> Result<u64, Status> {
    let wanted = match what {
        Collect::All => u64::MAX,
        Collect::WhatIsLacking => {
            let dirs = image_dirs(shared).await?;
            dirs.iter().map(|dir| lacking_at(dir)).max().unwrap_or(0)
        }
    };
    let unused = look(shared).await?;
    let mut freed = 0;
    for (id, size) in unused.1 {
        if freed >= wanted {
            break;
        }
        if !shared.images.lock().is_free(&id, unused.0, shared.pace.youth) {
            continue;
        }
        match shared.client.remove_image(&id).await {
            Ok(()) => freed += size,
            Err(status) => tracing::warn!(image = id, error = %text(&status), "remove an image"),
        }
    }
    if what == Collect::WhatIsLacking && freed < wanted {
        tracing::warn!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
             {freed} bytes eligible to free."
        );
    }
    Ok(freed)
}

/// What nobody uses, and as of when. Containers are listed last: what is made meanwhile counts.
async fn look(shared: &Shared) -> Result<(Timestamp, Vec<(String, u64)>), Status> {
    let now = Timestamp::now();
    let images = shared.client.images().await?;
    let containers = shared.client.containers(BTreeMap::new()).await?;
    let used = containers
        .into_iter()
        .flat_map(|container| [container.image_ref, container.image.unwrap_or_default().image].into_iter());
    let mut ledger = shared.images.lock();
    ledger.look(&images, &used.collect(), now);
    Ok((now, ledger.unused(now, shared.pace.youth)))
}

/// Removes dead sandboxes for as long as the runtime's driver lives.
pub async fn sweep(shared: Arc<Shared>) {
    loop {
        sleep(shared.pace.sweep).await;
        if let Err(status) = sandboxes(&shared).await {
            tracing::debug!(error = %text(&status), "remove dead sandboxes");
        }
    }
}

async fn sandboxes(shared: &Shared) -> Result<(), Status> {
    let listed = shared.client.sandboxes(shared.agents_labels()).await?;
    let containers = shared.client.containers(shared.agents_labels()).await?;
    for id in replaced(&listed, &containers) {
        shared.client.stop_sandbox(id).await?;
        shared.client.remove_sandbox(id).await?;
    }
    Ok(())
}

/// The sandboxes that died, have no container any more, and aren't their pod's newest. `listed` has the newest first.
fn replaced<'a>(listed: &'a [proto::PodSandbox], containers: &[proto::Container]) -> Vec<&'a str> {
    let holding: BTreeSet<&str> = containers.iter().map(|one| one.pod_sandbox_id.as_str()).collect();
    let mut pods = BTreeSet::new();
    let older = listed.iter().filter(|one| !pods.insert(one.labels.get(POD_UID)));
    let dead = older.filter(|one| one.state() != PodSandboxState::SandboxReady);
    dead.map(|one| one.id.as_str()).filter(|id| !holding.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogLimits;
    use crate::runtime::Runtime;
    use crate::runtime::cri::CriRuntime;
    use crate::runtime::cri::fake_socket::{AGENT, FakeSocket};
    use crate::runtime::cri::state::Pace;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("small")
    }

    fn image(id: &str, tag: &str) -> proto::Image {
        proto::Image { id: id.to_owned(), repo_tags: vec![tag.to_owned()], size: 10, ..Default::default() }
    }

    #[test]
    fn the_longest_unused_goes_first_and_who_is_used_pinned_or_young_stays() {
        let mut ledger = Ledger::default();
        let pinned = proto::Image { pinned: true, ..image("pause", "pause:1") };
        let mut images = vec![image("a", "a:1"), image("b", "b:1"), image("c", "c:1"), pinned];
        let used = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let unused = |ledger: &Ledger, now| {
            let unused = ledger.unused(at(now), YOUTH);
            unused.into_iter().map(|(id, _)| id).collect::<Vec<_>>().join(" ")
        };
        ledger.look(&images, &used(&["a", "c:1"]), at(0));
        assert_eq!(unused(&ledger, 0), "", "all of them have just been found");
        images.push(image("d", "d:1"));
        ledger.look(&images, &used(&["c:1"]), at(200));
        assert_eq!(unused(&ledger, 200), "b a", "nobody has ever used b; c is used; d is new");
        ledger.touch("a", at(201));
        assert!(!ledger.is_free("a", at(200), YOUTH), "somebody is about to use it");
        ledger.look(&images[1..], &used(&[]), at(400));
        assert_eq!(unused(&ledger, 400), "b d c", "a has gone otherwise");
    }

    #[test]
    fn as_much_goes_as_the_disk_lacks() {
        for (available, wanted) in [(16_000, 0), (15_000, 5_000), (1_000, 19_000), (0, 20_000), (100_000, 0)]
        {
            assert_eq!(lacking(available, 100_000), wanted, "{available}");
        }
        assert_eq!(lacking(0, 0), 0, "a disk of no size");
        assert_eq!(lacking_at(Path::new("/nowhere")), 0);
    }

    #[test]
    fn a_dead_sandbox_goes_with_its_last_container_if_it_was_replaced() {
        let sandbox = |id: &str, pod: &str, ready: bool| proto::PodSandbox {
            id: id.to_owned(),
            state: i32::from(if ready {
                PodSandboxState::SandboxReady
            } else {
                PodSandboxState::SandboxNotready
            }),
            labels: [(POD_UID.to_owned(), pod.to_owned())].into(),
            ..Default::default()
        };
        let listed = [
            sandbox("new", "p", true),
            sandbox("held", "p", false),
            sandbox("old", "p", false),
            sandbox("twin", "p", true),
            sandbox("last", "q", false),
        ];
        let container = proto::Container { pod_sandbox_id: "held".to_owned(), ..Default::default() };
        assert_eq!(replaced(&listed, &[container]), ["old"]);
    }

    const NEVER: Duration = Duration::from_secs(1 << 30);

    #[tokio::test]
    async fn images_go_that_no_container_was_made_from() {
        let socket = FakeSocket::start(false);
        socket.has_images(vec![image("used", "box:1"), image("other", "other:1")]);
        let pace = Pace { alone: NEVER, retry: NEVER, youth: Duration::ZERO, ..Pace::default() };
        let (path, limits) = (socket.path(), LogLimits::default());
        let runtime = CriRuntime::connect_at(pace, &path, &path, AGENT.to_owned(), limits);
        let runtime = runtime.await.expect("it answers");
        assert_eq!(runtime.collect_images(Collect::All).await.expect("asked"), 10);
        assert_eq!(socket.removed(), ["other"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_containerd_gives_back_what_nobody_uses() {
        let Some(containerd) = e2e::containerd::Containerd::start() else { return };
        let dir = tempfile::tempdir().expect("a directory");
        containerd.import(&e2e::image::busybox(dir.path(), "box:1", "exec sleep 1000"));
        let pace = Pace { youth: Duration::ZERO, ..Pace::default() };
        let (socket, limits) = (containerd.socket(), LogLimits::default());
        let runtime = CriRuntime::connect_at(pace, &socket, dir.path(), AGENT.to_owned(), limits);
        let runtime = runtime.await.expect("it answers");
        let dirs = runtime.image_dirs().await;
        assert!(matches!(dirs.as_slice(), [one] if one.starts_with(containerd.path())), "{dirs:?}");
        let name = "docker.io/library/box:1";
        assert!(runtime.client().image(name).await.expect("asked").is_some());
        assert!(runtime.collect_images(Collect::All).await.expect("asked") > 100_000);
        assert!(runtime.client().image(name).await.expect("asked").is_none());
    }
}
