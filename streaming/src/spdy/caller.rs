//! The client's side of a connection, as far as a container runtime's streaming server needs it.
//!
//! The other side's header blocks say nothing that is of use here, so they stay packed.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::Malformed;
use crate::spdy::StreamId;
use crate::spdy::frame::{self, Decoder, Frame};
use crate::spdy::header::Packer;
use crate::spdy::session::{LARGEST, Open};

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Data on a stream; never empty.
    Data(StreamId, Bytes),
    /// It will send no more on one, or has given it up.
    Finished(StreamId),
    /// All is over.
    GoAway,
}

/// The client's side of a connection.
#[derive(Debug, Default)]
pub struct Caller {
    decoder: Decoder,
    packer: Packer,
    streams: BTreeMap<StreamId, Open>,
    last: StreamId,
    /// What the last frame said besides what was told.
    pending: Option<Heard>,
}

impl Caller {
    /// Opens a stream and says what it is for.
    pub fn open(&mut self, headers: &[(&str, &str)], out: &mut Vec<u8>) -> StreamId {
        let id = StreamId(if self.last.0 == 0 { 1 } else { self.last.0 + 2 });
        self.last = id;
        self.streams.insert(id, Open { theirs: true, ours: true });
        frame::syn_stream(id, &self.packer.pack(headers), out);
        id
    }

    /// Takes what the server says next out of what was received, and appends what must be answered. `None` if
    /// more is needed.
    ///
    /// # Errors
    /// If the server doesn't speak SPDY/3.
    pub fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Heard>, Malformed> {
        loop {
            if let Some(heard) = self.pending.take() {
                return Ok(Some(heard));
            }
            let Some(frame) = self.decoder.take(input)? else { return Ok(None) };
            let heard = match frame {
                Frame::Data { id, bytes, fin } => self.data(id, bytes, fin),
                Frame::Headers { id, fin: true, .. } => self.finished(id),
                Frame::RstStream(id) => self.streams.remove(&id).map(|_| Heard::Finished(id)),
                Frame::GoAway => Some(Heard::GoAway),
                Frame::Ping(number) => {
                    // An odd number would be the answer to one of ours, and we ask for nothing.
                    if number % 2 == 0 {
                        frame::ping(number, out);
                    }
                    None
                }
                Frame::SynStream { .. } => return Err(Malformed("a server opens a stream")),
                Frame::Headers { .. } | Frame::Other => None,
            };
            if heard.is_some() {
                return Ok(heard);
            }
        }
    }

    fn data(&mut self, id: StreamId, bytes: Bytes, fin: bool) -> Option<Heard> {
        if !self.streams.get(&id).is_some_and(|open| open.theirs) {
            return None;
        }
        let finished = if fin { self.finished(id) } else { None };
        if bytes.is_empty() {
            return finished;
        }
        self.pending = finished;
        Some(Heard::Data(id, bytes))
    }

    fn finished(&mut self, id: StreamId) -> Option<Heard> {
        let open = self.streams.get_mut(&id)?;
        let news = std::mem::replace(&mut open.theirs, false);
        self.streams.retain(|_, open| open.theirs || open.ours);
        news.then_some(Heard::Finished(id))
    }

    /// Sends on a stream. On one that is over, nothing happens.
    pub fn send(&self, id: StreamId, bytes: &[u8], out: &mut Vec<u8>) {
        if self.streams.get(&id).is_some_and(|open| open.ours) {
            bytes.chunks(LARGEST).for_each(|piece| frame::data(id, piece, false, out));
        }
    }

    /// Ends our side of a stream.
    pub fn finish(&mut self, id: StreamId, out: &mut Vec<u8>) {
        let Some(open) = self.streams.get_mut(&id).filter(|open| open.ours) else { return };
        open.ours = false;
        frame::data(id, &[], true, out);
        self.streams.retain(|_, open| open.theirs || open.ours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::session::{Event, Session};

    /// All that the caller hears of these bytes.
    fn heard(caller: &mut Caller, bytes: &[u8]) -> Vec<Heard> {
        let (mut input, mut out) = (BytesMut::from(bytes), Vec::new());
        std::iter::from_fn(|| caller.receive(&mut input, &mut out).expect("SPDY")).collect()
    }

    #[test]
    fn our_two_sides_understand_each_other() {
        let (mut caller, mut server) = (Caller::default(), Session::default());
        let mut wire = Vec::new();
        let error = caller.open(&[("streamtype", "error")], &mut wire);
        let data = caller.open(&[("streamtype", "data"), ("port", "80")], &mut wire);
        caller.finish(error, &mut wire);
        caller.send(data, b"question", &mut wire);
        caller.finish(data, &mut wire);
        caller.send(data, b"too late", &mut wire);
        let (mut input, mut answers) = (BytesMut::from(&wire[..]), Vec::new());
        let mut told = Vec::new();
        while let Some(event) = server.receive(&mut input, &mut answers).expect("SPDY") {
            told.push(match event {
                Event::Opened { id, headers } => {
                    format!("{} {:?} {:?}", id.0, headers.get("streamtype"), headers.get("port"))
                }
                Event::Data { id, bytes } => format!("{} {bytes:?}", id.0),
                Event::Finished(id) => format!("{} finished", id.0),
                other => format!("{other:?}"),
            });
        }
        assert_eq!(
            told,
            [
                "1 Some(\"error\") None",
                "3 Some(\"data\") Some(\"80\")",
                "1 finished",
                "3 b\"question\"",
                "3 finished"
            ]
        );
        server.send(data, b"answer", &mut answers);
        server.finish(data, &mut answers);
        server.finish(error, &mut answers);
        server.go_away(&mut answers);
        assert_eq!(
            heard(&mut caller, &answers),
            [
                Heard::Data(data, Bytes::from_static(b"answer")),
                Heard::Finished(data),
                Heard::Finished(error),
                Heard::GoAway
            ]
        );
    }

    #[test]
    fn what_comes_for_a_stream_that_is_gone_is_left_out() {
        let mut caller = Caller::default();
        let mut wire = Vec::new();
        frame::data(StreamId(1), b"early", false, &mut wire);
        assert_eq!(heard(&mut caller, &wire), []);
        let id = caller.open(&[], &mut wire);
        wire.clear();
        frame::rst_stream(id, frame::Reset::Cancel, &mut wire);
        frame::data(id, b"late", true, &mut wire);
        assert_eq!(heard(&mut caller, &wire), [Heard::Finished(id)]);
    }
}
