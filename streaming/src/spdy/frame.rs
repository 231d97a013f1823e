//! Frames: those of the other side come in, ours go out.

use bytes::{Buf, Bytes, BytesMut};

use crate::Malformed;
use crate::spdy::session::StreamId;

/// The version in every control frame; 3.1 differs only in flow control.
const VERSION: u16 = 3;
/// The longest control frame, in bytes; a stream's headers here are a hundred.
const LONGEST_CONTROL: usize = 16 << 10;
/// The head of every frame.
const HEAD: usize = 8;

/// The last frame of the sender on its stream.
const FIN: u8 = 1;

/// What a frame of the other side says. Header blocks are still packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream { id: StreamId, fin: bool, block: Bytes },
    /// More headers for a stream, or those of the answer to one: nothing here asks for them, but they must be
    /// unpacked, because all blocks are one compressed stream.
    Headers { id: StreamId, fin: bool, block: Bytes },
    /// A stream is given up.
    RstStream(StreamId),
    /// Wants the same number back.
    Ping(u32),
    /// Ends after the open streams.
    GoAway,
    /// Settings, windows, and what a later version may add: of no consequence.
    Other,
    /// A piece of a stream's data.
    Data { id: StreamId, bytes: Bytes, fin: bool },
}

/// The data frame that is being received.
#[derive(Clone, Copy, Debug)]
struct Data {
    id: StreamId,
    fin: bool,
    left: usize,
}

/// Takes the frames of the other side apart.
#[derive(Debug, Default)]
pub struct Decoder {
    data: Option<Data>,
}

impl Decoder {
    /// Takes the next frame, or the next piece of a data frame; `None` if more is needed.
    ///
    /// # Errors
    /// If it can't become one.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        if let Some(data) = self.data.take() {
            return Ok(self.piece(data, input));
        }
        let Some(head) = input.first_chunk::<HEAD>() else { return Ok(None) };
        let flags = head[4];
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if word >> 31 == 1 {
            return control(word, flags, length, input);
        }
        input.advance(HEAD);
        let data = Data { id: StreamId(word), fin: flags & FIN != 0, left: length };
        if length == 0 {
            return Ok(Some(Frame::Data { id: data.id, bytes: Bytes::new(), fin: data.fin }));
        }
        Ok(self.piece(data, input))
    }

    /// What has come of a data frame.
    fn piece(&mut self, mut data: Data, input: &mut BytesMut) -> Option<Frame> {
        let length = data.left.min(input.len());
        data.left -= length;
        self.data = Some(data).filter(|data| data.left > 0);
        let bytes = input.split_to(length).freeze();
        (length > 0).then(|| Frame::Data { id: data.id, bytes, fin: data.fin && data.left == 0 })
    }
}

fn control(word: u32, flags: u8, length: usize, input: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
    let [version, kind] = [(word >> 16) as u16 & 0x7fff, word as u16];
    if version != VERSION {
        return Err(Malformed("a frame of another version of SPDY"));
    }
    if length > LONGEST_CONTROL {
        return Err(Malformed("a control frame is too long"));
    }
    if input.len() < HEAD + length {
        return Ok(None);
    }
    input.advance(HEAD);
    let mut body = input.split_to(length).freeze();
    let fin = flags & FIN != 0;
    Ok(Some(match kind {
        1 => {
            let id = stream(&mut body)?;
            // The stream it belongs to, its priority and its credentials.
            number(&mut body)?;
            if body.len() < 2 {
                return Err(Malformed("a control frame is too short"));
            }
            body.advance(2);
            Frame::SynStream { id, fin, block: body }
        }
        2 | 8 => Frame::Headers { id: stream(&mut body)?, fin, block: body },
        3 => Frame::RstStream(stream(&mut body)?),
        6 => Frame::Ping(number(&mut body)?),
        7 => Frame::GoAway,
        _ => Frame::Other,
    }))
}

fn number(body: &mut Bytes) -> Result<u32, Malformed> {
    body.try_get_u32().map_err(|_| Malformed("a control frame is too short"))
}

fn stream(body: &mut Bytes) -> Result<StreamId, Malformed> {
    Ok(StreamId(number(body)? & 0x7fff_ffff))
}

/// Why a stream is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// There are too many.
    Refused = 3,
    /// Nobody needs it any more.
    Cancel = 5,
}

/// Opens a stream that belongs to no other, of the highest priority.
pub fn syn_stream(id: StreamId, block: &[u8], out: &mut Vec<u8>) {
    control_out(1, &[&id.0.to_be_bytes(), &[0; 6], block], out);
}

/// Accepts a stream.
pub fn syn_reply(id: StreamId, block: &[u8], out: &mut Vec<u8>) {
    control_out(2, &[&id.0.to_be_bytes(), block], out);
}

/// Gives a stream up.
pub fn rst_stream(id: StreamId, why: Reset, out: &mut Vec<u8>) {
    control_out(3, &[&id.0.to_be_bytes(), &(why as u32).to_be_bytes()], out);
}

/// Answers a ping.
pub fn ping(number: u32, out: &mut Vec<u8>) {
    control_out(6, &[&number.to_be_bytes()], out);
}

/// Ends the connection, in order.
pub fn go_away(last: StreamId, out: &mut Vec<u8>) {
    control_out(7, &[&last.0.to_be_bytes(), &0_u32.to_be_bytes()], out);
}

/// Sends data on a stream, at most 2²⁴ − 1 bytes.
pub fn data(id: StreamId, bytes: &[u8], fin: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.0.to_be_bytes());
    out.push(if fin { FIN } else { 0 });
    length_out(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn control_out(kind: u16, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.push(0);
    length_out(parts.iter().map(|part| part.len()).sum(), out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn length_out(length: usize, out: &mut Vec<u8>) {
    assert!(length < 1 << 24, "a frame's length has three bytes");
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
}
