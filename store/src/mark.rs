//! A mark beside the database of how far this member certainly was: what tells a lost end of the log from
//! one that was never there.
//!
//! The engine can't: a write-ahead log that was cut by bad luck looks like one that a power cut ended, and
//! recovery quietly takes what is readable. The mark is written each second while something is applied, and
//! exactly when the store is closed. A member whose log ends before its mark has lost what it
//! promised and isn't started. What is lost of the last second before a crash, only other members can know.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::codec::{DecodeError, Reader};
use crate::driver::Handle;
use crate::raft::persist;

const EVERY: Duration = Duration::from_secs(1);

/// The file.
#[derive(Clone, Debug)]
pub struct Mark {
    path: PathBuf,
}

impl Mark {
    /// Of the member in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("mark") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last index that this member certainly had; 0 if nothing is known.
    pub fn read(&self) -> u64 {
        let Ok(bytes) = std::fs::read(&self.path) else { return 0 };
        let decode = |bytes: Vec<u8>| -> Result<u64, DecodeError> {
            Reader::new(persist::open(bytes.into())?).u64("mark")
        };
        decode(bytes).unwrap_or_else(|error| {
            // Without it the member is as good as one that crashed within its first second.
            tracing::warn!(%error, path = %self.path.display(), "the high-water mark is damaged and ignored");
            0
        })
    }

    /// Everything up to `index` is durable here.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, index: u64) -> io::Result<()> {
        let file = File::options().write(true).create(true).truncate(false).open(&self.path)?;
        // Twelve bytes at the start of a file are one sector: old or new, never half.
        file.write_all_at(&persist::seal(&index.to_be_bytes()), 0)?;
        file.sync_data()
    }
}

/// Keeps the mark up to date until the store shuts down.
pub async fn keep(mark: Mark, handle: Handle, mut stop: watch::Receiver<bool>) {
    let mut written = 0;
    while !*stop.borrow() {
        let index = handle.shared.status().applied_index;
        if index > written {
            let mark = mark.clone();
            match tokio::task::spawn_blocking(move || mark.write(index)).await {
                Ok(Ok(())) => written = index,
                Ok(Err(error)) => tracing::debug!(%error, "the high-water mark can't be written"),
                Err(_) => return,
            }
        }
        // Times out in nearly all rounds.
        let _running = tokio::time::timeout(EVERY, stop.wait_for(|stop| *stop)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::new(dir.path());
        assert_eq!(mark.read(), 0);
        mark.write(300).unwrap();
        mark.write(70_000).unwrap();
        assert_eq!(Mark::new(dir.path()).read(), 70_000);
        std::fs::write(dir.path().join("mark"), b"nonsense").unwrap();
        assert_eq!(mark.read(), 0);
    }
}
