//! The first process of a pod whose containers share their processes (`spec.shareProcessNamespace`): it keeps their pid
//! namespace and buries what they leave behind, as `pause` does elsewhere.
//!
//! Every container of the pod sees it, and one with `SYS_PTRACE` may look into it and drive it. Always holds, before anybody can
//! join it: it has an empty root, the pod's network, nothing of the agent's environment, no right and no user of the host's,
//! and the kernel lets it do nothing but wait and end.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::setsid;

use crate::container::capabilities::Capabilities;
use crate::container::init::give_up;
use crate::container::mount::open_host;
use crate::container::root::become_root;
use crate::container::seccomp::Filter;
use crate::container::shared_processes::{SharedProcesses, lock};
use crate::container::{Credentials, Security};
use crate::shim::request::STARTED;
use crate::shim::title;

/// Nobody's, as `pause` has it.
const NOBODY: u32 = 65535;
/// The descriptor of the answer; the lock's is the one before it, and there is no other.
const REPORT: i32 = 1;

/// What a holder is born into.
pub fn namespaces() -> CloneFlags {
    CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
}

/// Becomes the holder of the pod with this sandbox. As the first process of its namespace it hears no signal but the host's
/// `SIGKILL`, and takes all others with it.
pub fn become_holder(sandbox: &Path, mut report: File) -> ! {
    let mut code = 0;
    match confine(sandbox, &mut report) {
        Ok(true) => {
            super::tell(report, STARTED);
            wait();
        }
        // Another one holds it, which serves as well.
        Ok(false) => super::tell(report, STARTED),
        Err(error) => {
            super::tell(report, &format!("hold the pod's processes: {error}"));
            code = 1;
        }
    }
    // SAFETY: ends the process; nothing is buffered.
    unsafe { libc::_exit(code) }
}

/// The kernel buries children whose parent ignores their end.
fn wait() {
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
        if Errno::last() != Errno::EINTR {
            return;
        }
    }
}

/// Gives up all; `false` if somebody else has the lock. The order matters: each step needs what a later one takes.
fn confine(sandbox: &Path, report: &mut File) -> io::Result<bool> {
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    setsid()?;
    prctl::set_name(c"pause")?;
    let (order, file) = SharedProcesses::of(sandbox).open()?;
    if let Some(network) = &order.network {
        setns(File::open(network)?, CloneFlags::CLONE_NEWNET)?;
    }
    title::forget_environment()?;
    empty_root(sandbox)?;
    let file = keep_only(file, report)?;
    let security =
        Security { capabilities: Capabilities::NONE, no_new_privileges: true, ..Security::default() };
    give_up(&security, false, &Credentials { uid: NOBODY, gid: NOBODY, ..Credentials::default() })?;
    // It outlives fork server and agent.
    prctl::set_pdeathsig(None)?;
    let is_mine = lock(&file)?;
    // Closed, the file would be unlocked.
    let _ = file.into_raw_fd();
    if is_mine {
        Filter::for_waiting(REPORT.unsigned_abs()).install()?;
    }
    Ok(is_mine)
}

/// A root in which there is nothing, mounted over the sandbox for nobody else to see.
fn empty_root(sandbox: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("empty"), sandbox, Some("tmpfs"), flags, Some("mode=555,size=4k"))?;
    become_root(&open_host(sandbox)?)
}

/// Moves the file to descriptor 0 and the answer to 1; no other is open then.
fn keep_only(file: File, report: &mut File) -> io::Result<File> {
    // Neither may be in the other's place.
    let mine = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(REPORT + 1))?;
    let answers = fcntl(&*report, FcntlArg::F_DUPFD_CLOEXEC(REPORT + 1))?;
    for (from, to) in [(mine, 0), (answers, REPORT)] {
        // SAFETY: takes two numbers of descriptors. What was at the standard ones is nobody's to close.
        Errno::result(unsafe { libc::dup2(from, to) })?;
    }
    // SAFETY: the kernel has just made both, and they are known to nobody else.
    let (moved, answers) = unsafe { (File::from_raw_fd(0), File::from_raw_fd(REPORT)) };
    let _ = (file.into_raw_fd(), std::mem::replace(report, answers).into_raw_fd());
    // SAFETY: whoever has one of these descriptors has just been made to forget it, or ends with this process.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, REPORT + 1, libc::c_uint::MAX, 0) })?;
    Ok(moved)
}
