//! Namespaces that no process keeps: a mount on a file does.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{FsType, statfs};

/// The kernel's number of the file system that namespaces' files are on (`linux/magic.h`).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// A kind of namespace that a thread can have for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Links, addresses, routes and rules.
    Network,
    /// Message queues, semaphores and shared memory.
    Ipc,
}

impl Kind {
    fn flag(self) -> CloneFlags {
        match self {
            Self::Network => CloneFlags::CLONE_NEWNET,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
        }
    }

    fn of_this_thread(self) -> &'static str {
        match self {
            Self::Network => "/proc/thread-self/ns/net",
            Self::Ipc => "/proc/thread-self/ns/ipc",
        }
    }
}

/// Makes a namespace, unless it is there, that lives as long as its mount on `file`, or longer if somebody is in it.
///
/// # Errors
/// The system refuses, mostly for want of privileges.
pub fn hold(kind: Kind, file: &Path) -> io::Result<()> {
    if is_held(file)? {
        return Ok(());
    }
    File::create(file)?;
    // A thread of its own enters it: it can't always leave, and what it leaves behind the process keeps.
    let made = std::thread::scope(|scope| {
        let enter = || -> io::Result<()> {
            unshare(kind.flag())?;
            let none: Option<&str> = None;
            Ok(mount(Some(kind.of_this_thread()), file, none, MsFlags::MS_BIND, none)?)
        };
        scope.spawn(enter).join()
    });
    made.map_err(|_| io::Error::other("the thread that makes the namespace ended"))?
}

/// Whether the file holds a namespace; one that isn't there does not.
///
/// # Errors
/// The system can't tell.
pub fn is_held(file: &Path) -> io::Result<bool> {
    match statfs(file) {
        Ok(found) => Ok(found.filesystem_type() == NSFS_MAGIC),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
