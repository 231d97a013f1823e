//! The pid namespace that all containers of a pod are born into (`spec.shareProcessNamespace`), as the agent and
//! supervisors find it: by who holds it.
//!
//! The file `processes` in the pod's sandbox says what the holder ([`crate::shim`]) is to be, and the holder has it locked
//! for as long as it lives. A lock is a record that can't be stale: the kernel tells whose it is, and takes it away with its owner.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::process::{PidFd, ProcessIdentity, is_gone};
use crate::shim::record::{read, write_atomically};

/// How long the end of a namespace's processes is waited for, in milliseconds. Only one whose disk hangs takes long.
const END_PATIENCE: u16 = 10_000;

/// What a holder is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderOrder {
    /// The file that holds the pod's network; `None`: the host's.
    pub network: Option<PathBuf>,
}

/// The shared namespace of one pod.
#[derive(Clone, Debug)]
pub struct SharedProcesses(PathBuf);

impl SharedProcesses {
    /// Of the pod with this sandbox.
    pub fn of(sandbox: &Path) -> Self {
        Self(sandbox.join("processes"))
    }

    /// Says what the holder is to be, if nobody has yet: the file must stay the one that is locked.
    ///
    /// # Errors
    /// It can't be written.
    pub fn order(&self, order: &HolderOrder) -> io::Result<()> {
        if self.0.exists() { Ok(()) } else { write_atomically(&self.0, order) }
    }

    /// What the holder is to be, and the file that it locks.
    ///
    /// # Errors
    /// There is no such file, or it can't be read.
    pub fn open(&self) -> io::Result<(HolderOrder, File)> {
        let file = File::options().read(true).write(true).open(&self.0)?;
        Ok((read(&self.0)?, file))
    }

    /// Who holds the namespace.
    ///
    /// # Errors
    /// The system can't tell.
    pub fn holder(&self) -> io::Result<Option<PidFd>> {
        match File::open(&self.0) {
            Ok(file) => holder_by(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// There was a holder, and with it all processes have ended.
    pub fn is_lost(&self) -> bool {
        self.0.exists() && self.holder().is_ok_and(|holder| holder.is_none())
    }

    /// Has another holder take the place of one that is lost.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn renew(&self) -> io::Result<()> {
        if self.is_lost() { fs::remove_file(&self.0) } else { Ok(()) }
    }

    /// Ends the holder, and with it whoever is in the namespace. One that is just beginning finds its file gone and ends
    /// by itself, or has locked it before and is found by the second look.
    ///
    /// # Errors
    /// The system can't tell who holds it, or somebody doesn't end in time.
    pub fn end(&self) -> io::Result<()> {
        let file = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        kill_holder(&file)?;
        fs::remove_file(&self.0)?;
        kill_holder(&file)
    }
}

fn kill_holder(file: &File) -> io::Result<()> {
    let Some(holder) = holder_by(file)? else { return Ok(()) };
    holder.signal(Signal::SIGKILL)?;
    let mut fds = [PollFd::new(holder.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(END_PATIENCE)) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "processes that the pod shares don't end")),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Asked twice: the number is its owner's if that still has the lock once its descriptor is open.
fn holder_by(file: &File) -> io::Result<Option<PidFd>> {
    let Some(pid) = locked_by(file)? else { return Ok(None) };
    let process = match ProcessIdentity::of(pid) {
        Err(error) if is_gone(&error) => return Ok(None),
        identity => identity?.open()?,
    };
    Ok(if locked_by(file)? == Some(pid) { process } else { None })
}

fn locked_by(file: &File) -> io::Result<Option<i32>> {
    let mut found = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut found))?;
    Ok((i32::from(found.l_type) != libc::F_UNLCK).then_some(found.l_pid))
}

/// Locks the file for as long as this process lives; `false` if another one has it.
///
/// # Errors
/// The file was taken away, or the system refuses.
pub fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) if file.metadata()?.nlink() == 0 => {
            Err(io::Error::new(io::ErrorKind::NotFound, "the sandbox has been removed"))
        }
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn whole_file() -> libc::flock {
    // SAFETY: numbers, for which zero is "from the beginning to the end".
    let mut wanted: libc::flock = unsafe { std::mem::zeroed() };
    wanted.l_type = libc::F_WRLCK as libc::c_short;
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_holder_it_is_lost_and_can_be_renewed() {
        let dir = tempfile::tempdir().expect("a directory");
        let shared = SharedProcesses::of(dir.path());
        assert!(!shared.is_lost(), "nobody has asked for it");
        shared.end().expect("nothing to end");
        let order = HolderOrder { network: Some("/net".into()) };
        shared.order(&order).expect("written");
        shared.order(&HolderOrder { network: None }).expect("left as it is");
        assert_eq!(shared.open().expect("there").0, order);
        assert!(shared.is_lost());
        shared.renew().expect("removed");
        assert!(!shared.is_lost() && shared.open().is_err());
    }

    #[test]
    fn a_file_that_was_taken_away_holds_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let shared = SharedProcesses::of(dir.path());
        shared.order(&HolderOrder { network: None }).expect("written");
        let (_, file) = shared.open().expect("there");
        shared.end().expect("nobody holds it");
        assert_eq!(lock(&file).expect_err("nothing to hold").kind(), io::ErrorKind::NotFound);
    }
}
