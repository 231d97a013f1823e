//! What a container's first process does before it becomes the command; and a later one that joins it.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{Gid, Uid, chdir, execve, setgroups, sethostname, setresgid, setresuid, setsid};

use crate::container::capabilities::Capabilities;
use crate::container::root::{self, RunDirs};
use crate::container::seccomp::Filter;
use crate::container::user::resolve;
use crate::container::{Credentials, Isolation, Security};
use crate::runtime::ContainerConfig;
use crate::runtime::native::pty;
use crate::shim::DEFAULT_PATH;
use crate::shim::stdio::Theirs;

/// Becomes the command. Only returns if that fails; `found` is told who the command is before.
pub fn become_command(
    config: &ContainerConfig,
    isolation: &Isolation,
    run: &Path,
    streams: &Theirs,
    found: impl FnOnce(&Credentials) -> io::Result<()>,
) -> String {
    match prepare(config, isolation, run, streams, found) {
        Ok(credentials) => exec(config, &credentials),
        Err(why) => why,
    }
}

fn prepare(
    config: &ContainerConfig,
    isolation: &Isolation,
    run: &Path,
    streams: &Theirs,
    found: impl FnOnce(&Credentials) -> io::Result<()>,
) -> Result<Credentials, String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    begin(config, isolation).map_err(failed("begin the container"))?;
    root::enter(isolation, &RunDirs::of(run))?;
    let credentials = who(&isolation.security)?;
    found(&credentials).map_err(failed("tell who the command is"))?;
    standard_streams(streams).map_err(failed("hand over the standard streams"))?;
    enter_directory(config, &credentials)?;
    give_up(&isolation.security, isolation.privileged, &credentials).map_err(failed("give up privileges"))?;
    Ok(credentials)
}

/// The session, the group and the namespaces of the container.
fn begin(config: &ContainerConfig, isolation: &Isolation) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    hide_program()?;
    setsid()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if let Some(cgroup) = &config.cgroup {
        cgroup.join()?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    // A lower score than one's own needs a right that a nested host may lack; the kernel's choice stands.
    let _ = fs::write("/proc/self/oom_score_adj", config.oom_score_adj.to_string());
    let shared = isolation.sandbox.join("ipc");
    if !isolation.host_ipc && network::held_namespace::is_held(&shared)? {
        setns(fs::File::open(&shared)?, CloneFlags::CLONE_NEWIPC)?;
    }
    if let Some(hostname) = &isolation.hostname {
        sethostname(hostname)?;
    }
    Ok(())
}

/// Reads the image's own files, inside the new root.
fn who(security: &Security) -> Result<Credentials, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    let mut credentials = resolve(&security.user, &passwd, &group, security.image_groups)?;
    credentials.groups.extend(&security.groups);
    Ok(credentials)
}

fn standard_streams(streams: &Theirs) -> io::Result<()> {
    nix::unistd::dup2_stdin(&streams.stdin)?;
    nix::unistd::dup2_stdout(&streams.stdout)?;
    nix::unistd::dup2_stderr(&streams.stderr)?;
    if streams.is_terminal { pty::control_stdin() } else { Ok(()) }
}

/// As upstream's runtimes: a working directory that is missing is made.
fn enter_directory(config: &ContainerConfig, credentials: &Credentials) -> Result<(), String> {
    let dir = config.working_dir.as_deref().unwrap_or(Path::new("/"));
    if !dir.exists() && fs::create_dir_all(dir).is_ok() {
        let _ = std::os::unix::fs::chown(dir, Some(credentials.uid), Some(credentials.gid));
    }
    chdir(dir).map_err(|errno| format!("chdir to cwd ({:?}) failed: {}", dir.display(), plain(errno)))
}

/// Until it has become the container's command, a process in the container is the node's own program: nobody there may
/// get at that by `/proc/PID/exe` (runc's CVE-2019-5736). The command itself is as open as it is to be.
pub fn hide_program() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Gives up all that the command may not have. The order matters: each step needs what a later one takes.
pub fn give_up(security: &Security, privileged: bool, credentials: &Credentials) -> io::Result<()> {
    if security.no_new_privileges {
        prctl::set_no_new_privs()?;
    }
    let capabilities = if privileged { Capabilities::ALL } else { security.capabilities };
    if security.seccomp && !privileged {
        Filter::default_for(capabilities).install()?;
    }
    capabilities.bound()?;
    let groups: Vec<Gid> = credentials.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups)?;
    let (uid, gid) = (Uid::from_raw(credentials.uid), Gid::from_raw(credentials.gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    capabilities.keep()?;
    // Another user's process forgets whom it was to die with.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    SigSet::empty().thread_set_mask()?;
    // SAFETY: no handler is installed. Rust's own start has had this one ignored.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}

/// The environment in the kernel's form. A zero byte can't be passed on; the API server lets none through.
fn environment(config: &ContainerConfig, home: &str) -> Vec<CString> {
    let all = crate::shim::environment(config, Some(home));
    all.into_iter().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect()
}

fn exec(config: &ContainerConfig, credentials: &Credentials) -> String {
    let words: Vec<&String> = config.command.iter().chain(&config.args).collect();
    let env = environment(config, &credentials.home);
    let Some(program) = words.first() else { return "no command specified".to_owned() };
    let arguments: Vec<CString> =
        words.iter().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
    let path = env.iter().find_map(|entry| entry.to_str().ok()?.strip_prefix("PATH=").map(str::to_owned));
    let why = run(program, &arguments, &env, path.as_deref().unwrap_or(DEFAULT_PATH));
    format!("exec: {program:?}: {why}")
}

/// Tries the program, or each place of the search path, and says why none could be run.
fn run(program: &str, arguments: &[CString], env: &[CString], path: &str) -> String {
    if program.contains('/') {
        return try_run(OsStr::new(program), arguments, env).map_or_else(plain, |never| match never {});
    }
    let mut refused = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = Path::new(dir).join(program);
        match try_run(candidate.as_os_str(), arguments, env) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => refused = Some(errno),
        }
    }
    refused.map_or_else(|| "executable file not found in $PATH".to_owned(), plain)
}

fn try_run(path: &OsStr, arguments: &[CString], env: &[CString]) -> Result<std::convert::Infallible, Errno> {
    let path = CString::new(path.as_bytes()).map_err(|_| Errno::EINVAL)?;
    execve(&path, arguments, env)
}

/// In the words that users know from other runtimes.
pub fn plain(errno: Errno) -> String {
    match errno {
        Errno::ENOENT => "no such file or directory".to_owned(),
        Errno::EACCES => "permission denied".to_owned(),
        Errno::ENOEXEC => "exec format error".to_owned(),
        other => other.desc().to_lowercase(),
    }
}

/// Joins the namespaces and the group of a running container: `process` is a pidfd of its first process, whose
/// number is `first`. The caller forks afterwards: only children are in the container's pid namespace.
pub fn join(
    process: BorrowedFd<'_>,
    first: i32,
    config: &ContainerConfig,
    isolation: &Isolation,
) -> io::Result<()> {
    if let Some(cgroup) = &config.cgroup {
        cgroup.join_beside(first)?;
    }
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    if !isolation.host_pid {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    if !isolation.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    if config.network.is_some() {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    Ok(setns(process.as_fd(), flags)?)
}
