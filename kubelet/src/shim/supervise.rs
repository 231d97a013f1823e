//! Watches the command: its output, its end, and what it leaves behind.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::fence::Fence;
use crate::runtime::native::pty;
use crate::runtime::{ContainerConfig, Exit, TerminalSize};
use crate::shim::attach::{Attached, Stdin, Wish};
use crate::shim::children::Children;
use crate::shim::last_words;
use crate::shim::log::{LogWriter, Stream};
use crate::shim::record::{ContainerDir, Order};
use crate::shim::spawn::{Running, modified};
use crate::shim::stdio::Ours;

/// One read from a pipe: what a pipe holds.
const READ_SIZE: usize = 64 << 10;
/// How soon a client that takes nothing is looked at again, in milliseconds.
const STALLED: u16 = 1000;

/// One of the command's two output pipes; `None` once it is closed.
struct Pipe {
    stream: Stream,
    file: Option<File>,
}

impl Pipe {
    fn new(stream: Stream, fd: Option<OwnedFd>) -> Self {
        Self { stream, file: fd.map(File::from) }
    }
}

/// What goes in and out of a container.
struct Traffic {
    pipes: [Pipe; 2],
    stdin: Option<Stdin>,
    /// Our side of its terminal.
    terminal: Option<OwnedFd>,
    attached: Attached,
    log: LogWriter,
}

/// Runs until the command and all its descendants are gone and everything is written down. Returns the
/// shim's exit code.
pub fn run(directory: &ContainerDir, running: Running) -> i32 {
    let Running { order, process, children, log, started_at, message_before, attached, fence } = running;
    // What else the process has, its hold on the image, stays until the end of this function.
    let mut traffic = Traffic::of(&order.config, process.streams, attached, log);
    let code = traffic.watch(&children).unwrap_or(255);
    let finished_at = Timestamp::now();
    for stream in [Stream::Stdout, Stream::Stderr] {
        // A full disk loses log lines, never the exit code.
        let _ = traffic.log.finish(stream, finished_at);
    }
    traffic.attached.part();
    let mut exit = Exit::with_code(code, started_at, finished_at);
    exit.message = last_words(&order, message_before, code);
    if let Some(cgroup) = &order.config.cgroup {
        exit.reason = (code != 0 && cgroup.oom_kills() > 0).then(|| "OOMKilled".to_owned());
        children.kill_elsewhere();
        cgroup.remove();
    }
    if fence.as_ref().is_some_and(Fence::has_passed) {
        exit.reason = Some(api::self_fence::REASON.to_owned());
    }
    i32::from(directory.set_exit(&exit).is_err())
}

impl Traffic {
    fn of(config: &ContainerConfig, streams: Ours, attached: Attached, log: LogWriter) -> Self {
        let Ours { stdin, stdout, stderr, terminal } = streams;
        let stdin = stdin.and_then(|fd| Stdin::new(fd, config.stdin_once && !config.tty).ok());
        let pipes = [Pipe::new(Stream::Stdout, Some(stdout)), Pipe::new(Stream::Stderr, stderr)];
        Self { pipes, stdin, terminal, attached, log }
    }

    /// Pumps output until the main process has ended, then kills what it left and pumps the rest.
    fn watch(&mut self, children: &Children) -> io::Result<i32> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        loop {
            let childless = children.reap()?;
            let code = children.code();
            if childless && code.is_some() && self.pipes.iter().all(|pipe| pipe.file.is_none()) {
                return Ok(code.unwrap_or_default());
            }
            if code.is_some() && !childless {
                children.kill()?;
            }
            self.wait_and_pump(&signals, code.is_some() && childless)?;
        }
    }

    /// Blocks until something happens. `last`: nobody is left to write, so what can't be read now never
    /// comes (a pipe handed to a stranger outside the container must not keep the supervisor forever).
    fn wait_and_pump(&mut self, signals: &SignalFd, last: bool) -> io::Result<()> {
        let ready = self.poll(signals, last)?;
        while signals.read_signal()?.is_some() {}
        for (n, ready) in ready.into_iter().enumerate() {
            match ready {
                true => self.pump(n),
                false if last => self.pipes[n].file = None,
                false => {}
            }
        }
        self.attend();
        Ok(())
    }

    /// Waits; says which pipes can be read or are closed. Nobody's output is read while one who is attached
    /// can't take it, but the last.
    fn poll(&self, signals: &SignalFd, last: bool) -> io::Result<[bool; 2]> {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let reads = last || self.attached.is_listening();
        let open = self.pipes.iter().filter_map(|pipe| pipe.file.as_ref()).filter(|_| reads);
        fds.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        let full = self.stdin.as_ref().filter(|stdin| stdin.is_full());
        fds.extend(full.map(|stdin| PollFd::new(stdin.fd(), PollFlags::POLLOUT)));
        let interests = self.attached.interests(full.is_none());
        fds.extend(interests.into_iter().map(|(fd, flags)| PollFd::new(fd, flags)));
        let timeout = match () {
            () if last => PollTimeout::ZERO,
            () if self.attached.has_stalled() => PollTimeout::from(STALLED),
            () => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut answers = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(false));
        Ok([0, 1].map(|n: usize| reads && self.pipes[n].file.is_some() && answers.next().unwrap_or(false)))
    }

    fn pump(&mut self, n: usize) {
        let pipe = &mut self.pipes[n];
        let Some(file) = &mut pipe.file else { return };
        let mut buffer = vec![0; READ_SIZE];
        match file.read(&mut buffer) {
            Ok(0) => pipe.file = None,
            Ok(n) => {
                // A full disk must not block the container: its output is lost instead.
                let _ = self.log.write(pipe.stream, &buffer[..n], Timestamp::now());
                self.attached.tell(pipe.stream, &buffer[..n]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => pipe.file = None,
        }
    }

    /// Does what those who are attached want.
    fn attend(&mut self) {
        let typing = self.stdin.as_ref().is_none_or(|stdin| !stdin.is_full());
        for wish in self.attached.attend(typing, Instant::now()) {
            match (wish, &mut self.stdin, &self.terminal) {
                (Wish::Type(bytes), Some(stdin), _) => stdin.push(&bytes),
                (Wish::TypedAll, Some(stdin), _) => stdin.typed_all(),
                (Wish::Resize { width, height }, _, Some(terminal)) => {
                    // A size that can't be set changes nothing for the process.
                    let _ = pty::resize(terminal, TerminalSize { width, height });
                }
                _ => {}
            }
        }
        if self.stdin.as_mut().is_some_and(|stdin| !stdin.flush() || stdin.is_over()) {
            self.stdin = None;
        }
    }
}

/// The termination message. A file that hasn't changed since the start is another run's.
fn last_words(order: &Order, message_before: Option<SystemTime>, code: i32) -> Option<String> {
    let config = &order.config;
    let file = config.termination_message_path.as_deref().filter(|path| modified(path) != message_before);
    let log = config.termination_message_from_logs.then_some(&*order.log_path);
    last_words::read(file, log, code)
}
