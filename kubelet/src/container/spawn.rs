//! The supervisor's part: clones the container's first process and waits until it is the command.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, pipe2};

use crate::container::cgroup::Cgroup;
use crate::container::init::become_command;
use crate::container::namespaces::fork_into;
use crate::container::shared_processes::SharedProcesses;
use crate::container::{Credentials, Isolation};
use crate::runtime::ContainerConfig;
use crate::shim::stdio::Theirs;

/// A container whose command runs.
pub struct Spawned {
    /// Its first process, as the host sees it.
    pub pid: Pid,
    /// Who the command is.
    pub credentials: Credentials,
    /// Its images stay as long as these are held.
    pub images: Vec<Flock<File>>,
}

/// Starts the container whose run has this directory. The error is the reason for the user.
///
/// # Safety
/// The caller has one thread.
pub unsafe fn spawn(
    config: &ContainerConfig,
    isolation: &Isolation,
    run: &Path,
    streams: Theirs,
) -> Result<Spawned, String> {
    let images = isolation.images().map(hold_image).collect::<Result<_, _>>()?;
    let system = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    if let Some(cgroup) = &config.cgroup {
        cgroup
            .create(&config.limits, config.pod_group.as_ref())
            .map_err(system("make the container's cgroup"))?;
    }
    let (report, told) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| system("make a pipe")(errno.into()))?;
    join_others(isolation).map_err(system("join the processes that the container shares"))?;
    let group = config.cgroup.as_ref().and_then(Cgroup::open);
    // SAFETY: as the caller promises.
    let child = unsafe { fork_into(namespaces(isolation), group.as_ref().map(AsFd::as_fd)) };
    let child = child.map_err(system("make the container's namespaces"))?;
    drop(group);
    let Some(pid) = child else { child_main(config, isolation, run, &streams, told.into()) };
    drop((streams, told));
    if isolation.lives_elsewhere() {
        come_back().map_err(system("part from the processes that the container shares"))?;
    }
    let credentials = wait_for_exec(report.into()).inspect_err(|_| {
        let _ = nix::sys::wait::waitpid(pid, None);
        if let Some(cgroup) = &config.cgroup {
            cgroup.remove();
        }
    })?;
    Ok(Spawned { pid, credentials, images })
}

/// The supervisor's children are born into the pid namespace that it joins; itself it stays where it is.
fn join_others(isolation: &Isolation) -> io::Result<()> {
    let ended = || io::Error::new(io::ErrorKind::NotFound, "their first one has ended");
    if let Some(target) = &isolation.joins {
        let process = target.open()?.ok_or_else(ended)?;
        return Ok(setns(process, CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC)?);
    }
    if isolation.shares_processes {
        let holder = SharedProcesses::of(&isolation.sandbox).holder()?.ok_or_else(ended)?;
        setns(holder, CloneFlags::CLONE_NEWPID)?;
    }
    Ok(())
}

/// Who has children born elsewhere can't have threads, which a container that fences itself needs.
fn come_back() -> io::Result<()> {
    Ok(setns(File::open("/proc/self/ns/pid")?, CloneFlags::CLONE_NEWPID)?)
}

fn namespaces(isolation: &Isolation) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS;
    if isolation.hostname.is_some() {
        flags |= CloneFlags::CLONE_NEWUTS;
    }
    if !isolation.host_pid && !isolation.lives_elsewhere() {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    if !isolation.host_ipc && isolation.joins.is_none() {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    flags
}

/// Whoever removes images asks for this lock first; its time tells when the image was last used.
fn hold_image(image: &Path) -> Result<Flock<File>, String> {
    let id = image.file_stem().unwrap_or_default().display();
    let gone = |error: io::Error| format!("image sha256:{id} was removed: {error}");
    let file = File::open(image).map_err(gone)?;
    let now = std::time::SystemTime::now();
    let _ = file.set_times(std::fs::FileTimes::new().set_modified(now));
    let held = Flock::lock(file, FlockArg::LockSharedNonblock).map_err(|(_, errno)| gone(errno.into()))?;
    if image.exists() { Ok(held) } else { Err(gone(io::ErrorKind::NotFound.into())) }
}

/// Two lines may be told: who the command is, and what went wrong.
fn child_main(
    config: &ContainerConfig,
    isolation: &Isolation,
    run: &Path,
    streams: &Theirs,
    mut told: File,
) -> ! {
    let mut say = told.try_clone();
    let why = become_command(config, isolation, run, streams, |credentials| {
        let said = say.as_mut().map_err(|_| io::ErrorKind::Other)?;
        serde_json::to_writer(&mut *said, credentials)?;
        said.write_all(b"\n")
    });
    let _ = told.write_all(format!("!{why}").as_bytes());
    // SAFETY: ends the process; nothing is buffered.
    unsafe { libc::_exit(1) }
}

/// The pipe closes when the command runs, or after the reason why it doesn't.
fn wait_for_exec(mut report: File) -> Result<Credentials, String> {
    let mut text = String::new();
    report.read_to_string(&mut text).map_err(|error| format!("read the container's report: {error}"))?;
    let (who, rest) = text.split_once('\n').unwrap_or(("", &text));
    if let Some(why) = rest.strip_prefix('!') {
        return Err(why.to_owned());
    }
    serde_json::from_str(who).map_err(|_| "the container ended before its command ran".to_owned())
}
