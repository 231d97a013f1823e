//! A command run beside a container's process: for probes, lifecycle hooks, and whoever looks inside.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::runtime::native::enter::Entrance;
use crate::runtime::native::pty::{self, Terminal};
use crate::runtime::native::watch;
use crate::runtime::session::sizes;
use crate::runtime::{
    ContainerConfig, EXEC_OUTPUT_LIMIT, ExecOutput, Input, Output, RuntimeError, Session, Streams,
    TerminalSize,
};
use crate::shim::record::RunningRecord;

/// Runs the command with the container's user, directory and environment, and collects what it says.
pub async fn run(
    config: &ContainerConfig,
    record: &RunningRecord,
    command: &[String],
    timeout: Duration,
) -> Result<ExecOutput, RuntimeError> {
    let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
    let mut group = Group::start(build(config, record, command, streams)?, command)?;
    match tokio::time::timeout(timeout, collect(&mut group.child)).await {
        Ok(done) => done.map_err(super::system(format!("run {:?}", command[0]))),
        Err(_) => Err(RuntimeError::ExecTimeout(timeout)),
    }
}

/// Starts the command and hands out its streams. It ends with the container, and when nobody waits for it
/// any more.
pub fn start(
    config: &ContainerConfig,
    record: &RunningRecord,
    command: &[String],
    streams: Streams,
) -> Result<Session, RuntimeError> {
    let mut built = build(config, record, command, streams)?;
    let (resize, new_sizes) = sizes();
    let record = record.clone();
    if !streams.tty {
        let mut group = Group::start(built, command)?;
        let child = &mut group.child;
        return Ok(Session {
            stdin: child.stdin.take().map(|pipe| Box::new(pipe) as Input),
            stdout: child.stdout.take().map(|pipe| Box::new(pipe) as Output),
            stderr: child.stderr.take().map(|pipe| Box::new(pipe) as Output),
            resize,
            end: Box::pin(end(group, None, new_sizes, record)),
        });
    }
    let (terminal, slave) = open_terminal().map_err(super::system("open a terminal"))?;
    attach_terminal(&mut built, &slave).map_err(super::system("open a terminal"))?;
    let group = Group::start(built, command)?;
    let boxed = |wanted: bool| wanted.then(|| terminal.clone());
    Ok(Session {
        stdin: boxed(streams.stdin).map(|terminal| Box::new(terminal) as Input),
        stdout: boxed(streams.stdout).map(|terminal| Box::new(terminal) as Output),
        stderr: None,
        resize,
        end: Box::pin(end(group, Some(terminal), new_sizes, record)),
    })
}

fn open_terminal() -> io::Result<(Terminal, OwnedFd)> {
    let (master, slave) = pty::open()?;
    Ok((Terminal::new(master)?, slave))
}

fn attach_terminal(command: &mut Command, slave: &OwnedFd) -> io::Result<()> {
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
    // SAFETY: two system calls, both safe between fork and exec.
    unsafe { command.pre_exec(pty::take_as_own) };
    Ok(())
}

/// Waits for the process, sets its terminal's size meanwhile, and ends it with its container.
async fn end(
    mut group: Group,
    terminal: Option<Terminal>,
    mut sizes: mpsc::Receiver<TerminalSize>,
    container: RunningRecord,
) -> Result<i32, RuntimeError> {
    let resizing = async {
        while let Some(size) = sizes.recv().await {
            // A size that can't be set changes nothing for the process.
            let _ = terminal.as_ref().map(|terminal| terminal.resize(size));
        }
        std::future::pending::<()>().await
    };
    let status = tokio::select! {
        status = group.child.wait() => status,
        () = resizing => unreachable!("a future that never ends"),
        gone = watch::gone(&container.process) => {
            gone.map_err(super::system("watch the container"))?;
            group.kill();
            group.child.wait().await
        }
    };
    status.map(code_of).map_err(super::system("wait for the command"))
}

/// The command as it will run, not started. What it can't do is found out when it is.
fn build(
    config: &ContainerConfig,
    record: &RunningRecord,
    words: &[String],
    streams: Streams,
) -> Result<Command, RuntimeError> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| RuntimeError::Start("the command is empty".to_owned()))?;
    let entrance = Entrance::of(config, record).map_err(super::system("enter the container"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(crate::shim::environment(config, home(record)));
    let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    command.stdin(pipe(streams.stdin)).stdout(pipe(streams.stdout)).stderr(pipe(streams.stderr));
    command.kill_on_drop(true);
    // SAFETY: entering is made for the time between fork and exec.
    unsafe { command.pre_exec(move || entrance.enter()) };
    match streams.tty {
        // A terminal's owner leads a session, which is a group as well.
        true => command.env("TERM", "xterm"),
        false => command.process_group(0),
    };
    Ok(command)
}

/// Known of a container with files of its own.
fn home(record: &RunningRecord) -> Option<&str> {
    record.credentials.as_ref().map(|credentials| credentials.home.as_str())
}

/// A command and what it starts belong together: a probe that hangs must leave nothing behind.
struct Group {
    child: Child,
}

impl Group {
    fn start(mut command: Command, words: &[String]) -> Result<Self, RuntimeError> {
        let child = command.spawn().map_err(|error| RuntimeError::Start(refusal(words, &error)))?;
        Ok(Self { child })
    }

    /// The number can't be another's: it is given only until the child has been waited for.
    fn kill(&self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What users know from other runtimes.
fn refusal(words: &[String], error: &io::Error) -> String {
    let program = words.first().map(String::as_str).unwrap_or_default();
    let why = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => "no such file or directory".to_owned(),
        io::ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("exec: {program:?}: {why}")
}

async fn collect(child: &mut Child) -> io::Result<ExecOutput> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, out, err) = tokio::join!(child.wait(), limited(stdout), limited(stderr));
    let mut output = out;
    output.extend(err);
    output.truncate(EXEC_OUTPUT_LIMIT);
    Ok(ExecOutput { code: code_of(status?), output })
}

/// Reads up to the limit and lets the rest pass, so that the command never blocks on a full pipe.
async fn limited(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        let room = EXEC_OUTPUT_LIMIT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
    kept
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}
