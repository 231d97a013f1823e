//! One supervisor a data directory: an advisory lock that the kernel gives back however the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held as long as this value lives.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{dir} is in use by another `amoeba up`{holder}: stop that one first, or choose another directory with \
         --data-dir",
        dir = .dir.display()
    )]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// ` (process 123)`, if it said so.
        holder: String,
    },
    /// The file can't be used.
    #[error("cannot lock {path}", path = .path.display())]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock at `path`, or says who has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = match Flock::lock(open.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => return Err(held(path, file)),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        record(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn record(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn held(path: &Path, mut file: File) -> LockError {
    let mut text = String::new();
    // Only for the message: an unreadable file leaves the process out.
    let _ = file.read_to_string(&mut text);
    let holder = text.trim().parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
    LockError::Held { dir: path.parent().unwrap_or(path).to_owned(), holder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_has_it_until_it_is_given_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("up.lock");
        let first = Lock::take(&path).expect("free");
        let message = Lock::take(&path).expect_err("taken").to_string();
        assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
        drop(first);
        Lock::take(&path).expect("free again");
    }
}
