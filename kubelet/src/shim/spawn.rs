//! Starts the container's command.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use nix::fcntl::Flock;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::container::{self, Credentials, Isolation};
use crate::fence::{self, Fence};
use crate::process::ProcessIdentity;
use crate::runtime::native::pty;
use crate::runtime::{ContainerConfig, NetworkPlace};
use crate::shim::attach::Attached;
use crate::shim::children::Children;
use crate::shim::log::LogWriter;
use crate::shim::record::{ContainerDir, Order, RunningRecord};
use crate::shim::stdio::{self, Ours, Theirs};

/// What a container finds its programs by, if neither its image nor its pod say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that runs, and what is needed to watch it.
pub struct Running {
    pub order: Order,
    pub process: Process,
    pub children: Arc<Children>,
    pub log: LogWriter,
    pub started_at: Timestamp,
    /// When the termination message file was last written before this run: the host's files are shared, so
    /// it may hold another run's words.
    pub message_before: Option<SystemTime>,
    /// Open before anybody hears that the container runs.
    pub attached: Attached,
    /// Ends it when the node can no longer say that it lives.
    pub fence: Option<Fence>,
}

/// The command's first process.
pub struct Process {
    pub pid: Pid,
    pub streams: Ours,
    credentials: Option<Credentials>,
    /// Held while the container runs.
    _images: Vec<Flock<File>>,
}

impl Process {
    /// Ends it; the caller never waited for it, so the number is still its own.
    fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// When a file was last written; `None` if there is none.
pub fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

/// Starts what the directory's order says and writes down who runs. The error is the reason given to the
/// user.
pub fn start(directory: &ContainerDir) -> Result<Running, String> {
    let order = directory.order().map_err(|error| format!("read the container's configuration: {error}"))?;
    prepare().map_err(|error| format!("prepare the supervisor: {error}"))?;
    let fence = order.promise.as_deref().map(fenced).transpose()?;
    let log = LogWriter::open(&order.log_path, order.limits)
        .map_err(|error| format!("open the log {}: {error}", order.log_path.display()))?;
    let message_before = order.config.termination_message_path.as_deref().and_then(modified);
    let attached = Attached::listen(directory.path());
    let (ours, theirs) =
        stdio::open(&order.config).map_err(|error| format!("open the container's streams: {error}"))?;
    if let Some(place) = &order.config.network {
        let plain = order.config.isolation.is_none();
        enter_network(place, plain).map_err(|error| format!("enter the pod's network: {error}"))?;
    }
    let process = match &order.config.isolation {
        // SAFETY: a supervisor has one thread.
        Some(isolation) => unsafe { isolated(&order.config, isolation, directory.path(), ours, theirs) }?,
        None => plain(&order.config, ours, theirs)?,
    };
    let started_at = Timestamp::now();
    let children = Arc::new(Children::new(process.pid, &order.config));
    // Before anything else is written: the disk may hang. And not earlier: a process is made by who has one thread.
    if let Some(error) = fence.as_ref().and_then(|fence| keep(fence, &children).err()) {
        process.kill();
        return Err(format!("watch the node's promise: {error}"));
    }
    if let Err(error) = record(directory, &process, started_at) {
        // Unrecorded, it could never be found again.
        process.kill();
        return Err(format!("record the container: {error}"));
    }
    if directory.is_cancelled() {
        process.kill();
        return Err("the start was given up by the agent".to_owned());
    }
    Ok(Running { order, process, children, log, started_at, message_before, attached, fence })
}

/// What needs the node's promise isn't started without it: it may run elsewhere.
fn fenced(promise: &Path) -> Result<Fence, String> {
    match fence::holds(promise) {
        true => Ok(Fence::new(promise)),
        false => Err("the pod fences itself, and the node can't say that it lives".to_owned()),
    }
}

/// Ends the container with the promise. What this thread does then, waiting for a disk perhaps, is no matter.
fn keep(fence: &Fence, children: &Arc<Children>) -> io::Result<()> {
    let children = children.clone();
    // Who can't look who is left tries again.
    fence.watch(move || children.kill().unwrap_or(true))?;
    // Programs and data that are in memory now stay there, since the disk may be the one that they would have to come
    // from. It is a right that not everybody has, and works without.
    // SAFETY: it takes flags only.
    let _ = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) };
    Ok(())
}

/// The supervisor moves, and its child with it. A plain process sees the host's files, but for those that
/// say who is who in its pod's network.
fn enter_network(place: &NetworkPlace, plain: bool) -> io::Result<()> {
    setns(File::open(&place.namespace)?, CloneFlags::CLONE_NEWNET)?;
    if !plain {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    // What the host mounts and takes away later is seen here, too; what is mounted here stays here.
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    for name in ["hosts", "resolv.conf"] {
        let target = Path::new("/etc").join(name);
        if target.exists() {
            mount(Some(&place.files.join(name)), &target, none, MsFlags::MS_BIND, none)?;
        }
    }
    Ok(())
}

/// # Safety
/// The caller has one thread.
unsafe fn isolated(
    config: &ContainerConfig,
    isolation: &Isolation,
    run: &Path,
    streams: Ours,
    theirs: Theirs,
) -> Result<Process, String> {
    // SAFETY: as the caller promises.
    let spawned = unsafe { container::spawn::spawn(config, isolation, run, theirs) }?;
    let container::spawn::Spawned { pid, credentials, images } = spawned;
    Ok(Process { pid, streams, credentials: Some(credentials), _images: images })
}

fn plain(config: &ContainerConfig, streams: Ours, theirs: Theirs) -> Result<Process, String> {
    let failed = |error: io::Error| refusal(config, &error);
    let child = command(config, theirs).spawn().map_err(failed)?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other).map_err(failed)?;
    Ok(Process { pid: Pid::from_raw(pid), streams, credentials: None, _images: Vec::new() })
}

fn prepare() -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    // A supervisor must not die by a signal meant for someone else; SIGCHLD arrives by descriptor.
    let ignored = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    let mut mask = SigSet::empty();
    ignored.into_iter().chain([Signal::SIGCHLD]).for_each(|signal| mask.add(signal));
    mask.thread_block()?;
    Ok(())
}

fn record(directory: &ContainerDir, process: &Process, started_at: Timestamp) -> io::Result<()> {
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let record = RunningRecord {
        shim: ProcessIdentity::of(own)?,
        process: ProcessIdentity::of(process.pid.as_raw())?,
        started_at,
        credentials: process.credentials.clone(),
    };
    directory.set_running(&record)
}

fn arguments(config: &ContainerConfig) -> impl Iterator<Item = &String> {
    config.command.iter().chain(&config.args)
}

/// What every process of the container finds in its environment. `home` is known of a container with files of
/// its own.
pub fn environment<'a>(config: &'a ContainerConfig, home: Option<&'a str>) -> BTreeMap<&'a str, &'a str> {
    let home = home.unwrap_or(if config.user.unwrap_or(0) == 0 { "/root" } else { "/" });
    let own = config.isolation.as_ref().and_then(|isolation| isolation.hostname.as_deref());
    let hostname = own.unwrap_or(&config.pod.name);
    let mut all = BTreeMap::from([("PATH", DEFAULT_PATH), ("HOSTNAME", hostname), ("HOME", home)]);
    if config.tty {
        all.insert("TERM", "xterm");
    }
    all.extend(config.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    all
}

fn command(config: &ContainerConfig, streams: Theirs) -> Command {
    let mut words = arguments(config);
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words).env_clear().envs(environment(config, None));
    command.current_dir(config.working_dir.as_deref().unwrap_or("/".as_ref()));
    command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
    match streams.is_terminal {
        // SAFETY: two system calls, both safe between fork and exec.
        true => unsafe { command.pre_exec(pty::take_as_own) },
        false => command.process_group(0),
    };
    config.group.into_iter().for_each(|group| {
        command.gid(group);
    });
    config.user.into_iter().for_each(|user| {
        command.uid(user);
    });
    let supervisor = nix::unistd::getpid();
    // SAFETY: the closure calls prctl, sigprocmask and getppid only, all safe between fork and exec.
    unsafe { command.pre_exec(move || leave_supervisor(supervisor)) };
    command
}

/// In the child: dies with its supervisor, and takes signals like any other process.
fn leave_supervisor(supervisor: nix::unistd::Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != supervisor {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// What users know from other runtimes.
fn refusal(config: &ContainerConfig, error: &io::Error) -> String {
    let program = config.command.first().or(config.args.first()).map(String::as_str).unwrap_or_default();
    let why = match error.kind() {
        io::ErrorKind::NotFound => match config.working_dir.as_deref().filter(|dir| !dir.is_dir()) {
            Some(dir) => {
                return format!("chdir to cwd ({:?}) failed: no such file or directory", dir.display());
            }
            None if program.contains('/') => "no such file or directory".to_owned(),
            None => "executable file not found in $PATH".to_owned(),
        },
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("exec: {program:?}: {why}")
}
