//! Room on the member's filesystem: a floor that stops puts before the disk is full, and a reserve that is
//! given up when it is full all the same.
//!
//! The last bytes belong to deletes, compaction and Raft. Small filesystems get a smaller floor.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use crate::config::Limits;

/// How often the filesystem is asked. A question costs about a microsecond.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Floor and reserve are each at most one part in so many of the filesystem.
const FLOOR_PARTS: u64 = 8;

/// A filesystem at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// All bytes.
    pub total_bytes: u64,
    /// What this process may still take.
    pub free_bytes: u64,
}

impl Filesystem {
    /// The one that `path` is on.
    ///
    /// # Errors
    /// If the system can't say.
    pub fn of(path: &Path) -> io::Result<Self> {
        let answer = statvfs(path)?;
        let block = answer.fragment_size();
        Ok(Self { total_bytes: answer.blocks() * block, free_bytes: answer.blocks_available() * block })
    }
}

/// Watches the room of one directory.
pub struct Space {
    dir: PathBuf,
    floor_wanted: u64,
    reserve_wanted: u64,
    low: bool,
    next_look: Duration,
}

impl Space {
    /// Of the member's directory; makes the reserve if there is room for it.
    pub fn new(dir: &Path, limits: &Limits) -> Self {
        let space = Self {
            dir: dir.to_path_buf(),
            floor_wanted: limits.free_floor_bytes,
            reserve_wanted: limits.reserve_bytes,
            low: false,
            next_look: Duration::ZERO,
        };
        if let Ok(now) = Filesystem::of(dir) {
            space.restock(now);
        }
        space
    }

    /// Looks, if it is time to: `Some(None)` if there is room, `Some(Some(why not))` if there isn't.
    pub fn look(&mut self, now: Duration) -> Option<Option<String>> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + LOOK_EVERY;
        match Filesystem::of(&self.dir) {
            Ok(found) => Some(self.judge(found)),
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "the free space can't be asked for");
                None
            }
        }
    }

    /// The directory that it watches.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives the reserve to whoever needs it now. Space is short until there is another, however much the
    /// engine frees meanwhile.
    pub fn give_reserve(&mut self) {
        self.low = true;
        if std::fs::remove_file(self.reserve()).is_ok() {
            tracing::warn!(dir = %self.dir.display(), "the disk is full; the reserve is given up");
        }
    }

    /// Whether the database can be opened again: that takes some room itself.
    pub fn suffices_to_open(&self) -> bool {
        Filesystem::of(&self.dir).is_ok_and(|found| found.free_bytes >= self.floor(found) / 2)
    }

    fn judge(&mut self, found: Filesystem) -> Option<String> {
        let floor = self.floor(found);
        if found.free_bytes < floor / 4 {
            self.give_reserve();
        }
        let stocked = self.restock(found);
        // A margin, so that the alarm doesn't come and go with each write.
        let enough = if self.low { floor + floor / 4 } else { floor };
        self.low = found.free_bytes < enough || self.low && !stocked;
        let needed = if stocked { enough } else { enough.max(self.enough_to_stock(found)) };
        self.low.then(|| {
            format!(
                "{}: {} MiB are free and {} MiB are needed; free space on this filesystem or compact history. \
                 Puts are refused until then and go on by themselves",
                self.dir.display(),
                found.free_bytes >> 20,
                needed.div_ceil(1 << 20),
            )
        })
    }

    fn floor(&self, found: Filesystem) -> u64 {
        self.floor_wanted.min(found.total_bytes / FLOOR_PARTS)
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Makes the reserve if there is plenty of room; whether it is there.
    fn restock(&self, found: Filesystem) -> bool {
        let wanted = self.reserve_size(found);
        let path = self.reserve();
        if std::fs::metadata(&path).is_ok_and(|file| file.blocks() * 512 >= wanted) {
            return true;
        }
        found.free_bytes >= self.enough_to_stock(found)
            && allocate(&path, wanted)
                .inspect_err(|error| {
                    tracing::debug!(%error, "no reserve yet");
                    let _half_of_it = std::fs::remove_file(&path);
                })
                .is_ok()
    }

    /// What must be free before a reserve is made.
    fn enough_to_stock(&self, found: Filesystem) -> u64 {
        let floor = self.floor(found);
        floor + floor / 4 + self.reserve_size(found)
    }

    fn reserve_size(&self, found: Filesystem) -> u64 {
        self.reserve_wanted.min(found.total_bytes / FLOOR_PARTS)
    }
}

/// Takes real blocks, not a hole.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(dir: &Path) -> Space {
        let limits = Limits { free_floor_bytes: 8 * MIB, reserve_bytes: MIB, ..Limits::default() };
        Space::new(dir, &limits)
    }

    fn with(free: u64) -> Filesystem {
        Filesystem { total_bytes: 1 << 30, free_bytes: free }
    }

    #[test]
    fn the_alarm_has_a_margin_and_waits_for_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = space(dir.path());
        assert!(dir.path().join("reserve").exists());
        assert_eq!(space.judge(with(9 * MIB)), None);
        let text = space.judge(with(7 * MIB)).unwrap();
        assert!(text.contains("7 MiB are free and 8 MiB are needed"), "{text}");
        assert!(space.judge(with(9 * MIB)).is_some(), "within the margin");
        assert_eq!(space.judge(with(10 * MIB)), None);
        space.judge(with(MIB));
        assert!(!dir.path().join("reserve").exists(), "given up");
        assert!(space.judge(with(10 * MIB)).is_some(), "no reserve yet");
        assert_eq!(space.judge(with(11 * MIB)), None);
        assert!(dir.path().join("reserve").exists());
    }

    #[test]
    fn a_disk_that_was_full_is_short_of_space_until_there_is_a_reserve_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = space(dir.path());
        assert_eq!(space.judge(with(9 * MIB)), None);
        space.give_reserve();
        let text = space.judge(with(10 * MIB)).expect("the engine has freed some");
        assert!(text.contains("10 MiB are free and 11 MiB are needed"), "{text}");
        assert_eq!(space.judge(with(11 * MIB)), None);
        assert!(dir.path().join("reserve").exists());
    }

    #[test]
    fn a_small_filesystem_has_a_small_floor() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = space(dir.path());
        let small = Filesystem { total_bytes: 16 * MIB, free_bytes: 3 * MIB };
        assert_eq!(space.judge(small), None);
        assert!(space.judge(Filesystem { free_bytes: MIB, ..small }).is_some());
    }
}
