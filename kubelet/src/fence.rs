//! The node's promise to pods that fence themselves ([`api::self_fence`]): until when they may run, on a clock that
//! goes on while the machine sleeps. The agent writes it after each renewal of its Lease, supervisors read it; it is
//! good for one boot only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use serde::{Deserialize, Serialize};

use crate::process::boot_id;
use crate::shim::record::{read, write_atomically};

/// The file in the node's data directory.
const FILE: &str = "promise.json";

#[derive(Serialize, Deserialize)]
struct Promise {
    boot: String,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    until: u64,
}

/// Where the promise is kept.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// The time since boot, sleep included.
pub fn now() -> Duration {
    let time = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    time.expect("every Linux that we run on has this clock").into()
}

/// Promises until then. Not fsynced: after a power cut nobody runs, and the boot is another.
pub fn promise(path: &Path, until: Duration) -> io::Result<()> {
    let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
    write_atomically(path, &Promise { boot: boot_id()?.to_owned(), until })
}

/// Until when; `None` if nothing was promised since the boot.
pub fn promised(path: &Path) -> Option<Duration> {
    let promise: Promise = read(path).ok()?;
    (promise.boot == boot_id().ok()?).then(|| Duration::from_nanos(promise.until))
}

/// Whether what needs the promise may run now.
pub fn holds(path: &Path) -> bool {
    promised(path).is_some_and(|until| now() < until)
}

/// Wakes a supervisor when the promise ends.
pub struct Fence {
    path: PathBuf,
    timer: TimerFd,
    passed: bool,
}

impl Fence {
    /// Over the promise at `path`.
    pub fn new(path: &Path) -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        let fence = Self { path: path.to_owned(), timer, passed: false };
        fence.arm(promised(path).unwrap_or_default())?;
        Ok(fence)
    }

    /// Readable when it is time for [`Fence::look`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Whether the promise has ended; once it has, it stays so. One that can't be read has ended.
    pub fn look(&mut self) -> bool {
        if !self.passed && self.timer.wait().is_ok() {
            let until = promised(&self.path).unwrap_or_default();
            self.passed = until <= now() || self.arm(until).is_err();
        }
        self.passed
    }

    /// Whether [`Fence::look`] has found the promise ended.
    pub fn has_passed(&self) -> bool {
        self.passed
    }

    /// At a time of the clock; one that has passed rings at once. Zero would disarm it.
    fn arm(&self, at: Duration) -> io::Result<()> {
        let at = Expiration::OneShot(at.max(Duration::from_nanos(1)).into());
        Ok(self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn rings(fence: &Fence) -> bool {
        let mut fds = [PollFd::new(fence.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(5_000_u16)).expect("a poll") == 1
    }

    #[test]
    fn a_promise_ends_or_is_renewed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(dir.path());
        assert!(!holds(&path), "nothing was promised");
        promise(&path, now() + Duration::from_secs(3600)).expect("written");
        assert!(holds(&path));
        promise(&path, now() + Duration::from_millis(20)).expect("written");
        let mut fence = Fence::new(&path).expect("a timer");
        promise(&path, now() + Duration::from_secs(3600)).expect("renewed");
        assert!(rings(&fence), "it was armed for the old one");
        assert!(!fence.look(), "and looks at the new one");
        promise(&path, Duration::ZERO).expect("written");
        let mut fence = Fence::new(&path).expect("a timer");
        assert!(rings(&fence) && fence.look() && fence.look());
        assert!(!holds(&path));
    }

    #[test]
    fn the_promise_of_another_boot_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(dir.path());
        std::fs::write(&path, format!(r#"{{"boot":"another","until":{}}}"#, u64::MAX)).expect("written");
        assert!(!holds(&path));
    }
}
