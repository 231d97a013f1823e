//! Watches the command: its output, its end, and what it leaves behind.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::process::children_of;
use crate::runtime::Exit;
use crate::shim::log::{LogWriter, Stream};
use crate::shim::record::ContainerDir;
use crate::shim::spawn::{Running, modified};

/// One read from a pipe: what a pipe holds.
const READ_SIZE: usize = 64 << 10;
/// The longest termination message (upstream's limit).
const MESSAGE_LIMIT: usize = 4096;
/// How much of the log may stand in for a missing termination message, in lines.
const MESSAGE_LINES: usize = 80;

/// One of the command's two output pipes; `None` once it is closed.
struct Pipe {
    stream: Stream,
    file: Option<File>,
}

impl Pipe {
    fn new(stream: Stream, fd: &OwnedFd) -> Self {
        Self { stream, file: fd.try_clone().ok().map(File::from) }
    }
}

/// Runs until the command and all its descendants are gone and everything is written down. Returns the
/// shim's exit code.
pub fn run(directory: &ContainerDir, mut running: Running) -> i32 {
    let mut pipes = [
        Pipe::new(Stream::Stdout, &running.process.stdout),
        Pipe::new(Stream::Stderr, &running.process.stderr),
    ];
    let code = watch(running.process.pid, &mut pipes, &mut running.log).unwrap_or(255);
    let finished_at = Timestamp::now();
    for pipe in &mut pipes {
        // A full disk loses log lines, never the exit code.
        let _ = running.log.finish(pipe.stream, finished_at);
    }
    let mut exit = Exit::with_code(code, running.started_at, finished_at);
    exit.message = last_words(&running, code);
    if let Some(cgroup) = &running.order.config.cgroup {
        exit.reason = (code != 0 && cgroup.oom_kills() > 0).then(|| "OOMKilled".to_owned());
        cgroup.remove();
    }
    i32::from(directory.set_exit(&exit).is_err())
}

/// Pumps output until the main process has ended, then kills what it left and pumps the rest.
fn watch(main: Pid, pipes: &mut [Pipe; 2], log: &mut LogWriter) -> io::Result<i32> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut code = None;
    loop {
        let childless = reap(main, &mut code)?;
        if childless && code.is_some() && pipes.iter().all(|pipe| pipe.file.is_none()) {
            return Ok(code.unwrap_or_default());
        }
        if code.is_some() && !childless {
            kill_descendants()?;
        }
        wait_and_pump(&signals, pipes, log, code.is_some() && childless)?;
    }
}

/// Collects every child that has ended; `true` if none is left.
fn reap(main: Pid, code: &mut Option<i32>) -> io::Result<bool> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == main => *code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => *code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// As a container's last process takes the others with it: orphans become the supervisor's children,
/// because it is a subreaper, so killing children until there are none reaches every descendant.
fn kill_descendants() -> io::Result<()> {
    for pid in children_of(nix::unistd::getpid().as_raw())? {
        // A child is not reaped by anyone else, so its number is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}

/// Blocks until something happens. `last`: nobody is left to write, so what can't be read now never
/// comes (a pipe handed to a stranger outside the container must not keep the supervisor forever).
fn wait_and_pump(
    signals: &SignalFd,
    pipes: &mut [Pipe; 2],
    log: &mut LogWriter,
    last: bool,
) -> io::Result<()> {
    let ready = poll_all(signals, pipes, if last { PollTimeout::ZERO } else { PollTimeout::NONE })?;
    while signals.read_signal()?.is_some() {}
    for (pipe, ready) in pipes.iter_mut().zip(ready) {
        match ready {
            true => pump(pipe, log)?,
            false if last => pipe.file = None,
            false => {}
        }
    }
    Ok(())
}

/// Which pipes can be read or are closed.
fn poll_all(signals: &SignalFd, pipes: &[Pipe; 2], timeout: PollTimeout) -> io::Result<[bool; 2]> {
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let open = pipes.iter().filter_map(|pipe| pipe.file.as_ref());
    fds.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut answers = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(false));
    Ok([0, 1].map(|n: usize| pipes[n].file.is_some() && answers.next().unwrap_or(false)))
}

fn pump(pipe: &mut Pipe, log: &mut LogWriter) -> io::Result<()> {
    let Some(file) = &mut pipe.file else { return Ok(()) };
    let mut buffer = vec![0; READ_SIZE];
    match file.read(&mut buffer) {
        Ok(0) => pipe.file = None,
        // A full disk must not block the container: its output is lost instead.
        Ok(n) => drop(log.write(pipe.stream, &buffer[..n], Timestamp::now())),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(_) => pipe.file = None,
    }
    Ok(())
}

/// The termination message: the file's, or the end of a failed container's log if so asked. A file that
/// hasn't changed since the start is another run's.
fn last_words(running: &Running, code: i32) -> Option<String> {
    let config = &running.order.config;
    let file = config.termination_message_path.as_deref();
    let file = file.filter(|path| modified(path) != running.message_before);
    let message = file.and_then(|path| tail(path, MESSAGE_LIMIT)).filter(|text| !text.is_empty());
    if message.is_some() || !config.termination_message_from_logs || code == 0 {
        return message;
    }
    let text = tail(&running.order.log_path, 4 * MESSAGE_LIMIT)?;
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let newest = lines[lines.len().saturating_sub(MESSAGE_LINES)..].join("\n") + "\n";
    let from = newest.len().saturating_sub(MESSAGE_LIMIT);
    Some(newest[newest.ceil_char_boundary(from)..].to_owned())
}

/// The last bytes of a file, as text.
fn tail(path: &Path, limit: usize) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(limit)..]).into_owned())
}
