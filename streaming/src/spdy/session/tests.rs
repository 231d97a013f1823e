//! What both sides say, in bytes and to each other.

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

/// All that the client hears of these bytes.
fn heard(client: &mut Session, bytes: &[u8]) -> Vec<Event> {
    let (mut input, mut out) = (BytesMut::from(bytes), Vec::new());
    std::iter::from_fn(|| client.receive(&mut input, &mut out).expect("SPDY")).collect()
}

#[test]
fn our_two_sides_understand_each_other() {
    let (mut client, mut server) = (Session::client(), Session::default());
    let mut wire = Vec::new();
    let error = client.open(&[("streamtype", "error")], &mut wire);
    let data = client.open(&[("streamtype", "data"), ("port", "80")], &mut wire);
    client.finish(error, &mut wire);
    client.send(data, b"question", &mut wire);
    client.finish(data, &mut wire);
    client.send(data, b"too late", &mut wire);
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
        heard(&mut client, &answers),
        [
            Event::Data { id: data, bytes: Bytes::from_static(b"answer") },
            Event::Finished(data),
            Event::Finished(error),
            Event::GoAway
        ]
    );
}

#[test]
fn what_comes_for_a_stream_that_is_gone_is_left_out() {
    let mut client = Session::client();
    let mut wire = Vec::new();
    frame::data(StreamId(1), b"early", false, &mut wire);
    assert_eq!(heard(&mut client, &wire), []);
    let id = client.open(&[], &mut wire);
    wire.clear();
    frame::rst_stream(id, frame::Reset::Cancel, &mut wire);
    frame::data(id, b"late", true, &mut wire);
    assert_eq!(heard(&mut client, &wire), [Event::Reset(id)]);
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
