//! A connection's streams: which are open on which side. A client opens them, a server accepts them; for all else
//! both sides are alike.
//!
//! Always holds: nothing is said on a stream after its end was; a stream is forgotten once both sides have
//! ended it, or one has given it up.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::Malformed;
use crate::spdy::frame::{self, Decoder, Frame, Reset};
use crate::spdy::header::{Headers, Packer, Unpacker};

/// How many streams may be open at once; further ones are refused. A forwarded connection needs two.
const STREAMS: usize = 512;
/// The most bytes in one data frame.
const LARGEST: usize = 1 << 20;

/// A stream of one connection. The client's have odd numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// What happens to streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client has opened one; it was accepted. Only a server hears of this.
    Opened {
        /// Which.
        id: StreamId,
        /// What it said about it.
        headers: Headers,
    },
    /// The other side has sent data on one.
    Data {
        /// Which.
        id: StreamId,
        /// Never empty.
        bytes: Bytes,
    },
    /// The other side will send no more on one.
    Finished(StreamId),
    /// The other side has given one up, for both.
    Reset(StreamId),
    /// The other side ends the connection.
    GoAway,
}

/// Which sides may still send.
#[derive(Clone, Copy, Debug)]
struct Open {
    theirs: bool,
    ours: bool,
}

/// Who of the two we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Side {
    #[default]
    Server,
    Client,
}

impl Side {
    /// Whether the other side numbers its pings so. One of our own numbers would be the answer to a ping of ours,
    /// and we ask for nothing.
    fn is_theirs(self, number: u32) -> bool {
        number.is_multiple_of(2) == (self == Self::Client)
    }
}

/// One side of a connection; by default the server's.
#[derive(Debug, Default)]
pub struct Session {
    side: Side,
    decoder: Decoder,
    unpacker: Unpacker,
    packer: Packer,
    streams: BTreeMap<StreamId, Open>,
    last: StreamId,
    /// What the last frame said besides the event that was told.
    pending: Option<Event>,
}

impl Session {
    /// The client's side.
    pub fn client() -> Self {
        Self { side: Side::Client, ..Self::default() }
    }

    /// Opens a stream and says what it is for. Only a client does.
    pub fn open(&mut self, headers: &[(&str, &str)], out: &mut Vec<u8>) -> StreamId {
        assert_eq!(self.side, Side::Client, "streams are opened by clients");
        let id = StreamId(if self.last.0 == 0 { 1 } else { self.last.0 + 2 });
        self.last = id;
        self.streams.insert(id, Open { theirs: true, ours: true });
        frame::syn_stream(id, &self.packer.pack(headers), out);
        id
    }

    /// Takes the next event out of what was received, and appends what must be answered. `None` if more is
    /// needed.
    ///
    /// # Errors
    /// If the other side doesn't speak SPDY/3.
    pub fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>, Malformed> {
        loop {
            if let Some(event) = self.pending.take() {
                return Ok(Some(event));
            }
            let Some(frame) = self.decoder.take(input)? else { return Ok(None) };
            if let Some(event) = self.step(frame, out)? {
                return Ok(Some(event));
            }
        }
    }

    fn step(&mut self, frame: Frame, out: &mut Vec<u8>) -> Result<Option<Event>, Malformed> {
        Ok(match frame {
            Frame::SynStream { .. } if self.side == Side::Client => {
                return Err(Malformed("a server opens a stream"));
            }
            Frame::SynStream { id, fin, block } => {
                let headers = self.unpacker.unpack(&block)?;
                self.accept(id, headers, fin, out)?
            }
            Frame::Headers { id, fin, block } => {
                // What a server says about a stream is of no use to its client: it stays packed.
                if self.side == Side::Server {
                    self.unpacker.unpack(&block)?;
                }
                if fin { self.finished(id) } else { None }
            }
            Frame::Data { id, bytes, fin } => self.data(id, bytes, fin),
            Frame::RstStream(id) => self.streams.remove(&id).map(|_| Event::Reset(id)),
            Frame::Ping(number) => {
                if self.side.is_theirs(number) {
                    frame::ping(number, out);
                }
                None
            }
            Frame::GoAway => Some(Event::GoAway),
            Frame::Other => None,
        })
    }

    fn accept(
        &mut self,
        id: StreamId,
        headers: Headers,
        fin: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Malformed> {
        if id.0.is_multiple_of(2) || id <= self.last {
            return Err(Malformed("a stream's number is even, or lower than the one before"));
        }
        self.last = id;
        if self.streams.len() >= STREAMS {
            frame::rst_stream(id, Reset::Refused, out);
            return Ok(None);
        }
        self.streams.insert(id, Open { theirs: true, ours: true });
        frame::syn_reply(id, &self.packer.empty(), out);
        self.pending = if fin { self.finished(id) } else { None };
        Ok(Some(Event::Opened { id, headers }))
    }

    /// What comes for a stream that is gone was under way when it went.
    fn data(&mut self, id: StreamId, bytes: Bytes, fin: bool) -> Option<Event> {
        if !self.streams.get(&id).is_some_and(|open| open.theirs) {
            return None;
        }
        let finished = if fin { self.finished(id) } else { None };
        if bytes.is_empty() {
            return finished;
        }
        self.pending = finished;
        Some(Event::Data { id, bytes })
    }

    fn finished(&mut self, id: StreamId) -> Option<Event> {
        let open = self.streams.get_mut(&id)?;
        if !std::mem::replace(&mut open.theirs, false) {
            return None;
        }
        self.forget_if_over(id);
        Some(Event::Finished(id))
    }

    fn forget_if_over(&mut self, id: StreamId) {
        self.streams.retain(|known, open| *known != id || open.theirs || open.ours);
    }

    fn may_send(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|open| open.ours)
    }

    /// Sends on a stream. On one that is gone, nothing happens.
    pub fn send(&self, id: StreamId, bytes: &[u8], out: &mut Vec<u8>) {
        if self.may_send(id) {
            bytes.chunks(LARGEST).for_each(|piece| frame::data(id, piece, false, out));
        }
    }

    /// Ends our side of a stream.
    pub fn finish(&mut self, id: StreamId, out: &mut Vec<u8>) {
        if !self.may_send(id) {
            return;
        }
        frame::data(id, &[], true, out);
        if let Some(open) = self.streams.get_mut(&id) {
            open.ours = false;
        }
        self.forget_if_over(id);
    }

    /// Gives a stream up, for both sides.
    pub fn reset(&mut self, id: StreamId, out: &mut Vec<u8>) {
        if self.streams.remove(&id).is_some() {
            frame::rst_stream(id, Reset::Cancel, out);
        }
    }

    /// Ends the connection, in order.
    pub fn go_away(&self, out: &mut Vec<u8>) {
        frame::go_away(self.last, out);
    }
}

#[cfg(test)]
pub(crate) mod tests;
