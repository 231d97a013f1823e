//! The sending side of a call: as fast as the receiver reads, and no faster.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::Status;

/// Where messages go. Dropped without [`Sink::finish`], the stream is reset.
pub struct Sink {
    stream: SendStream<Bytes>,
}

impl Sink {
    /// Over an open stream.
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream }
    }

    /// Sends bytes, waiting as long as the receiver has no room.
    ///
    /// # Errors
    /// If the receiver is gone.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), Status> {
        self.send_all(bytes, false).await
    }

    /// Sends bytes and closes our direction with the last of them, as a client does whose call has one
    /// message. A frame of its own for the end could come when the answer is there and the stream is gone.
    ///
    /// # Errors
    /// If the receiver is gone.
    pub async fn send_last(&mut self, bytes: Bytes) -> Result<(), Status> {
        self.send_all(bytes, true).await
    }

    async fn send_all(&mut self, mut bytes: Bytes, close: bool) -> Result<(), Status> {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let room = match poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                Some(room) => room.map_err(|error| Status::cancelled(&error))?,
                None => return Err(Status::cancelled(&Reason::CANCEL.into())),
            };
            let part = bytes.split_to(room.min(bytes.len()));
            let last = close && bytes.is_empty();
            self.stream.send_data(part, last).map_err(|error| Status::cancelled(&error))?;
        }
        Ok(())
    }

    /// Hands over bytes without waiting for room: for what is small and rare enough to be kept in memory.
    ///
    /// # Errors
    /// If the receiver is gone.
    pub fn send_now(&mut self, bytes: Bytes) -> Result<(), Status> {
        self.stream.send_data(bytes, false).map_err(|error| Status::cancelled(&error))
    }

    /// Ends the call.
    pub fn finish(mut self, result: Result<(), Status>) {
        let trailers = match result {
            Ok(()) => super::call::ok_trailers(),
            Err(status) => status.trailers(),
        };
        // The receiver may be gone; then nobody waits for the outcome.
        let _gone = self.stream.send_trailers(trailers);
    }

    /// Returns when the receiver gives up the stream.
    pub async fn gone(&mut self) {
        // Reset or lost connection: gone either way.
        let _reason = poll_fn(|cx| self.stream.poll_reset(cx)).await;
    }
}
