//! Frames of RFC 6455, as much as a stream of text from a server needs: whole messages out, control frames in.

use bytes::{Buf, Bytes, BytesMut};

/// The longest payload that is taken from a client; it has nothing to say but "ping" and "close".
const LONGEST: usize = 64 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of a message.
    Data,
    /// The other side ends.
    Close,
    /// Wants a pong with the same payload.
    Ping,
    /// Answers a ping.
    Pong,
}

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its payload, unmasked.
    pub payload: Bytes,
}

/// The client doesn't speak WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Takes the next frame out of what was received; `None` if it isn't whole yet.
///
/// # Errors
/// If it can't become one.
pub fn take(input: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
    let [first, second, ..] = input[..] else { return Ok(None) };
    let kind = match first & 0x0f {
        0..=2 => Kind::Data,
        8 => Kind::Close,
        9 => Kind::Ping,
        10 => Kind::Pong,
        _ => return Err(Malformed("a frame of an unknown kind")),
    };
    if first & 0x70 != 0 {
        return Err(Malformed("a reserved bit is set"));
    }
    if second & 0x80 == 0 {
        return Err(Malformed("a client's frame must be masked"));
    }
    let (extended, head) = match second & 0x7f {
        126 => (2, 8),
        127 => (8, 14),
        _ => (0, 6),
    };
    if input.len() < head {
        return Ok(None);
    }
    let length = match extended {
        0 => u64::from(second & 0x7f),
        bytes => input[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or(Malformed("a frame is too long"))?;
    if kind != Kind::Data && (length > 125 || first & 0x80 == 0) {
        return Err(Malformed("a control frame must be short and whole"));
    }
    if input.len() < head + length {
        return Ok(None);
    }
    let mask: [u8; 4] = input[head - 4..head].try_into().expect("four bytes");
    input.advance(head);
    let mut payload = input.split_to(length);
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok(Some(Frame { kind, payload: payload.freeze() }))
}

/// Appends a message of text.
pub fn text(payload: &[u8], out: &mut Vec<u8>) {
    frame(0x81, payload, out);
}

/// Appends the answer to a ping.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(0x8a, payload, out);
}

/// Appends a normal end.
pub fn close(out: &mut Vec<u8>) {
    frame(0x88, &1000_u16.to_be_bytes(), out);
}

fn frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a client sends it.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut plain = Vec::new();
        frame(first, payload, &mut plain);
        let head = plain.len() - payload.len();
        plain[1] |= 0x80;
        let body = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [&plain[..head], &mask[..], &body.collect::<Vec<u8>>()[..]].concat()
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let cases: [&[u8]; 5] = [
            &[0x83, 0x80],                                           // an unknown kind
            &[0xc1, 0x80],                                           // a reserved bit
            &[0x81, 0x00],                                           // not masked
            &[0x09, 0x80, 0, 0, 0, 0],                               // a ping in parts
            &[0x82, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1], // far too long
        ];
        for case in cases {
            assert!(take(&mut BytesMut::from(case)).is_err(), "{case:?}");
        }
    }

    proptest! {
        #[test]
        fn frames_come_whole_however_they_are_cut(payload in prop::collection::vec(any::<u8>(), 0..300),
            mask in any::<[u8; 4]>(), cut in any::<prop::sample::Index>()) {
            let wire = masked(0x81, &payload, mask);
            let cut = cut.index(wire.len());
            let mut input = BytesMut::from(&wire[..cut]);
            prop_assert_eq!(take(&mut input), Ok(None));
            input.extend_from_slice(&wire[cut..]);
            let frame = take(&mut input).expect("a frame").expect("whole");
            prop_assert_eq!(&frame.payload[..], &payload[..]);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut input) {}
            prop_assert!(input.len() <= bytes.len());
        }
    }
}
