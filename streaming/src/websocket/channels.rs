//! Kubernetes' channels: each message begins with the number of the channel that it belongs to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes, BytesMut};

use crate::Malformed;
use crate::websocket::frame::{self, Decoder};

/// The channel on which a client says which channel it closes, since version 5.
const CLOSING: u8 = 255;

/// A version of the channels' protocol, in one of its two spellings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subprotocol {
    /// 1, 4 or 5.
    pub version: u8,
    /// Messages are text, what follows the channel's digit is base64.
    pub base64: bool,
}

/// What clients may ask for. No name at all means the first.
const NAMES: [(&str, u8, bool); 5] = [
    ("channel.k8s.io", 1, false),
    ("base64.channel.k8s.io", 1, true),
    ("v4.channel.k8s.io", 4, false),
    ("v4.base64.channel.k8s.io", 4, true),
    ("v5.channel.k8s.io", 5, false),
];

impl Subprotocol {
    /// The client's dearest that is among `versions`, and the name to answer with.
    ///
    /// # Errors
    /// None is: the sentence says what would be.
    pub fn choose<'a>(offered: &[&'a str], versions: &[u8]) -> Result<(Self, Option<&'a str>), String> {
        let known = |(_, version, _): &&(&str, u8, bool)| versions.contains(version);
        if offered.is_empty() && versions.contains(&1) {
            return Ok((Self { version: 1, base64: false }, None));
        }
        for name in offered {
            if let Some((_, version, base64)) = NAMES.iter().filter(known).find(|(known, ..)| known == name) {
                return Ok((Self { version: *version, base64: *base64 }, Some(name)));
            }
        }
        let names: Vec<&str> = NAMES.iter().filter(known).map(|(name, ..)| *name).collect();
        Err(format!("requested protocol(s) are not supported: {offered:?}; supports {names:?}"))
    }
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// On a channel; a piece of a message, never empty.
    Data(u8, Bytes),
    /// A channel will carry no more.
    Closed(u8),
    /// All is over.
    End,
}

/// Takes channels apart, and puts them together.
#[derive(Debug)]
pub struct Channels {
    protocol: Subprotocol,
    decoder: Decoder,
    /// Of the message that is being received, once its first byte is here.
    channel: Option<u8>,
    /// What is left of its base64 until there are four digits.
    digits: BytesMut,
}

impl Channels {
    /// In this protocol.
    pub fn new(protocol: Subprotocol) -> Self {
        Self { protocol, decoder: Decoder::default(), channel: None, digits: BytesMut::new() }
    }

    /// The protocol.
    pub fn protocol(&self) -> Subprotocol {
        self.protocol
    }

    /// Takes the next event out of what was received, and appends what must be answered. `None` if more is
    /// needed.
    ///
    /// # Errors
    /// If the client doesn't speak the protocol.
    pub fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>, Malformed> {
        while let Some(event) = self.decoder.take(input)? {
            match event {
                frame::Event::Data { begins, bytes, ends } => {
                    if let Some(event) = self.data(begins, bytes, ends)? {
                        return Ok(Some(event));
                    }
                }
                frame::Event::Ping(payload) => frame::pong(&payload, out),
                frame::Event::Pong => {}
                frame::Event::Close => return Ok(Some(Event::End)),
            }
        }
        Ok(None)
    }

    fn data(&mut self, begins: bool, mut bytes: Bytes, ends: bool) -> Result<Option<Event>, Malformed> {
        if begins {
            self.channel = None;
            self.digits.clear();
        }
        if self.channel.is_none() && !bytes.is_empty() {
            let first = bytes.get_u8();
            self.channel = Some(if self.protocol.base64 { first.wrapping_sub(b'0') } else { first });
        }
        let bytes = if self.protocol.base64 { self.plain(&bytes, ends)? } else { bytes };
        Ok(match (self.channel, &bytes[..]) {
            (None, _) | (_, []) => None,
            (Some(CLOSING), [channel, ..]) if self.protocol.version >= 5 => Some(Event::Closed(*channel)),
            (Some(channel), _) => Some(Event::Data(channel, bytes)),
        })
    }

    /// What can be decoded of a message's base64 by now.
    fn plain(&mut self, bytes: &[u8], ends: bool) -> Result<Bytes, Malformed> {
        self.digits.extend_from_slice(bytes);
        let whole = if ends { self.digits.len() } else { self.digits.len() / 4 * 4 };
        let plain = BASE64.decode(self.digits.split_to(whole));
        plain.map(Bytes::from).map_err(|_| Malformed("a message isn't base64"))
    }

    /// Appends a message on a channel; it may be empty.
    pub fn send(&self, channel: u8, bytes: &[u8], out: &mut Vec<u8>) {
        match self.protocol.base64 {
            true => frame::message(true, &[&[b'0' + channel], BASE64.encode(bytes).as_bytes()], out),
            false => frame::message(false, &[&[channel], bytes], out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::masked;

    fn events(version: u8, base64: bool, wire: &[u8], piece: usize) -> Vec<Event> {
        let mut channels = Channels::new(Subprotocol { version, base64 });
        let (mut input, mut out, mut events) = (BytesMut::new(), Vec::new(), Vec::new());
        for piece in wire.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(event) = channels.receive(&mut input, &mut out).expect("well formed") {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn the_clients_dearest_is_chosen() {
        let choose = |offered: &[&str]| match Subprotocol::choose(offered, &[1, 4, 5]) {
            Ok((Subprotocol { version, base64 }, name)) => format!("{version} {base64} {name:?}"),
            Err(why) => why,
        };
        assert_eq!(
            choose(&["v5.channel.k8s.io", "v4.channel.k8s.io"]),
            "5 false Some(\"v5.channel.k8s.io\")"
        );
        assert_eq!(choose(&["v9", "base64.channel.k8s.io"]), "1 true Some(\"base64.channel.k8s.io\")");
        assert_eq!(choose(&[]), "1 false None");
        assert!(
            choose(&["v9"])
                .starts_with("requested protocol(s) are not supported: [\"v9\"]; supports [\"channel")
        );
        let forward = Subprotocol::choose(&["v5.channel.k8s.io", "v4.channel.k8s.io"], &[4]).expect("v4");
        assert_eq!(forward.0.version, 4);
    }

    #[test]
    fn messages_belong_to_channels() {
        let wire = [
            masked(0x82, b"\0hello", [1, 2, 3, 4]),
            masked(0x82, b"", [0; 4]),
            masked(0x82, b"\x04", [0; 4]),
            masked(0x82, b"\xff\0", [5; 4]),
            masked(0x88, b"", [0; 4]),
        ]
        .concat();
        let hello = Event::Data(0, Bytes::from_static(b"hello"));
        assert_eq!(events(5, false, &wire, 1000), [hello.clone(), Event::Closed(0), Event::End]);
        let older = Event::Data(255, Bytes::from_static(b"\0"));
        assert_eq!(events(4, false, &wire, 1000), [hello, older, Event::End]);
    }

    proptest! {
        #[test]
        fn both_spellings_say_the_same(text in prop::collection::vec(any::<u8>(), 1..100), piece in 1..20_usize,
            base64 in any::<bool>()) {
            let payload = match base64 {
                true => format!("3{}", BASE64.encode(&text)).into_bytes(),
                false => [&[3][..], &text].concat(),
            };
            let wire = masked(0x81, &payload, [7, 0, 9, 200]);
            let mut got = Vec::new();
            for event in events(4, base64, &wire, piece) {
                let Event::Data(3, bytes) = event else { panic!("{event:?}") };
                got.extend_from_slice(&bytes);
            }
            prop_assert_eq!(got, text);
        }

        #[test]
        fn any_bytes_are_events_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), base64 in any::<bool>()) {
            let mut channels = Channels::new(Subprotocol { version: 5, base64 });
            let (mut input, mut out) = (BytesMut::from(&masked(0x82, &bytes, [3; 4])[..]), Vec::new());
            input.extend_from_slice(&bytes);
            while let Ok(Some(_)) = channels.receive(&mut input, &mut out) {}
            prop_assert!(channels.digits.len() <= 2 * bytes.len());
        }
    }
}
