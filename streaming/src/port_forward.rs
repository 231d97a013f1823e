//! Port-forward: connections to ports of a pod, many in one.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::Malformed;
use crate::spdy::{self, Headers, Session, StreamId};
use crate::websocket::{self, ChannelEvent, Channels, Subprotocol};

/// What is agreed upon over SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// What is agreed upon where SPDY goes through WebSocket.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The versions of the channels over WebSocket: upstream knows the fourth only.
pub const WEBSOCKET_VERSIONS: [u8; 1] = [4];
/// The most ports of one WebSocket: each has two channels, and a channel's number is a byte.
pub const MOST_PORTS: usize = 128;

/// One forwarded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(u32);

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new connection to this port.
    Connect(ConnectionId, u16),
    /// Bytes for it, never empty.
    Data(ConnectionId, Bytes),
    /// It sends no more there.
    Finished(ConnectionId),
    /// It has given the connection up.
    Dropped(ConnectionId),
    /// All is over.
    End,
}

/// One client's way of speaking.
#[derive(Debug)]
pub struct Codec(Transport);

#[derive(Debug)]
enum Transport {
    Channels { channels: Channels, ports: Vec<u16>, told: usize },
    Spdy(Pairs),
    Tunnel { frames: websocket::Decoder, inner: BytesMut, pairs: Pairs },
}

impl Codec {
    /// Over WebSocket, one connection to each port, with two channels: data and errors.
    pub fn websocket(protocol: Subprotocol, ports: Vec<u16>) -> Self {
        Self(Transport::Channels { channels: Channels::new(protocol), ports, told: 0 })
    }

    /// Over SPDY.
    pub fn spdy() -> Self {
        Self(Transport::Spdy(Pairs::default()))
    }

    /// Over SPDY whose bytes are cut into WebSocket's messages.
    pub fn tunnel() -> Self {
        let (frames, inner, pairs) = Default::default();
        Self(Transport::Tunnel { frames, inner, pairs })
    }

    /// Says first of all which channel is which port's.
    pub fn begun(&self, out: &mut Vec<u8>) {
        let Transport::Channels { channels, ports, .. } = &self.0 else { return };
        for (n, port) in ports.iter().enumerate() {
            let (data, errors) = channels_of(n);
            channels.send(data, &port.to_le_bytes(), out);
            channels.send(errors, &port.to_le_bytes(), out);
        }
    }

    /// Takes the next event out of what was received, and appends what must be answered. `None` if more is
    /// needed.
    ///
    /// # Errors
    /// If the client doesn't speak the protocol.
    pub fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>, Malformed> {
        match &mut self.0 {
            Transport::Channels { channels, ports, told } => {
                if let Some(port) = ports.get(*told) {
                    *told += 1;
                    return Ok(Some(Event::Connect(ConnectionId(*told as u32 - 1), *port)));
                }
                of_channels(channels, ports.len(), input, out)
            }
            Transport::Spdy(pairs) => pairs.receive(input, out),
            Transport::Tunnel { frames, inner, pairs } => {
                let ended = unwrap(frames, input, inner, out)?;
                let event = wrapped(out, |out| pairs.receive(inner, out))?;
                Ok(event.or(ended.then_some(Event::End)))
            }
        }
    }

    /// Sends bytes of a connection.
    pub fn send(&mut self, id: ConnectionId, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.0 {
            Transport::Channels { channels, .. } => channels.send(channels_of(id.0 as usize).0, bytes, out),
            Transport::Spdy(pairs) => pairs.session.send(StreamId(id.0), bytes, out),
            Transport::Tunnel { pairs, .. } => {
                wrapped(out, |out| pairs.session.send(StreamId(id.0), bytes, out));
            }
        }
    }

    /// Ends a connection; `error` says why, if it failed.
    pub fn finish(&mut self, id: ConnectionId, error: Option<&str>, out: &mut Vec<u8>) {
        match &mut self.0 {
            Transport::Channels { channels, .. } => {
                if let Some(error) = error {
                    channels.send(channels_of(id.0 as usize).1, error.as_bytes(), out);
                }
            }
            Transport::Spdy(pairs) => pairs.finish(StreamId(id.0), error, out),
            Transport::Tunnel { pairs, .. } => wrapped(out, |out| pairs.finish(StreamId(id.0), error, out)),
        }
    }

    /// Whether the whole conversation is over once all its connections are: a port's channels are for one.
    pub fn ends_with_connections(&self) -> bool {
        matches!(self.0, Transport::Channels { .. })
    }

    /// Ends the conversation, in order.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            Transport::Channels { .. } => websocket::close(out),
            Transport::Spdy(pairs) => pairs.session.go_away(out),
            Transport::Tunnel { pairs, .. } => {
                wrapped(out, |out| pairs.session.go_away(out));
                websocket::close(out);
            }
        }
    }
}

/// The channels for data and errors of the n-th port.
fn channels_of(n: usize) -> (u8, u8) {
    assert!(n < MOST_PORTS, "there are no more channels");
    (2 * n as u8, 2 * n as u8 + 1)
}

fn of_channels(
    channels: &mut Channels,
    ports: usize,
    input: &mut BytesMut,
    out: &mut Vec<u8>,
) -> Result<Option<Event>, Malformed> {
    while let Some(event) = channels.receive(input, out)? {
        match event {
            // Errors are ours to tell.
            ChannelEvent::Data(channel, bytes) if channel % 2 == 0 && usize::from(channel / 2) < ports => {
                return Ok(Some(Event::Data(ConnectionId(u32::from(channel / 2)), bytes)));
            }
            ChannelEvent::Data(..) | ChannelEvent::Closed(_) => {}
            ChannelEvent::End => return Ok(Some(Event::End)),
        }
    }
    Ok(None)
}

/// Takes the tunnelled bytes out of their messages; true if the client has ended the WebSocket.
fn unwrap(
    frames: &mut websocket::Decoder,
    input: &mut BytesMut,
    inner: &mut BytesMut,
    out: &mut Vec<u8>,
) -> Result<bool, Malformed> {
    while let Some(event) = frames.take(input)? {
        match event {
            websocket::Event::Data { bytes, .. } => inner.extend_from_slice(&bytes),
            websocket::Event::Ping(payload) => websocket::pong(&payload, out),
            websocket::Event::Pong => {}
            websocket::Event::Close => return Ok(true),
        }
    }
    Ok(false)
}

/// Puts what is said into a message.
fn wrapped<T>(out: &mut Vec<u8>, say: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut said = Vec::new();
    let result = say(&mut said);
    if !said.is_empty() {
        websocket::message(false, &[&said], out);
    }
    result
}

/// Connections over SPDY: each is a stream for data and one for errors, which name the same request.
#[derive(Debug, Default)]
struct Pairs {
    session: Session,
    /// Halves whose other half hasn't come, by request. The session's limit on streams is theirs.
    waiting: BTreeMap<String, Half>,
    /// The stream for errors of each stream for data.
    errors: BTreeMap<StreamId, StreamId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half {
    id: StreamId,
    is_data: bool,
    port: u16,
}

impl Half {
    /// What a stream's headers say; `None` if they say nothing of use.
    fn of(id: StreamId, headers: &Headers) -> Option<Self> {
        let is_data = match headers.get("streamtype")? {
            "data" => true,
            "error" => false,
            _ => return None,
        };
        let port = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
        Some(Self { id, is_data, port })
    }

    /// Old clients don't name requests: their data streams follow their error streams.
    fn request(&self, headers: &Headers) -> String {
        let first = if self.is_data { self.id.0.saturating_sub(2) } else { self.id.0 };
        headers.get("requestid").map_or_else(|| first.to_string(), str::to_owned)
    }
}

impl Pairs {
    fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>, Malformed> {
        while let Some(event) = self.session.receive(input, out)? {
            let event = match event {
                spdy::Event::Opened { id, headers } => self.opened(id, &headers, out),
                spdy::Event::Data { id, bytes } if self.errors.contains_key(&id) => {
                    Some(Event::Data(ConnectionId(id.0), bytes))
                }
                spdy::Event::Data { .. } => return Err(Malformed("data on a stream that isn't connected")),
                spdy::Event::Finished(id) => {
                    self.errors.contains_key(&id).then_some(Event::Finished(ConnectionId(id.0)))
                }
                spdy::Event::Reset(id) => self.dropped(id),
                spdy::Event::GoAway => Some(Event::End),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn opened(&mut self, id: StreamId, headers: &Headers, out: &mut Vec<u8>) -> Option<Event> {
        let Some(half) = Half::of(id, headers) else {
            self.session.reset(id, out);
            return None;
        };
        let request = half.request(headers);
        let Some(other) = self.waiting.remove(&request) else {
            self.waiting.insert(request, half);
            return None;
        };
        if other.is_data == half.is_data || other.port != half.port {
            self.session.reset(other.id, out);
            self.session.reset(id, out);
            return None;
        }
        let (data, error) = if half.is_data { (half, other) } else { (other, half) };
        self.errors.insert(data.id, error.id);
        Some(Event::Connect(ConnectionId(data.id.0), data.port))
    }

    fn dropped(&mut self, id: StreamId) -> Option<Event> {
        self.waiting.retain(|_, half| half.id != id);
        self.errors.remove(&id).map(|_| Event::Dropped(ConnectionId(id.0)))
    }

    fn finish(&mut self, id: StreamId, error: Option<&str>, out: &mut Vec<u8>) {
        let Some(errors) = self.errors.remove(&id) else { return };
        self.session.send(errors, error.unwrap_or_default().as_bytes(), out);
        self.session.finish(errors, out);
        self.session.finish(id, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spdy::testing::Client;

    /// A client that opens a connection, talks, and ends it.
    fn conversation() -> Vec<u8> {
        let mut client = Client::default();
        client.open(1, &[("streamtype", "error"), ("port", "8080"), ("requestid", "0")]);
        client.open(3, &[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]);
        client.data(3, b"GET /", false);
        client.data(3, b"", true);
        client.wire
    }

    fn events(codec: &mut Codec, wire: &[u8], piece: usize) -> Vec<String> {
        let (mut input, mut out, mut events) = (BytesMut::new(), Vec::new(), Vec::new());
        let mut data = Vec::new();
        for piece in wire.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(event) = codec.receive(&mut input, &mut out).expect("well formed") {
                match event {
                    Event::Data(_, bytes) => data.extend_from_slice(&bytes),
                    other => events.push(format!("{other:?}")),
                }
            }
        }
        events.push(String::from_utf8(data).expect("text"));
        events
    }

    const WANT: [&str; 3] = ["Connect(ConnectionId(3), 8080)", "Finished(ConnectionId(3))", "GET /"];

    #[test]
    fn two_streams_are_a_connection() {
        let mut codec = Codec::spdy();
        assert_eq!(events(&mut codec, &conversation(), 1000), WANT);
        let mut out = Vec::new();
        codec.send(ConnectionId(3), b"hi", &mut out);
        codec.finish(ConnectionId(3), Some("no"), &mut out);
        codec.finish(ConnectionId(3), Some("twice"), &mut out);
        let want = b"\0\0\0\x03\0\0\0\x02hi\0\0\0\x01\0\0\0\x02no\0\0\0\x01\x01\0\0\0\0\0\0\x03\x01\0\0\0";
        assert_eq!(out, want);
    }

    #[test]
    fn halves_that_do_not_match_are_no_connection() {
        let mut client = Client::default();
        client.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
        client.open(3, &[("streamtype", "data"), ("port", "81"), ("requestid", "0")]);
        client.open(5, &[("streamtype", "data"), ("port", "0"), ("requestid", "1")]);
        client.open(7, &[("streamtype", "what"), ("port", "80")]);
        client.open(9, &[("streamtype", "error"), ("port", "80")]);
        client.open(11, &[("streamtype", "data"), ("port", "80")]);
        client.reset(11);
        let mut codec = Codec::spdy();
        let want = ["Connect(ConnectionId(11), 80)", "Dropped(ConnectionId(11))", ""];
        assert_eq!(events(&mut codec, &client.wire, 1000), want);
    }

    #[test]
    fn each_port_of_a_websocket_has_two_channels() {
        let (protocol, _) = Subprotocol::choose(&["v4.channel.k8s.io"], &WEBSOCKET_VERSIONS).expect("known");
        let mut codec = Codec::websocket(protocol, vec![80, 8443]);
        let wire =
            [websocket::masked(0x82, b"\x02hi", [1; 4]), websocket::masked(0x82, b"\x06hi", [1; 4])].concat();
        let want = ["Connect(ConnectionId(0), 80)", "Connect(ConnectionId(1), 8443)", "hi"];
        assert_eq!(events(&mut codec, &wire, 1000), want);
        let mut out = Vec::new();
        codec.begun(&mut out);
        codec.finish(ConnectionId(1), Some("no"), &mut out);
        let begin = b"\x82\x03\0\x50\0\x82\x03\x01\x50\0\x82\x03\x02\xfb\x20\x82\x03\x03\xfb\x20";
        assert_eq!(out, [&begin[..], b"\x82\x03\x03no"].concat());
    }

    proptest! {
        #[test]
        fn a_tunnel_is_cut_anywhere(message in 1..40_usize, piece in 1..50_usize) {
            let wire: Vec<u8> =
                conversation().chunks(message).flat_map(|part| websocket::masked(0x82, part, [4, 3, 2, 1])).collect();
            prop_assert_eq!(events(&mut Codec::tunnel(), &wire, piece), WANT);
        }

        #[test]
        fn any_bytes_are_events_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for mut codec in [Codec::spdy(), Codec::tunnel()] {
                let (mut input, mut out) = (BytesMut::from(&bytes[..]), Vec::new());
                while let Ok(Some(_)) = codec.receive(&mut input, &mut out) {}
            }
        }
    }
}
