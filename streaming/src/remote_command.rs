//! Exec and attach: the five channels of a process at a distance.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::Malformed;
use crate::spdy::{self, Session, StreamId};
use crate::websocket::{self, ChannelEvent, Channels, Subprotocol};

/// The versions of the protocol over SPDY, by name, the newest first.
const SPDY_VERSIONS: [(&str, u8); 4] =
    [("v4.channel.k8s.io", 4), ("v3.channel.k8s.io", 3), ("v2.channel.k8s.io", 2), ("channel.k8s.io", 1)];
/// Those over WebSocket.
pub const WEBSOCKET_VERSIONS: [u8; 3] = [1, 4, 5];

/// One of a process's channels; the numbers are WebSocket's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// From the client.
    Stdin = 0,
    /// To the client.
    Stdout = 1,
    /// To the client; without a terminal.
    Stderr = 2,
    /// How it ended, to the client.
    Error = 3,
    /// The terminal's size, from the client.
    Resize = 4,
}

impl Channel {
    const ALL: [Self; 5] = [Self::Stdin, Self::Stdout, Self::Stderr, Self::Error, Self::Resize];

    /// What a SPDY stream's header calls it.
    pub fn name(self) -> &'static str {
        ["stdin", "stdout", "stderr", "error", "resize"][self as usize]
    }
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// On standard input, or a size.
    Data(Channel, Bytes),
    /// It will say no more there.
    Closed(Channel),
    /// All is over.
    End,
}

/// One client's way of speaking.
#[derive(Debug)]
pub struct Codec(Transport);

#[derive(Debug)]
enum Transport {
    WebSocket(Channels),
    Spdy(Spdy),
}

#[derive(Debug)]
struct Spdy {
    session: Session,
    version: u8,
    wanted: Vec<Channel>,
    streams: BTreeMap<Channel, StreamId>,
}

/// The newest version that a client of SPDY offers in `X-Stream-Protocol-Version`, with its name. Without an
/// offer it is the first.
///
/// # Errors
/// None is known: the names of those that are.
pub fn spdy_version(offered: &[&str]) -> Result<(u8, &'static str), Vec<&'static str>> {
    if offered.is_empty() {
        return Ok((1, ""));
    }
    let known = |name: &&str| SPDY_VERSIONS.iter().find(|(known, _)| known == name);
    let chosen = offered.iter().find_map(known).map(|(name, version)| (*version, *name));
    chosen.ok_or_else(|| SPDY_VERSIONS.iter().map(|(name, _)| *name).collect())
}

impl Codec {
    /// Over WebSocket.
    pub fn websocket(protocol: Subprotocol) -> Self {
        Self(Transport::WebSocket(Channels::new(protocol)))
    }

    /// Over SPDY: the client opens a stream for each channel that is wanted, and one for how it ended.
    pub fn spdy(version: u8, mut wanted: Vec<Channel>) -> Self {
        wanted.push(Channel::Error);
        // Sizes came with the third version.
        wanted.retain(|channel| *channel != Channel::Resize || version >= 3);
        let (session, streams) = (Session::default(), BTreeMap::new());
        Self(Transport::Spdy(Spdy { session, version, wanted, streams }))
    }

    /// All channels are there.
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            Transport::WebSocket(_) => true,
            Transport::Spdy(spdy) => spdy.wanted.iter().all(|channel| spdy.streams.contains_key(channel)),
        }
    }

    /// The end is told as a Status in JSON; before the fourth version as a text, and only if it was a failure.
    pub fn has_status(&self) -> bool {
        match &self.0 {
            Transport::WebSocket(channels) => channels.protocol().version >= 4,
            Transport::Spdy(spdy) => spdy.version >= 4,
        }
    }

    /// Takes the next event out of what was received, and appends what must be answered. `None` if more is
    /// needed.
    ///
    /// # Errors
    /// If the client doesn't speak the protocol.
    pub fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>, Malformed> {
        match &mut self.0 {
            Transport::WebSocket(channels) => of_websocket(channels, input, out),
            Transport::Spdy(spdy) => spdy.receive(input, out),
        }
    }

    /// Over WebSocket, an empty message says that the process has begun.
    pub fn begun(&self, channel: Channel, out: &mut Vec<u8>) {
        if let Transport::WebSocket(channels) = &self.0 {
            channels.send(channel as u8, &[], out);
        }
    }

    /// Sends on a channel.
    pub fn send(&self, channel: Channel, bytes: &[u8], out: &mut Vec<u8>) {
        match &self.0 {
            Transport::WebSocket(channels) => channels.send(channel as u8, bytes, out),
            Transport::Spdy(spdy) => {
                if let Some(id) = spdy.streams.get(&channel) {
                    spdy.session.send(*id, bytes, out);
                }
            }
        }
    }

    /// Sends no more on a channel.
    pub fn finish(&mut self, channel: Channel, out: &mut Vec<u8>) {
        if let Transport::Spdy(spdy) = &mut self.0
            && let Some(id) = spdy.streams.get(&channel)
        {
            spdy.session.finish(*id, out);
        }
    }

    /// Ends the connection, in order.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            Transport::WebSocket(_) => websocket::close(out),
            Transport::Spdy(spdy) => {
                for id in spdy.streams.values() {
                    spdy.session.finish(*id, out);
                }
                spdy.session.go_away(out);
            }
        }
    }
}

/// What comes on a channel that isn't the client's to speak on is left out, as upstream does.
fn of_websocket(
    channels: &mut Channels,
    input: &mut BytesMut,
    out: &mut Vec<u8>,
) -> Result<Option<Event>, Malformed> {
    while let Some(event) = channels.receive(input, out)? {
        let event = match event {
            ChannelEvent::Data(number, bytes) => inbound(number).map(|channel| Event::Data(channel, bytes)),
            ChannelEvent::Closed(number) => inbound(number).map(Event::Closed),
            ChannelEvent::End => Some(Event::End),
        };
        if event.is_some() {
            return Ok(event);
        }
    }
    Ok(None)
}

fn inbound(number: u8) -> Option<Channel> {
    [Channel::Stdin, Channel::Resize].into_iter().find(|channel| *channel as u8 == number)
}

impl Spdy {
    fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>, Malformed> {
        while let Some(event) = self.session.receive(input, out)? {
            let event = match event {
                spdy::Event::Opened { id, headers } => {
                    self.opened(id, headers.get("streamtype"), out);
                    None
                }
                spdy::Event::Data { id, bytes } => {
                    self.inbound(id).map(|channel| Event::Data(channel, bytes))
                }
                spdy::Event::Finished(id) => self.inbound(id).map(Event::Closed),
                spdy::Event::Reset(id) => self.inbound(id).map(Event::Closed),
                spdy::Event::GoAway => Some(Event::End),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn opened(&mut self, id: StreamId, kind: Option<&str>, out: &mut Vec<u8>) {
        let channel = Channel::ALL.into_iter().find(|channel| kind == Some(channel.name()));
        match channel.filter(|channel| !self.streams.contains_key(channel)) {
            Some(channel) => drop(self.streams.insert(channel, id)),
            None => self.session.reset(id, out),
        }
    }

    fn inbound(&self, id: StreamId) -> Option<Channel> {
        [Channel::Stdin, Channel::Resize].into_iter().find(|channel| self.streams.get(channel) == Some(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::testing::Client;

    #[test]
    fn versions_over_spdy_are_the_clients_choice() {
        assert_eq!(
            spdy_version(&["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]),
            Ok((4, "v4.channel.k8s.io"))
        );
        assert_eq!(spdy_version(&["channel.k8s.io", "v4.channel.k8s.io"]), Ok((1, "channel.k8s.io")));
        assert_eq!(spdy_version(&[]), Ok((1, "")));
        assert_eq!(spdy_version(&["x"]).map_err(|known| known.len()), Err(4));
    }

    #[test]
    fn a_spdy_client_opens_its_channels_first() {
        let mut codec = Codec::spdy(4, vec![Channel::Stdin, Channel::Stdout]);
        let mut client = Client::default();
        client.open(1, &[("streamtype", "error")]);
        client.open(3, &[("streamtype", "stdin")]);
        client.open(5, &[("streamtype", "stdin")]);
        client.data(3, b"typed", true);
        let (mut input, mut out) = (BytesMut::from(&client.wire[..]), Vec::new());
        let event = codec.receive(&mut input, &mut out);
        assert_eq!(event, Ok(Some(Event::Data(Channel::Stdin, Bytes::from_static(b"typed")))));
        assert_eq!(codec.receive(&mut input, &mut out), Ok(Some(Event::Closed(Channel::Stdin))));
        assert!(!codec.is_ready(), "standard output is missing");
        client.wire.clear();
        client.open(7, &[("streamtype", "stdout")]);
        assert_eq!(codec.receive(&mut BytesMut::from(&client.wire[..]), &mut out), Ok(None));
        assert!(codec.is_ready() && codec.has_status());
        out.clear();
        codec.send(Channel::Stdout, b"hi", &mut out);
        assert_eq!(out, b"\0\0\0\x07\0\0\0\x02hi");
    }

    #[test]
    fn a_websocket_client_speaks_on_two_channels_only() {
        let (protocol, _) = Subprotocol::choose(&["v5.channel.k8s.io"], &WEBSOCKET_VERSIONS).expect("known");
        let mut codec = Codec::websocket(protocol);
        let wire = ["\x01out", "\x07what", "\x04{}", "\0in"]
            .map(|text| websocket::masked(0x82, text.as_bytes(), [9; 4]));
        let (mut input, mut out) = (BytesMut::from(&wire.concat()[..]), Vec::new());
        for (channel, text) in [(Channel::Resize, "{}"), (Channel::Stdin, "in")] {
            let want = Event::Data(channel, Bytes::from_static(text.as_bytes()));
            assert_eq!(codec.receive(&mut input, &mut out), Ok(Some(want)));
        }
        codec.begun(Channel::Stdout, &mut out);
        codec.send(Channel::Error, b"{}", &mut out);
        codec.end(&mut out);
        assert_eq!(out, b"\x82\x01\x01\x82\x03\x03{}\x88\x02\x03\xe8");
    }
}
