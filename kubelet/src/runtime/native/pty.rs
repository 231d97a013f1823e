//! A terminal for a process: the kernel's pair of a master, which we hold, and a slave, which the process has.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::runtime::TerminalSize;
use crate::runtime::native::enter::check;

/// Opens a pair: master and slave, both closed on exec.
pub fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = openpty(None, None)?;
    for fd in [&pair.master, &pair.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((pair.master, pair.slave))
}

/// Sets the size; its processes are told by SIGWINCH.
pub fn resize(master: &impl AsRawFd, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the kernel reads one winsize.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) })
}

/// Makes the terminal that is standard input the caller's own, in a new session. For the child, before exec.
pub fn take_as_own() -> io::Result<()> {
    // SAFETY: takes nothing; fails only for a leader of a process group, which a fresh child isn't.
    check(unsafe { libc::setsid() })?;
    control_stdin()
}

/// Makes the terminal that is standard input that of the session which the caller leads.
pub fn control_stdin() -> io::Result<()> {
    // SAFETY: descriptor 0 is open; the argument is a plain number.
    check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })
}

/// The master's side on the event loop. Clones are the same terminal.
#[derive(Clone, Debug)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Takes the master.
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // SAFETY: OwnedFd owns its descriptor and never replaces it.
        let registered =
            unsafe { AsyncFd::register_with_interest(master, Interest::READABLE | Interest::WRITABLE) };
        Ok(Self(Arc::new(registered.map_err(io::Error::from)?)))
    }

    /// Sets the size.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        resize(self.0.get_ref(), size)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer.initialize_unfilled())?)) {
                Ok(Ok(read)) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed its side: that is the end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(done) = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(done);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
