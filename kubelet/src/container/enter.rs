//! A process beside a running container's first one: it joins the container's namespaces, group and limits.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::raise;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, setpgid};

use crate::container::init::{give_up, hide_program, join, plain};
use crate::container::namespaces::fork_into;
use crate::container::{Credentials, Isolation};
use crate::process::PidFd;
use crate::runtime::ContainerConfig;

/// What joining a container takes.
#[derive(Debug)]
pub struct Member {
    process: PidFd,
    first: i32,
    config: ContainerConfig,
    isolation: Isolation,
    credentials: Credentials,
}

impl Member {
    /// Of the container of which `process` is the first one, with the number `first`.
    pub fn new(
        process: PidFd,
        first: i32,
        config: &ContainerConfig,
        isolation: &Isolation,
        credentials: &Credentials,
    ) -> Self {
        let (config, isolation, credentials) = (config.clone(), isolation.clone(), credentials.clone());
        Self { process, first, config, isolation, credentials }
    }

    /// Makes the calling process one of the container's. Only for the time between fork and exec: the caller
    /// has one thread, and what it allocates it may, since glibc's fork hands the allocator over unlocked.
    ///
    /// Only a child is in the container's pid namespace: this returns in one, while the caller itself, in a
    /// process group of its own, waits for it and ends as it does.
    pub fn enter(&self) -> io::Result<()> {
        hide_program()?;
        join(self.process.as_fd(), self.first, &self.config, &self.isolation)?;
        // Fails where it leads a group already.
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        // SAFETY: the process has just been forked and has one thread.
        if let Some(child) = unsafe { fork_into(CloneFlags::empty(), None) }? {
            end_as(child);
        }
        let dir = self.config.working_dir.as_deref().unwrap_or("/".as_ref());
        chdir(dir).map_err(|errno| io::Error::other(plain(errno)))?;
        give_up(&self.isolation.security, self.isolation.privileged, &self.credentials)
    }
}

/// Holds nothing open meanwhile: whoever reads the command's output sees its end.
fn end_as(child: Pid) -> ! {
    // SAFETY: no descriptor of this process is used any more.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    let code = loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) | Ok(WaitStatus::Stopped(..) | WaitStatus::Continued(_)) => {}
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let _ = raise(signal);
                break 128 + signal as i32;
            }
            _ => break 255,
        }
    };
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}
