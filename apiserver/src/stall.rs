//! A connection that is cut off when its client takes nothing of what is sent to it.
//!
//! A client that stops reading would hold a whole answer, or a watch's next frame, in memory for as long as it likes.
//! An idle connection is no stall: only a write that can't go on counts. Once a connection is somebody's terminal
//! ([`Patience`]) even that is none: who pauses the output means to read on, and nothing but the terminal waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream with a limit on how long a write may make no progress.
pub struct StallGuard<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    patience: Patience,
}

/// Whether a connection's writes may wait as long as the connection lives.
#[derive(Clone, Debug, Default)]
pub struct Patience(Arc<AtomicBool>);

impl Patience {
    /// From now on they may.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> StallGuard<S> {
    /// Cuts the stream off after `limit` without progress.
    pub fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None, patience: Patience::default() }
    }

    /// With which the limit can be lifted.
    pub fn patience(&self) -> Patience {
        self.patience.clone()
    }

    /// Starts or stops the clock as the write goes.
    fn watch<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() || self.patience.has_begun() {
            self.waiting = None;
            return write;
        }
        let limit = self.limit;
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shutdown)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_patience_is_never_cut_off() {
        let (near, mut far) = duplex(4);
        let mut guarded = StallGuard::new(near, Duration::from_secs(60));
        guarded.patience().begin();
        let reader = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            far.read_exact(&mut [0; 20]).await.expect("written");
        });
        guarded.write_all(&[7; 20]).await.expect("an hour is nothing");
        reader.await.expect("read");
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_write_that_makes_no_progress_ends_the_connection() {
        let (near, mut far) = duplex(4);
        let mut guarded = StallGuard::new(near, Duration::from_secs(60));
        // Slow, but it goes on.
        let reader = tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                far.read_exact(&mut [0; 4]).await.expect("written");
            }
            tokio::time::sleep(Duration::from_secs(3600)).await;
            far
        });
        guarded.write_all(&[7; 20]).await.expect("each part in time");
        tokio::time::sleep(Duration::from_secs(600)).await;
        let stalled = guarded.write_all(&[7; 20]).await.expect_err("nobody reads");
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        reader.abort();
    }
}
