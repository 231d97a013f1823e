//! The signals that ask a process to end, as an event.

use std::io;

use client::Shutdown;
use client::shutdown;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Ctrl-C and SIGTERM.
pub struct Termination {
    interrupt: Signal,
    terminate: Signal,
}

impl Termination {
    /// From now on these signals no longer end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs what ends when it is asked to, until it ends or a signal asks.
pub async fn until_asked_to_stop<F: Future<Output = ()>>(
    run: impl FnOnce(Shutdown) -> F,
) -> Result<(), Failure> {
    let mut stop = Termination::listen().map_err(|source| Failure::io("listen for signals", source))?;
    let (trigger, asked) = shutdown::channel();
    let mut running = std::pin::pin!(run(asked));
    tokio::select! {
        () = &mut running => {}
        () = stop.next() => {
            trigger.request();
            running.await;
        }
    }
    Ok(())
}
