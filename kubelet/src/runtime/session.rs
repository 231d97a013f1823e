//! The streams of a process that somebody outside talks to: exec, attach and port-forward.

use std::fmt;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::runtime::RuntimeError;

/// Sizes of a terminal that wait to be set. Whoever sends waits when it is full; the newest one counts.
const SIZES: usize = 4;

/// Which streams of a process are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Something will be typed.
    pub stdin: bool,
    /// Standard output is read.
    pub stdout: bool,
    /// Standard error is read. With a terminal there is none.
    pub stderr: bool,
    /// The process has a terminal.
    pub tty: bool,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Where a process's input goes. Closing it is the end of the input.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;
/// Where a process's output comes from.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A connection to a port of a pod.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A process's streams, as far as they were asked for.
///
/// `end` does the moving where there is some to do, so it is polled while the streams are in use. Dropping
/// it ends what an exec has started; an attached container goes on.
pub struct Session {
    /// Standard input.
    pub stdin: Option<Input>,
    /// Standard output, or everything if there is a terminal.
    pub stdout: Option<Output>,
    /// Standard error.
    pub stderr: Option<Output>,
    /// The terminal's size.
    pub resize: mpsc::Sender<TerminalSize>,
    /// The exit code; 0 for an attached container, whose end its pod's status tells.
    pub end: BoxFuture<'static, Result<i32, RuntimeError>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// Both ends of the way for a terminal's sizes.
pub fn sizes() -> (mpsc::Sender<TerminalSize>, mpsc::Receiver<TerminalSize>) {
    mpsc::channel(SIZES)
}
