//! The processes of a supervisor: waited for by one thread, and ended by it or by the fence's.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::container::cgroup::Cgroup;
use crate::process::children_of;
use crate::runtime::ContainerConfig;

/// The command's first process, and what it has left behind.
///
/// Always holds: nobody is waited for while numbers are looked up and killed, so each number is still its own.
pub struct Children {
    main: Pid,
    /// How the first process ended, once it was waited for.
    code: Mutex<Option<i32>>,
    /// Of a container that lives in a pid namespace that isn't its own, whose first process inherits what this one leaves.
    elsewhere: Option<Cgroup>,
}

impl Children {
    /// With this first process, which nobody has waited for.
    pub fn new(main: Pid, config: &ContainerConfig) -> Self {
        let elsewhere = config.isolation.as_ref().is_some_and(|isolation| isolation.lives_elsewhere());
        let elsewhere = config.cgroup.clone().filter(|_| elsewhere);
        Self { main, code: Mutex::new(None), elsewhere }
    }

    /// The exit code of the first process, if it has ended.
    pub fn code(&self) -> Option<i32> {
        *self.code.lock()
    }

    /// Collects every child that has ended; `true` if none is left.
    pub fn reap(&self) -> io::Result<bool> {
        let mut code = self.code.lock();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == self.main => *code = Some(status),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.main => {
                    *code = Some(128 + signal as i32);
                }
                Ok(WaitStatus::StillAlive) => return Ok(false),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the first process and whoever has become a child since: as a container's last process takes the others with
    /// it, orphans become the supervisor's children, because it is a subreaper, so killing children until there are none
    /// reaches every descendant. Returns whether there are any.
    pub fn kill(&self) -> io::Result<bool> {
        let code = self.code.lock();
        if code.is_none() {
            // Before anything is looked up: with a namespace of its own it takes all others with it.
            let _ = kill(self.main, Signal::SIGKILL);
        }
        let children = children_of(nix::unistd::getpid().as_raw())?;
        for pid in &children {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        drop(code);
        self.kill_elsewhere();
        Ok(!children.is_empty())
    }

    /// Ends what has become another container's.
    pub fn kill_elsewhere(&self) {
        self.elsewhere.iter().for_each(Cgroup::kill);
    }
}
