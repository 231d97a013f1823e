//! A connection's streams: which are open on which side.
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
pub const LARGEST: usize = 1 << 20;

/// A stream of one connection. The client's have odd numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// What happens to streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client has opened one; it was accepted.
    Opened {
        /// Which.
        id: StreamId,
        /// What it said about it.
        headers: Headers,
    },
    /// The client has sent data on one.
    Data {
        /// Which.
        id: StreamId,
        /// Never empty.
        bytes: Bytes,
    },
    /// The client will send no more on one.
    Finished(StreamId),
    /// The client has given one up, for both sides.
    Reset(StreamId),
    /// The client ends the connection.
    GoAway,
}

/// Which sides may still send.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// The other side.
    pub theirs: bool,
    /// Ours.
    pub ours: bool,
}

/// The server's side of a connection.
#[derive(Debug, Default)]
pub struct Session {
    decoder: Decoder,
    unpacker: Unpacker,
    packer: Packer,
    streams: BTreeMap<StreamId, Open>,
    last: StreamId,
    /// What the last frame said besides the event that was told.
    pending: Option<Event>,
}

impl Session {
    /// Takes the next event out of what was received, and appends what must be answered. `None` if more is
    /// needed.
    ///
    /// # Errors
    /// If the client doesn't speak SPDY/3.
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
            Frame::SynStream { id, fin, block } => {
                let headers = self.unpacker.unpack(&block)?;
                self.open(id, headers, fin, out)?
            }
            Frame::Headers { id, fin, block } => {
                self.unpacker.unpack(&block)?;
                if fin { self.finished(id) } else { None }
            }
            Frame::Data { id, bytes, fin } => self.data(id, bytes, fin),
            Frame::RstStream(id) => self.streams.remove(&id).map(|_| Event::Reset(id)),
            Frame::Ping(number) => {
                // An even number would be the answer to one of ours, and we ask for nothing.
                if number % 2 == 1 {
                    frame::ping(number, out);
                }
                None
            }
            Frame::GoAway => Some(Event::GoAway),
            Frame::Other => None,
        })
    }

    fn open(
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
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spdy::header::tests::Client as HeaderPacker;

    /// A client's side, as bytes.
    #[derive(Default)]
    pub(crate) struct Client {
        packer: HeaderPacker,
        pub(crate) wire: Vec<u8>,
    }

    impl Client {
        fn control(&mut self, kind: u16, flags: u8, body: &[u8]) {
            self.wire.extend_from_slice(&[0x80, 3]);
            self.wire.extend_from_slice(&kind.to_be_bytes());
            self.wire.push(flags);
            self.wire.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
            self.wire.extend_from_slice(body);
        }

        pub(crate) fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
            let block = self.packer.pack(headers);
            self.control(1, 0, &[&id.to_be_bytes()[..], &[0; 6], &block].concat());
        }

        pub(crate) fn data(&mut self, id: u32, bytes: &[u8], fin: bool) {
            frame::data(StreamId(id), bytes, fin, &mut self.wire);
        }

        pub(crate) fn reset(&mut self, id: u32) {
            self.control(3, 0, &[id.to_be_bytes(), 5_u32.to_be_bytes()].concat());
        }

        pub(crate) fn ping(&mut self, number: u32) {
            self.control(6, 0, &number.to_be_bytes());
        }
    }

    /// All events of these bytes, fed in pieces, in short; and what is answered.
    fn events(wire: &[u8], piece: usize) -> (Vec<String>, Vec<u8>) {
        let (mut session, mut input, mut out) = (Session::default(), BytesMut::new(), Vec::new());
        let (mut events, mut data) = (Vec::new(), Vec::new());
        for piece in wire.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(event) = session.receive(&mut input, &mut out).expect("well formed") {
                match event {
                    Event::Data { bytes, .. } => data.extend_from_slice(&bytes),
                    Event::Opened { id, headers } => {
                        events.push(format!("open {} {}", id.0, headers.get("streamtype").unwrap_or("-")));
                    }
                    other => events.push(format!("{other:?}")),
                }
            }
        }
        events.push(String::from_utf8(data).expect("text"));
        (events, out)
    }

    #[test]
    fn streams_open_carry_data_and_end() {
        let mut client = Client::default();
        client.open(1, &[("streamtype", "error")]);
        client.open(3, &[("streamtype", "data"), ("port", "80")]);
        client.ping(7);
        client.ping(8);
        client.data(3, b"hello, ", false);
        client.data(3, b"world", true);
        client.data(3, b"lost", false);
        client.control(9, 0, &[0; 8]);
        client.reset(1);
        client.reset(1);
        client.control(7, 0, &[0; 8]);
        for piece in [1, 3, 1000] {
            let (events, answers) = events(&client.wire, piece);
            let want = [
                "open 1 error",
                "open 3 data",
                "Finished(StreamId(3))",
                "Reset(StreamId(1))",
                "GoAway",
                "hello, world",
            ];
            assert_eq!(events, want);
            let (mut packer, mut want) = (Packer::default(), Vec::new());
            [1, 3].iter().for_each(|id| frame::syn_reply(StreamId(*id), &packer.empty(), &mut want));
            frame::ping(7, &mut want);
            assert_eq!(answers, want);
        }
    }

    #[test]
    fn nothing_is_sent_on_what_has_ended() {
        let mut client = Client::default();
        client.open(1, &[]);
        let (mut session, mut out) = (Session::default(), Vec::new());
        session.receive(&mut BytesMut::from(&client.wire[..]), &mut out).expect("opened");
        out.clear();
        session.send(StreamId(1), b"a", &mut out);
        session.finish(StreamId(1), &mut out);
        assert_eq!(out, b"\0\0\0\x01\0\0\0\x01a\0\0\0\x01\x01\0\0\0");
        out.clear();
        session.send(StreamId(1), b"b", &mut out);
        session.finish(StreamId(1), &mut out);
        session.send(StreamId(9), b"b", &mut out);
        assert_eq!(out, b"");
        session.reset(StreamId(1), &mut out);
        assert_eq!(out, b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x01\0\0\0\x05");
    }

    #[test]
    fn too_many_streams_and_false_numbers_are_refused() {
        let mut client = Client::default();
        (0..=STREAMS as u32).for_each(|n| client.open(2 * n + 1, &[]));
        let (events, answers) = events(&client.wire, usize::MAX);
        assert_eq!(events.len(), STREAMS + 1, "each opened, and no data");
        let mut refusal = Vec::new();
        frame::rst_stream(StreamId(2 * STREAMS as u32 + 1), Reset::Refused, &mut refusal);
        assert!(answers.ends_with(&refusal));
        for ids in [[2, 3], [3, 3], [3, 1]] {
            let mut client = Client::default();
            ids.iter().for_each(|id| client.open(*id, &[]));
            let (mut session, mut input) = (Session::default(), BytesMut::from(&client.wire[..]));
            let all: Result<Vec<_>, _> =
                std::iter::from_fn(|| session.receive(&mut input, &mut Vec::new()).transpose()).collect();
            assert!(all.is_err(), "{ids:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_events_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), good in 0..2_usize) {
            let mut client = Client::default();
            client.open(1, &[("streamtype", "data")]);
            let wire = [&client.wire[..good * client.wire.len()], &bytes].concat();
            let (mut session, mut input, mut out) = (Session::default(), BytesMut::from(&wire[..]), Vec::new());
            while let Ok(Some(_)) = session.receive(&mut input, &mut out) {}
            prop_assert!(session.streams.len() <= STREAMS && out.len() <= 100 + wire.len());
        }

        #[test]
        fn frames_that_were_damaged_do_no_harm(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut client = Client::default();
            client.open(1, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]);
            client.data(1, b"hello", false);
            client.open(3, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
            client.reset(1);
            let at = at.index(client.wire.len());
            client.wire[at] = byte;
            let (mut session, mut input, mut out) = (Session::default(), BytesMut::from(&client.wire[..]), Vec::new());
            while let Ok(Some(_)) = session.receive(&mut input, &mut out) {}
        }
    }
}
