//! A small file system for one member, which can be full.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::namespace::Keeper;

/// A mounted file system. It is seen only by the keeper and the processes it starts, so that whatever happens,
/// nothing stays mounted.
pub struct Disk {
    ballast: PathBuf,
}

impl Disk {
    /// Mounts an empty one of this size on a folder.
    pub fn mount(keeper: &Keeper, folder: &Path, mib: u64) -> Self {
        keeper.must(&format!("mount -t tmpfs -o size={mib}m store {}", folder.display()), None);
        Self { ballast: folder.join("ballast") }
    }

    /// Fills it to the last byte, and again what its owner gives back in the meantime.
    ///
    /// # Panics
    /// If writing fails for another reason than a full disk.
    pub fn fill(&self, keeper: &Keeper) {
        let path = self.ballast.clone();
        let filled = keeper.run(move || fill(&path));
        assert_eq!(filled.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
    }

    /// Makes room again.
    pub fn free(&self, keeper: &Keeper) {
        let path = self.ballast.clone();
        keeper.run(move || fs::remove_file(path)).expect("the ballast is there");
    }
}

/// Writes until that fails: large pieces first, then what is left.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let piece = vec![0; 1 << 20];
    let mut length = piece.len();
    loop {
        match file.write_all(&piece[..length]) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && length > 1 => length /= 16,
            other => other?,
        }
    }
}
