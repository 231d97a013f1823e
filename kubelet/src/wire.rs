//! One connection and the protocol on it: whoever sends takes turns, one reads, and silence is measured.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use streaming::{Malformed, port_forward, remote_command, spdy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

/// One read from the connection, in bytes.
const READ_SIZE: usize = 32 << 10;
/// How long the other side has to hear the end before its connection is closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// A protocol's receiving side.
pub trait Codec: Send {
    /// What the other side says.
    type Event: Send;
    /// Takes the next event out of what was received.
    fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Self::Event>, Malformed>;
}

impl Codec for remote_command::Codec {
    type Event = remote_command::Event;
    fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Self::Event>, Malformed> {
        self.receive(input, out)
    }
}

impl Codec for port_forward::Codec {
    type Event = port_forward::Event;
    fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Self::Event>, Malformed> {
        self.receive(input, out)
    }
}

impl Codec for spdy::Session {
    type Event = spdy::Event;
    fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Self::Event>, Malformed> {
        self.receive(input, out)
    }
}

/// The sending side, shared. Whoever sends waits until the client has taken it: that is what holds a process
/// back that says more than its client can hear.
pub struct Wire<C, S> {
    codec: Mutex<C>,
    writer: tokio::sync::Mutex<Writer<S>>,
    last: Mutex<Instant>,
}

/// What was encoded goes out whole, even if the one who began to send it is dropped: the next goes on.
struct Writer<S> {
    half: WriteHalf<S>,
    pending: Vec<u8>,
    /// How much of it has gone.
    sent: usize,
}

impl<S: AsyncWrite> Writer<S> {
    async fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.pending.len() {
            match self.half.write(&self.pending[self.sent..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => self.sent += written,
            }
        }
        self.pending.clear();
        self.sent = 0;
        self.half.flush().await
    }
}

/// The receiving side, of one owner.
pub struct Incoming<S> {
    reader: ReadHalf<S>,
    input: BytesMut,
}

/// Both sides.
pub fn open<C: Codec, S: AsyncRead + AsyncWrite>(codec: C, stream: S) -> (Wire<C, S>, Incoming<S>) {
    let (reader, writer) = tokio::io::split(stream);
    let writer = Writer { half: writer, pending: Vec::new(), sent: 0 };
    let (codec, writer) = (Mutex::new(codec), tokio::sync::Mutex::new(writer));
    let wire = Wire { codec, writer, last: Mutex::new(Instant::now()) };
    (wire, Incoming { reader, input: BytesMut::new() })
}

impl<C: Codec, S: AsyncRead + AsyncWrite> Wire<C, S> {
    /// Looks at the protocol's state, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut C) -> T) -> T {
        look(&mut self.codec.lock())
    }

    /// Sends what `say` appends.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&self, say: impl FnOnce(&mut C, &mut Vec<u8>)) -> io::Result<()> {
        // The turn is taken before anything is encoded, so that it goes out in the order in which it was.
        let mut writer = self.writer.lock().await;
        say(&mut self.codec.lock(), &mut writer.pending);
        self.touch();
        writer.flush().await
    }

    fn touch(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Returns once nothing has been said for so long.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let end = *self.last.lock() + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// Says that we end, and waits, not for ever, until the client has heard it.
    pub async fn farewell(&self, incoming: &mut Incoming<S>, say: impl FnOnce(&mut C, &mut Vec<u8>)) {
        let heard = async {
            self.send(say).await?;
            self.writer.lock().await.half.shutdown().await?;
            while incoming.read().await? {
                incoming.input.clear();
            }
            io::Result::Ok(())
        };
        // Who is gone has nothing to hear.
        let _ = tokio::time::timeout(FAREWELL, heard).await;
    }
}

impl<S: AsyncRead + AsyncWrite> Incoming<S> {
    /// What the client says next; `None` once it is gone, or doesn't speak the protocol.
    pub async fn next<C: Codec>(&mut self, wire: &Wire<C, S>) -> Option<C::Event> {
        loop {
            if let Some(event) = self.take(wire).await? {
                return Some(event);
            }
            self.read_on(wire).await?;
        }
    }

    /// As [`Incoming::next`], but returns after each read: what was read may have changed the protocol's state
    /// without being an event.
    pub async fn next_or_state<C: Codec>(&mut self, wire: &Wire<C, S>) -> Option<Option<C::Event>> {
        self.read_on(wire).await?;
        self.take(wire).await
    }

    /// What the client has said already. The outer `None`: it is cut off.
    async fn take<C: Codec>(&mut self, wire: &Wire<C, S>) -> Option<Option<C::Event>> {
        let mut out = Vec::new();
        let received = wire.with(|codec| codec.receive(&mut self.input, &mut out));
        if !out.is_empty() {
            wire.send(|_, answers| answers.append(&mut out)).await.ok()?;
        }
        received.inspect_err(|error| tracing::debug!(%error, "a client of a stream is cut off")).ok()
    }

    async fn read_on<C: Codec>(&mut self, wire: &Wire<C, S>) -> Option<()> {
        let more = self.read().await.unwrap_or(false);
        wire.touch();
        more.then_some(())
    }

    /// Reads on; false at the end.
    async fn read(&mut self) -> io::Result<bool> {
        self.input.reserve(READ_SIZE);
        Ok(self.reader.read_buf(&mut self.input).await? > 0)
    }
}
