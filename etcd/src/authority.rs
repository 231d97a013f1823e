//! Takes the scheme off the `:authority` that etcdctl 3.4 sends.
//!
//! For `endpoint status`, `endpoint hashkv`, `defrag` and `move-leader` it dials each endpoint by itself and
//! names it as it was given: `http://127.0.0.1:2379` becomes the authority. That is none by RFC 3986, and our
//! HTTP/2 library resets the stream; Go's takes it, so a stock etcd answers. All of a connection's requests
//! have the same authority, and all but the first refer to it by its place in HPACK's table, so it is
//! enough to look at a connection's first HEADERS frame: what it puts into the table is what the later ones
//! mean. From there on bytes pass untouched.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Every HTTP/2 connection begins with so many bytes that aren't frames.
const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;
/// A HEADERS frame beyond this isn't looked at; it is the largest frame that we allow.
const MAX_FRAME: usize = 16 << 10;
/// `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// A connection whose first request may name its authority with a scheme.
pub struct Lenient<S> {
    inner: S,
    /// Read from `inner`, not yet looked at.
    raw: BytesMut,
    /// Looked at, not yet read by our reader.
    ready: BytesMut,
    look: Look,
}

/// How far the look at a connection's beginning is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// So many bytes pass before the next frame begins.
    Passing(usize),
    /// The first request has gone by.
    Done,
}

impl<S> Lenient<S> {
    /// A connection of which nothing has been read.
    pub fn new(inner: S) -> Self {
        Self { inner, raw: BytesMut::new(), ready: BytesMut::new(), look: Look::Passing(PREFACE) }
    }

    /// Moves what may pass from `raw` to `ready`.
    fn look(&mut self) {
        while let Look::Passing(left) = self.look {
            if left > 0 {
                let passing = left.min(self.raw.len());
                self.ready.put(self.raw.split_to(passing));
                self.look = Look::Passing(left - passing);
                if passing < left {
                    return;
                }
            }
            let Some(length) = frame_length(&self.raw) else { return };
            if self.raw[3] != HEADERS {
                self.look = Look::Passing(FRAME_HEADER + length);
            } else if length > MAX_FRAME {
                self.look = Look::Done;
            } else if self.raw.len() >= FRAME_HEADER + length {
                let frame = self.raw.split_to(FRAME_HEADER + length);
                let corrected = corrected(&frame);
                self.ready.put_slice(corrected.as_deref().unwrap_or(&frame));
                self.look = Look::Done;
            } else {
                return;
            }
        }
        self.ready.put(self.raw.split());
    }
}

fn frame_length(raw: &[u8]) -> Option<usize> {
    let header: &[u8; FRAME_HEADER] = raw.first_chunk()?;
    Some(usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]))
}

/// The HEADERS frame with an authority that is one; `None` if it needs no correction or isn't understood.
fn corrected(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    if flags & FLAG_PADDED != 0 {
        return None;
    }
    let start = FRAME_HEADER + if flags & FLAG_PRIORITY != 0 { 5 } else { 0 };
    let mut block = Block { bytes: frame, at: start };
    let (from, to) = block.authority()?;
    let name = Block { bytes: frame, at: from }.text()?;
    let bare = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://"))?;
    // A literal without Huffman's code whose length fits into one byte.
    let length = u8::try_from(bare.len()).ok().filter(|length| *length < 0x7f)?;
    let mut out = frame[..from].to_vec();
    out.push(length);
    out.extend_from_slice(bare.as_bytes());
    out.extend_from_slice(&frame[to..]);
    let payload = u32::try_from(out.len() - FRAME_HEADER).ok()?;
    out[..3].copy_from_slice(&payload.to_be_bytes()[1..]);
    Some(out)
}

/// A block of headers, coded as RFC 7541 says.
struct Block<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Block<'_> {
    /// Where the value of `:authority` is, if it is spelled out.
    fn authority(&mut self) -> Option<(usize, usize)> {
        while let Some(&first) = self.bytes.get(self.at) {
            let prefix = match first {
                0x80.. => 7,
                0x40.. => 6,
                0x20.. => 5,
                _ => 4,
            };
            let index = self.number(prefix)?;
            if prefix == 7 || prefix == 5 {
                continue;
            }
            if index == 0 {
                self.skip_text()?;
            }
            let from = self.at;
            self.skip_text()?;
            if index == AUTHORITY {
                return Some((from, self.at));
            }
        }
        None
    }

    /// An integer with a prefix of so many bits (section 5.1).
    fn number(&mut self, prefix: u8) -> Option<usize> {
        let mask = (1usize << prefix) - 1;
        let first = usize::from(self.next()?) & mask;
        if first < mask {
            return Some(first);
        }
        let mut value = first;
        for shift in [0, 7, 14] {
            let byte = usize::from(self.next()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip_text(&mut self) -> Option<()> {
        let length = self.number(7)?;
        self.at += length;
        (self.at <= self.bytes.len()).then_some(())
    }

    /// A string literal (section 5.2).
    fn text(&mut self) -> Option<String> {
        let coded = *self.bytes.get(self.at)? & 0x80 != 0;
        let length = self.number(7)?;
        let bytes = self.bytes.get(self.at..self.at + length)?;
        if coded { huffman(bytes) } else { String::from_utf8(bytes.to_vec()).ok() }
    }
}

/// Huffman's code of RFC 7541 (appendix B) for what URLs are made of: by length in bits, the first code and
/// the characters that have it and the following ones.
const CODES: [(u32, u32, &[u8]); 5] = [
    (5, 0x0, b"012aceiost"),
    (6, 0x14, b" %-./3456789=A_bdfghlmnpru"),
    (7, 0x5c, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 0xf8, b"&*,;XZ"),
    (13, 0x1ffb, b"[]"),
];
/// No code that we know is longer.
const LONGEST: u32 = 13;

/// Decodes; `None` if there is anything that a URL hasn't.
fn huffman(bytes: &[u8]) -> Option<String> {
    let (mut text, mut code, mut length) = (String::new(), 0, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        if let Some(character) = character(code, length) {
            text.push(char::from(character));
            (code, length) = (0, 0);
        } else if length > LONGEST {
            return None;
        }
    }
    // What is left over is padding: less than a byte of ones.
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

fn character(code: u32, length: u32) -> Option<u8> {
    let (_, first, characters) = CODES.iter().find(|(bits, ..)| *bits == length)?;
    characters.get(usize::try_from(code.checked_sub(*first)?).ok()?).copied()
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ready.is_empty() {
            if self.look == Look::Done {
                return Pin::new(&mut self.inner).poll_read(context, buffer);
            }
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                // The end: whatever came of an unfinished frame is for the reader to judge.
                self.look = Look::Done;
            }
            self.raw.put_slice(read.filled());
            self.look();
            if self.look == Look::Done && self.ready.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let passed = self.ready.len().min(buffer.remaining());
        buffer.put_slice(&self.ready[..passed]);
        self.ready.advance(passed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    /// A frame with these header fields after the coded `:method POST`, `:scheme http`.
    fn frame(fields: &[u8]) -> Vec<u8> {
        let payload = [&[0x83, 0x86], fields].concat();
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, HEADERS, 0x04, 0, 0, 0, 1], payload.as_slice()].concat()
    }

    fn field(index: u8, value: &[u8]) -> Vec<u8> {
        [&[0x40 | index, u8::try_from(value.len()).expect("short")], value].concat()
    }

    /// `:path`, which a client sends first.
    fn path() -> Vec<u8> {
        field(4, b"/etcdserverpb.Maintenance/Status")
    }

    #[test]
    fn the_code_is_that_of_the_standard() {
        // RFC 7541, C.4.1.
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(huffman(&coded).as_deref(), Some("www.example.com"));
        assert_eq!(huffman(&[0xff, 0xff]), None, "too much padding");
    }

    #[test]
    fn the_scheme_is_taken_off_and_nothing_else_changes() {
        let rest = field(31, b"application/grpc");
        let sent = frame(&[path(), field(1, b"http://127.0.0.1:2379"), rest.clone()].concat());
        let wanted = frame(&[path(), field(1, b"127.0.0.1:2379"), rest.clone()].concat());
        assert_eq!(corrected(&sent), Some(wanted.clone()));
        assert_eq!(corrected(&wanted), None, "what is right stays");
        assert_eq!(corrected(&frame(&path())), None, "no authority");
        let cut = &sent[..sent.len() - rest.len() - 5];
        assert_eq!(corrected(cut), None, "a value that ends beyond the frame");
    }

    #[tokio::test]
    async fn frames_before_the_request_pass_at_once_and_those_after_untouched() {
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        let request = frame(&[path(), field(1, b"https://h:1")].concat());
        let after = request.clone();
        let (mut client, server) = tokio::io::duplex(1 << 12);
        let mut server = Lenient::new(server);
        let mut seen = vec![0; preface.len()];
        tokio::io::AsyncWriteExt::write_all(&mut client, &preface).await.expect("written");
        server.read_exact(&mut seen).await.expect("passed before there is a request");
        assert_eq!(seen, preface);
        for byte in request.iter().chain(&after) {
            tokio::io::AsyncWriteExt::write_all(&mut client, &[*byte]).await.expect("written");
        }
        drop(client);
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).await.expect("read");
        let wanted = frame(&[path(), field(1, b"h:1")].concat());
        assert_eq!(seen, [wanted, after].concat(), "only the first request is looked at");
    }
}
