//! Mounts by descriptors: a tree is taken, given its attributes, and only then put in place. No path is looked
//! up twice.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use crate::confined::by_descriptor;

const EMPTY: &CStr = c"";

/// A tree of mounts that isn't in place yet.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// A copy of what is mounted at this file or directory, with what is mounted below it.
    pub fn copy_of(source: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
        let flags = flags | u32::try_from(libc::AT_EMPTY_PATH | libc::AT_RECURSIVE).unwrap_or_default();
        // SAFETY: an open descriptor, a C string and flags; the kernel returns a new descriptor or -1.
        let fd = Errno::result(unsafe {
            libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), EMPTY.as_ptr(), flags)
        })?;
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds attributes (`MOUNT_ATTR_…`) to the topmost mount, or to all.
    pub fn set(&self, attributes: u64, all: bool) -> io::Result<()> {
        set_attributes(self.0.as_fd(), attributes, 0, all)
    }

    /// Lets nothing that is mounted later pass in either direction.
    pub fn make_private(&self) -> io::Result<()> {
        set_attributes(self.0.as_fd(), 0, libc::MS_PRIVATE, true)
    }

    /// Puts it on a file or directory.
    pub fn attach(&self, target: BorrowedFd<'_>) -> io::Result<()> {
        let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
        let (from, to) = (self.0.as_raw_fd(), target.as_raw_fd());
        // SAFETY: open descriptors, C strings and flags.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_move_mount, from, EMPTY.as_ptr(), to, EMPTY.as_ptr(), flags)
        })?;
        Ok(())
    }
}

/// Adds attributes to a mount that is in place.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: u64, propagation: u64, all: bool) -> io::Result<()> {
    let wanted = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if all { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an open descriptor, a C string, and a structure with its size.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
            std::ptr::from_ref(&wanted),
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Mounts a fresh file system on an open directory.
pub fn fresh(kind: &str, target: BorrowedFd<'_>, flags: MsFlags, options: &str) -> io::Result<()> {
    let target = by_descriptor(target);
    Ok(nix::mount::mount(Some(kind), &target, Some(kind), flags, Some(options))?)
}

/// Opens something of the host by its path, to be mounted.
pub fn open_host(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}
