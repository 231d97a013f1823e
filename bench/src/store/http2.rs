//! Just enough HTTP/2 to put load on a gRPC server: the generator shares the machine with what it
//! measures, so it must cost little.
//!
//! Requests are encoded with HPACK's static table only and response headers are not decoded: what counts is
//! the message, and a stream that ends without one has failed. Both flow-control windows are opened to
//! their maximum for what we receive; the server's window for what we send is respected.

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// The largest window, and the largest increment.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// What both sides may send before anybody has said anything.
const INITIAL_WINDOW: i64 = 65_535;
/// Received bytes after which the connection's window is opened again.
const REOPEN: u32 = 1 << 26;
/// The largest frame that every server must take.
const MAX_FRAME: usize = 16_384;
/// Room for one read.
const READ: usize = 256 << 10;

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const SETTING_INITIAL_WINDOW_SIZE: u16 = 4;

/// The encoded headers of a gRPC method.
#[derive(Clone, Debug)]
pub struct Head(Vec<u8>);

impl Head {
    /// Of the method at `path`, such as `/etcdserverpb.KV/Put`.
    pub fn new(path: &str) -> Self {
        let mut block = vec![0x83, 0x86]; // :method POST, :scheme http (RFC 7541, appendix A: 3 and 6)
        literal(&mut block, &[0x04], path); // :path
        literal(&mut block, &[0x01], "localhost"); // :authority
        literal(&mut block, &[0x0f, 31 - 15], "application/grpc"); // content-type
        block.extend_from_slice(b"\0\x02te");
        literal(&mut block, &[], "trailers");
        Head(block)
    }
}

/// A name, then a value that is neither Huffman-coded nor to be indexed.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    block.push(u8::try_from(value.len()).expect("our header values are short"));
    block.extend_from_slice(value.as_bytes());
}

/// What came from the server.
#[derive(Debug)]
pub enum Arrival {
    /// A piece of a stream's body.
    Data(u32, Bytes),
    /// The stream has ended.
    End(u32),
}

/// An open connection.
pub struct Http2 {
    socket: TcpStream,
    input: BytesMut,
    output: BytesMut,
    last_stream: u32,
    send_window: i64,
    received: u32,
    /// A stream whose last frame, already taken, also ended it.
    ended: Option<u32>,
}

impl Http2 {
    /// Connects and says hello.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        let mut connection = Http2 {
            socket,
            input: BytesMut::with_capacity(READ),
            output: BytesMut::with_capacity(MAX_FRAME),
            last_stream: 0,
            send_window: INITIAL_WINDOW,
            received: 0,
            ended: None,
        };
        connection.output.extend_from_slice(PREFACE);
        let mut settings = SETTING_INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend_from_slice(&MAX_WINDOW.to_be_bytes());
        connection.frame(kind::SETTINGS, 0, 0, &settings);
        connection.open_window(MAX_WINDOW - 65_535);
        connection.flush().await?;
        Ok(connection)
    }

    /// Begins a request.
    pub fn open(&mut self, head: &Head) -> u32 {
        // Clients have the odd streams.
        self.last_stream = if self.last_stream == 0 { 1 } else { self.last_stream + 2 };
        self.frame(kind::HEADERS, END_HEADERS, self.last_stream, &head.0);
        self.last_stream
    }

    /// Whether the server takes that many bytes of messages now.
    pub fn has_room(&self, message: usize) -> bool {
        self.send_window >= i64::try_from(message).expect("messages are small") + 5
    }

    /// Sends a gRPC message. The caller has asked [`Http2::has_room`].
    pub fn message(&mut self, stream: u32, message: &[u8], end: bool) {
        let size = message.len() + 5;
        assert!(size <= MAX_FRAME, "a message of the generator fits into one frame");
        self.send_window -= i64::try_from(size).expect("less than a frame");
        self.frame_header(size, kind::DATA, if end { END_STREAM } else { 0 }, stream);
        self.output.extend_from_slice(&[0]); // not compressed
        self.output
            .extend_from_slice(&u32::try_from(message.len()).expect("less than a frame").to_be_bytes());
        self.output.extend_from_slice(message);
    }

    /// Writes out what was asked since the last call.
    pub async fn flush(&mut self) -> Result<()> {
        self.socket.write_all(&self.output).await.context("send")?;
        self.output.clear();
        Ok(())
    }

    /// Waits for bytes. Nothing is lost if the future is dropped.
    pub async fn receive(&mut self) -> Result<()> {
        self.input.reserve(READ);
        if self.socket.read_buf(&mut self.input).await.context("receive")? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }

    /// The next thing among the received bytes.
    pub fn next(&mut self) -> Result<Option<Arrival>> {
        if let Some(stream) = self.ended.take() {
            return Ok(Some(Arrival::End(stream)));
        }
        while self.input.len() >= FRAME_HEADER {
            let length = usize::from(self.input[0]) << 16
                | usize::from(self.input[1]) << 8
                | usize::from(self.input[2]);
            if self.input.len() < FRAME_HEADER + length {
                break;
            }
            let mut header = self.input.split_to(FRAME_HEADER);
            header.advance(3);
            let (kind, flags, stream) = (header.get_u8(), header.get_u8(), header.get_u32());
            let payload = self.input.split_to(length).freeze();
            if let Some(arrival) = self.take(kind, flags, stream, payload)? {
                return Ok(Some(arrival));
            }
        }
        Ok(None)
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, mut payload: Bytes) -> Result<Option<Arrival>> {
        match kind {
            kind::DATA => {
                self.account(payload.len());
                if flags & PADDED != 0 {
                    let padding = usize::from(payload.get_u8());
                    payload.truncate(payload.len().saturating_sub(padding));
                }
                self.ended = (flags & END_STREAM != 0).then_some(stream);
                Ok(Some(Arrival::Data(stream, payload)))
            }
            kind::HEADERS => Ok((flags & END_STREAM != 0).then_some(Arrival::End(stream))),
            kind::RST_STREAM => bail!("the server reset a stream with code {}", payload.get_u32()),
            kind::GOAWAY => bail!("the server says goodbye: {:?}", payload.slice(8.min(payload.len())..)),
            kind::SETTINGS if flags & ACK == 0 => {
                self.frame(kind::SETTINGS, ACK, 0, &[]);
                Ok(None)
            }
            kind::PING if flags & ACK == 0 => {
                self.frame(kind::PING, ACK, 0, &payload);
                Ok(None)
            }
            kind::WINDOW_UPDATE if stream == 0 => {
                self.send_window += i64::from(payload.get_u32());
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn account(&mut self, length: usize) {
        self.received += u32::try_from(length).expect("less than a frame");
        if self.received >= REOPEN {
            let received = std::mem::take(&mut self.received);
            self.open_window(received);
        }
    }

    fn open_window(&mut self, increment: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frame_header(payload.len(), kind, flags, stream);
        self.output.extend_from_slice(payload);
    }

    fn frame_header(&mut self, length: usize, kind: u8, flags: u8, stream: u32) {
        let length = u32::try_from(length).expect("less than a frame").to_be_bytes();
        self.output.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
        self.output.extend_from_slice(&stream.to_be_bytes());
    }
}

/// Puts the pieces of a stream's body together to gRPC messages.
#[derive(Debug, Default)]
pub struct Messages(BytesMut);

impl Messages {
    /// Adds a piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next whole message.
    pub fn next(&mut self) -> Option<Bytes> {
        let length = self.0.get(1..5)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if self.0.len() < 5 + length {
            return None;
        }
        self.0.advance(5);
        Some(self.0.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let wire = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01d";
        for cut in 0..wire.len() {
            let mut messages = Messages::default();
            let mut whole = Vec::new();
            for piece in [&wire[..cut], &wire[cut..]] {
                messages.push(piece);
                whole.extend(std::iter::from_fn(|| messages.next()));
            }
            assert_eq!(whole, [&b"abc"[..], b"", b"d"], "cut at {cut}");
        }
    }
}
