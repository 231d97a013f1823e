//! The receiving side of a call: messages out of DATA frames.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use prost::Message;

use super::{Code, Status};

/// Length of what precedes a message: one byte "compressed", four bytes length.
pub const PREFIX: usize = 5;

/// How long a client may take to end a call's messages.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// The messages that the other side sends. Not safe to drop in the middle of a `next`: keep its future.
pub struct Messages {
    body: RecvStream,
    /// Received and not yet handed out; usually one frame that holds one message, shared, not copied.
    buffer: Bytes,
    max_bytes: usize,
}

impl Messages {
    /// Messages of at most `max_bytes`.
    pub fn new(body: RecvStream, max_bytes: usize) -> Self {
        Self { body, buffer: Bytes::new(), max_bytes }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// If the stream ended early, or the message is too large, compressed or not what it should be.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        match self.next_bytes().await? {
            Some(bytes) => M::decode(bytes).map(Some).map_err(Status::malformed),
            None => Ok(None),
        }
    }

    /// The one message of a call that has one.
    ///
    /// # Errors
    /// As [`Messages::next`], and if there is none.
    pub async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        self.next().await?.ok_or_else(|| Status::malformed("it has no message"))
    }

    /// Waits a moment until the other side has nothing more to say. Whoever answers earlier resets the
    /// stream, and not every client takes that for the end of a good answer.
    pub async fn wait_for_end(&mut self) {
        if self.body.is_end_stream() {
            return;
        }
        let end = async { while matches!(self.body.data().await, Some(Ok(_))) {} };
        // Who doesn't say the end in time gets the answer all the same.
        let _in_time = tokio::time::timeout(END_PATIENCE, end).await;
    }

    /// What the other side said at the end.
    ///
    /// # Errors
    /// If the stream ended early.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, Status> {
        self.body.trailers().await.map_err(|error| Status::cancelled(&error))
    }

    async fn next_bytes(&mut self) -> Result<Option<Bytes>, Status> {
        if !self.fill(PREFIX).await? {
            return Ok(None);
        }
        let length = self.announced()?;
        if !self.fill(PREFIX + length).await? {
            return Err(Status::malformed("it ends in the middle of a message"));
        }
        let mut message = self.buffer.split_to(PREFIX + length);
        Ok(Some(message.split_off(PREFIX)))
    }

    fn announced(&self) -> Result<usize, Status> {
        let [compressed, length @ ..] =
            self.buffer.first_chunk::<PREFIX>().expect("the prefix was waited for");
        if *compressed != 0 {
            return Err(Status::new(Code::Unimplemented, "messages must not be compressed"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.max_bytes {
            let text = format!("grpc: received message larger than max ({length} vs. {})", self.max_bytes);
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        Ok(length)
    }

    /// Reads until `wanted` bytes are there; false if the stream ends before.
    async fn fill(&mut self, wanted: usize) -> Result<bool, Status> {
        if self.buffer.len() >= wanted {
            return Ok(true);
        }
        if self.buffer.is_empty() {
            let Some(chunk) = self.chunk().await? else { return Ok(false) };
            self.buffer = chunk;
            if self.buffer.len() >= wanted {
                return Ok(true);
            }
        }
        let mut joined = BytesMut::with_capacity(wanted);
        joined.extend_from_slice(&self.buffer);
        while joined.len() < wanted {
            let Some(chunk) = self.chunk().await? else {
                let _incomplete = joined;
                return Err(Status::malformed("it ends in the middle of a message"));
            };
            joined.extend_from_slice(&chunk);
        }
        self.buffer = joined.freeze();
        Ok(true)
    }

    /// The next DATA frame that isn't empty.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(chunk) = self.body.data().await {
            let chunk = chunk.map_err(|error| Status::cancelled(&error))?;
            // Read: the sender may send as much again. Fails only if the stream is gone, as `data` then says.
            let _gone = self.body.flow_control().release_capacity(chunk.len());
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}

/// A message with its prefix, ready to be sent.
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("no message of ours has 4 GiB"));
    message.encode_raw(&mut out);
    out.freeze()
}
