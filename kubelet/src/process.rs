//! Which process is meant: pid, start time and boot, so that a reused number is never taken for it.
//!
//! Always holds: no signal is sent by number alone. A pidfd is opened first, the identity is checked
//! against what the pidfd refers to, and the signal goes through the pidfd.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// A process, past or present, of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The number.
    pub pid: i32,
    /// Clock ticks between boot and start; two processes of one number differ in it.
    pub start_ticks: u64,
    /// The boot it belongs to.
    pub boot_id: String,
}

/// This boot's id. Read once: it can't change while we run.
pub fn boot_id() -> io::Result<&'static str> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(id) = KNOWN.get() {
        return Ok(id);
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(KNOWN.get_or_init(|| id.trim().to_owned()))
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything, so counting begins after it.
fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = after_name.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    ticks.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
    })
}

impl ProcessIdentity {
    /// The process that has this number now.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: start_ticks(pid)?, boot_id: boot_id()?.to_owned() })
    }

    /// A handle to the process, or `None` if it is no more.
    pub fn open(&self) -> io::Result<Option<PidFd>> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        let Some(fd) = PidFd::open(self.pid)? else { return Ok(None) };
        // Checked after the pidfd was opened: if it matches now, the pidfd is that very process.
        match start_ticks(self.pid) {
            Ok(ticks) if ticks == self.start_ticks => Ok(Some(fd)),
            Ok(_) => Ok(None),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The error says that there is no such process.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A process held by a file descriptor: it becomes readable when the process ends.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    fn open(pid: i32) -> io::Result<Option<Self>> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd >= 0 {
            let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
            // SAFETY: the kernel has just returned this descriptor to us and to no one else.
            return Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd) })));
        }
        let error = io::Error::last_os_error();
        if is_gone(&error) { Ok(None) } else { Err(error) }
    }

    /// Sends a signal; a process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and a null siginfo is what kill(2) would use.
        let done = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, no_info, 0)
        };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if is_gone(&error) { Ok(()) } else { Err(error) }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub struct ProcessUsage {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its own time.
    pub cpu: Duration,
    /// That of its children that have ended and been waited for.
    pub buried: Duration,
    /// In memory, in bytes.
    pub resident: u64,
}

/// Time in clock ticks, as `/proc` counts it.
pub fn ticks(ticks: u64) -> Duration {
    // SAFETY: takes a number and returns one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / per_second.max(1) as f64)
}

/// What all processes of this host use.
pub fn usages() -> io::Result<Vec<ProcessUsage>> {
    // SAFETY: takes a number and returns one.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that has ended meanwhile uses nothing.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        all.extend(usage_of(pid, &stat, page));
    }
    Ok(all)
}

/// Fields 4, 14 to 17 and 24 of `/proc/PID/stat`; the name in field 2 may hold anything, so counting begins
/// after it.
fn usage_of(pid: i32, stat: &str, page: u64) -> Option<ProcessUsage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(ProcessUsage {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        cpu: ticks(number(14)? + number(15)?),
        buried: ticks(number(16)? + number(17)?),
        resident: number(24)? * page,
    })
}

/// The children of each process, from one pass over `/proc`.
pub fn children_of(parent: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if parent_of(pid) == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// Field 4 of `/proc/PID/stat`; `None` for a process that is gone.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The process and all its descendants, ancestors first.
pub fn tree_of(root: i32) -> io::Result<Vec<i32>> {
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        tree.extend(children_of(tree[next])?);
        next += 1;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_behind_any_name() {
        let stat = "7 (a) b) c) S 3 7 7 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 900 1000 5 18446744073709551615";
        let usage = usage_of(7, stat, 4096).expect("understood");
        assert_eq!((usage.parent, usage.resident), (3, 5 * 4096));
        assert_eq!((usage.cpu, usage.buried), (ticks(33), ticks(77)));
        assert!(usage_of(7, "7 (a) S 3", 4096).is_none());
    }

    #[test]
    fn another_start_time_or_boot_is_another_process() {
        let me = ProcessIdentity::of(std::process::id() as i32).expect("/proc");
        assert!(me.open().expect("pidfd").is_some());
        let reused = ProcessIdentity { start_ticks: me.start_ticks + 1, ..me.clone() };
        assert!(reused.open().expect("pidfd").is_none());
        let before_reboot = ProcessIdentity { boot_id: "other".to_owned(), ..me.clone() };
        assert!(before_reboot.open().expect("pidfd").is_none());
        let never = ProcessIdentity { pid: i32::MAX - 1, ..me };
        assert!(never.open().expect("pidfd").is_none());
    }
}
