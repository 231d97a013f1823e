//! What the process of a container is alone in, and what is mounted for it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

/// The child is born in the control group whose directory is open (Linux 5.7). libc's constant has too few bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks a process into fresh namespaces; `None` in the child. A process of a fresh pid namespace is its
/// first, and takes all others with it when it ends.
///
/// With a `group` the child is born in it if the kernel can do that. To move there later is slow: it waits for a
/// grace period of all the machine's forks.
///
/// # Safety
/// The caller has one thread.
pub unsafe fn fork_into(flags: CloneFlags, group: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    // SAFETY: as the caller promises.
    let born = group.and_then(|group| unsafe { born_into(flags, group) }.ok());
    let pid = match born {
        Some(pid) => pid,
        None => {
            let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
            // SAFETY: without CLONE_VM and with no stack of its own the child goes on with a copy of everything,
            // as after fork, and the caller has one thread.
            Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?
        }
    };
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// An older kernel, or a filter of system calls that can't look into the structure, refuses.
///
/// # Safety
/// The caller has one thread.
unsafe fn born_into(flags: CloneFlags, group: BorrowedFd<'_>) -> nix::Result<libc::c_long> {
    // SAFETY: numbers, for which zero is "nothing".
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    // The flags of namespaces are 32 bits without a sign.
    wanted.flags = u64::from(flags.bits().cast_unsigned()) | CLONE_INTO_CGROUP;
    wanted.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    wanted.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    let size = size_of::<libc::clone_args>();
    // SAFETY: a structure with its size; otherwise as for `clone` above.
    Errno::result(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut wanted), size) })
}

/// Whether another file system than that of the directory above is mounted here.
pub fn is_mount_point(dir: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let above = dir.parent().unwrap_or(Path::new("/"));
    match std::fs::symlink_metadata(dir) {
        Ok(own) => Ok(own.dev() != std::fs::metadata(above)?.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes off everything that is mounted on this path or below it, in this process's view.
pub fn unmount_below(path: &Path) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<String> = targets.filter(|target| Path::new(target).starts_with(path)).collect();
    // What was mounted last goes first.
    below.reverse();
    for target in below {
        match umount2(target.as_str(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let digits = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(digits.map_or('\\', char::from));
        rest = if digits.is_some() { &after[3..] } else { after };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_mount_points() {
        for (text, want) in [("/a", "/a"), (r"/a\040b", "/a b"), (r"\134x", r"\x"), (r"/a\", r"/a\")] {
            assert_eq!(unescape(text), want);
        }
    }
}
