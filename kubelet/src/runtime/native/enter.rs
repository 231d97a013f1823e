//! Entering a container: what a process does between fork and exec to become one of a running container's.
//!
//! Everything that runs beside a container's own process goes through here: probes, hooks, exec. Opening
//! ([`Entrance::of`]) happens in the agent and may allocate; entering ([`Entrance::enter`]) happens in the
//! forked child, where only system calls are safe.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::container::enter::Member;
use crate::process::PidFd;
use crate::runtime::ContainerConfig;
use crate::shim::record::RunningRecord;

/// The way into one running container.
#[derive(Debug)]
pub enum Entrance {
    /// A plain process has the host's root, and at most a network and name files of its pod's.
    Plain {
        /// Where to begin.
        working_dir: CString,
        /// Whom to become.
        user: Option<u32>,
        /// With which group.
        group: Option<u32>,
        /// Its first process, where the pod has a network of its own.
        process: Option<PidFd>,
    },
    /// A container with a root of its own.
    Isolated(Box<Member>),
}

impl Entrance {
    /// Opens what entering needs.
    ///
    /// # Errors
    /// The container is gone, or a path holds a zero byte.
    pub fn of(config: &ContainerConfig, container: &RunningRecord) -> io::Result<Self> {
        let ended = || io::Error::new(io::ErrorKind::NotFound, "the container has ended");
        let process = container.process.open()?.ok_or_else(ended)?;
        if let Some(isolation) = &config.isolation {
            let credentials = container.credentials.clone().unwrap_or_default();
            let member = Member::new(process, container.process.pid, config, isolation, &credentials);
            return Ok(Self::Isolated(Box::new(member)));
        }
        let directory = config.working_dir.as_deref().unwrap_or(Path::new("/"));
        let working_dir = CString::new(directory.as_os_str().as_bytes())?;
        let process = config.network.is_some().then_some(process);
        Ok(Self::Plain { working_dir, user: config.user, group: config.group, process })
    }

    /// Makes the calling process one of the container's. Only for the time between fork and exec.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn enter(&self) -> io::Result<()> {
        match self {
            Self::Plain { working_dir, user, group, process } => {
                if let Some(process) = process {
                    setns(process.as_fd(), CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
                }
                become_user(*user, *group)?;
                // SAFETY: the path is a terminated string that outlives the call.
                check(unsafe { libc::chdir(working_dir.as_ptr()) })
            }
            Self::Isolated(member) => member.enter(),
        }
    }
}

/// The group first: afterwards the right to change it is gone.
fn become_user(user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    if user.is_some() || group.is_some() {
        // Without the right to drop them there are none to drop that matter.
        // SAFETY: an empty list needs no memory.
        unsafe { libc::setgroups(0, std::ptr::null()) };
    }
    if let Some(group) = group {
        // SAFETY: takes a number.
        check(unsafe { libc::setgid(group) })?;
    }
    if let Some(user) = user {
        // SAFETY: takes a number.
        check(unsafe { libc::setuid(user) })?;
    }
    Ok(())
}

/// The error of a system call that returns -1 for one.
pub fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
