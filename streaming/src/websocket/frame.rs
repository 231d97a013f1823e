//! Frames: a client's come in, ours go out.
//!
//! Data is handed on piece by piece, as it comes: a message may be as long as it likes and is never held.

use bytes::{Buf, Bytes, BytesMut};

use crate::Malformed;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const LONGEST_CONTROL: usize = 125;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of a message.
    Data {
        /// The first piece of its message.
        begins: bool,
        /// Unmasked.
        bytes: Bytes,
        /// The last piece of its message.
        ends: bool,
    },
    /// Wants a pong with the same payload.
    Ping(Bytes),
    /// Answers a ping.
    Pong,
    /// Ends.
    Close,
}

/// What is known of the frame that is being received.
#[derive(Clone, Copy, Debug)]
struct Frame {
    left: u64,
    mask: [u8; 4],
    /// The last frame of its message.
    last: bool,
    begins: bool,
}

/// A client's frame's head.
struct Head {
    opcode: u8,
    last: bool,
    length: u64,
    mask: [u8; 4],
}

/// Takes a client's frames apart.
#[derive(Debug, Default)]
pub struct Decoder {
    frame: Option<Frame>,
    /// A message has begun and not ended.
    in_message: bool,
}

impl Decoder {
    /// Takes the next event out of what was received; `None` if more is needed.
    ///
    /// # Errors
    /// If it can't become one.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Malformed> {
        if let Some(frame) = self.frame.take() {
            return Ok(self.piece(frame, input));
        }
        let Some((head, size)) = head(input)? else { return Ok(None) };
        if head.opcode & 8 != 0 {
            return control(&head, size, input);
        }
        let begins = head.opcode != 0;
        if begins == self.in_message {
            return Err(Malformed(
                "a message begins in the middle of another, or goes on before it has begun",
            ));
        }
        input.advance(size);
        self.in_message = !head.last;
        let frame = Frame { left: head.length, mask: head.mask, last: head.last, begins };
        if frame.left == 0 {
            return Ok(Some(Event::Data { begins, bytes: Bytes::new(), ends: head.last }));
        }
        Ok(self.piece(frame, input))
    }

    /// What has come of a frame.
    fn piece(&mut self, mut frame: Frame, input: &mut BytesMut) -> Option<Event> {
        let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
        if length == 0 {
            self.frame = Some(frame);
            return None;
        }
        let mut bytes = input.split_to(length);
        unmask(&mut bytes, frame.mask);
        frame.left -= length as u64;
        let event = Event::Data {
            begins: std::mem::take(&mut frame.begins),
            bytes: bytes.freeze(),
            ends: frame.last && frame.left == 0,
        };
        frame.mask.rotate_left(length % 4);
        self.frame = Some(frame).filter(|frame| frame.left > 0);
        Some(event)
    }
}

/// The head of the next frame and its size; `None` if it isn't whole yet.
fn head(input: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let [first, second, ..] = *input else { return Ok(None) };
    let opcode = first & 0x0f;
    if !matches!(opcode, 0..=2 | 8..=10) {
        return Err(Malformed("a frame of an unknown kind"));
    }
    if first & 0x70 != 0 {
        return Err(Malformed("a reserved bit is set"));
    }
    if second & 0x80 == 0 {
        return Err(Malformed("a client's frame must be masked"));
    }
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let size = 2 + extended + 4;
    if input.len() < size {
        return Ok(None);
    }
    let length = match extended {
        0 => u64::from(second & 0x7f),
        bytes => input[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let mask = [input[size - 4], input[size - 3], input[size - 2], input[size - 1]];
    Ok(Some((Head { opcode, last: first & 0x80 != 0, length, mask }, size)))
}

fn control(head: &Head, size: usize, input: &mut BytesMut) -> Result<Option<Event>, Malformed> {
    let length = usize::try_from(head.length).ok().filter(|length| *length <= LONGEST_CONTROL);
    let Some(length) = length.filter(|_| head.last) else {
        return Err(Malformed("a control frame must be short and whole"));
    };
    if input.len() < size + length {
        return Ok(None);
    }
    input.advance(size);
    let mut payload = input.split_to(length);
    unmask(&mut payload, head.mask);
    Ok(Some(match head.opcode {
        8 => Event::Close,
        9 => Event::Ping(payload.freeze()),
        _ => Event::Pong,
    }))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Appends a message of these parts, of text or of bytes.
pub fn message(text: bool, parts: &[&[u8]], out: &mut Vec<u8>) {
    frame(if text { 0x81 } else { 0x82 }, parts, out);
}

/// Appends the answer to a ping.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(0x8a, &[payload], out);
}

/// Appends a normal end.
pub fn close(out: &mut Vec<u8>) {
    frame(0x88, &[&1000_u16.to_be_bytes()], out);
}

fn frame(first: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(first);
    match parts.iter().map(|part| part.len()).sum::<usize>() {
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
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// A message as a client sends it.
#[cfg(test)]
pub(crate) fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut plain = Vec::new();
    frame(first, &[payload], &mut plain);
    let head = plain.len() - payload.len();
    plain[1] |= 0x80;
    let mut body = payload.to_vec();
    unmask(&mut body, mask);
    [&plain[..head], &mask[..], &body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_frame_is_refused() {
        let cases: [&[u8]; 6] = [
            &[0x83, 0x80],                         // an unknown kind
            &[0xc1, 0x80],                         // a reserved bit
            &[0x81, 0x00],                         // not masked
            &[0x09, 0x80, 0, 0, 0, 0],             // a ping in parts
            &[0x89, 0xfe, 0xff, 0xff, 1, 1, 1, 1], // a long ping
            &[0x80, 0x80, 0, 0, 0, 0],             // goes on before it has begun
        ];
        for case in cases {
            assert!(Decoder::default().take(&mut BytesMut::from(case)).is_err(), "{case:?}");
        }
    }

    /// Feeds the wire in two pieces and puts the messages together again.
    fn messages(wire: &[u8], cut: usize) -> Vec<Vec<u8>> {
        let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
        let (mut done, mut current) = (Vec::new(), None);
        for piece in [&wire[..cut], &wire[cut..]] {
            input.extend_from_slice(piece);
            while let Some(event) = decoder.take(&mut input).expect("well formed") {
                let Event::Data { begins, bytes, ends } = event else { continue };
                assert_eq!(begins, current.is_none());
                let mut message: Vec<u8> = current.take().unwrap_or_default();
                message.extend_from_slice(&bytes);
                match ends {
                    true => done.push(message),
                    false => current = Some(message),
                }
            }
        }
        assert!(input.is_empty() && current.is_none());
        done
    }

    proptest! {
        #[test]
        fn messages_come_whole_however_they_are_cut(payload in prop::collection::vec(any::<u8>(), 0..300),
            split in any::<prop::sample::Index>(), mask in any::<[u8; 4]>(), cut in any::<prop::sample::Index>()) {
            let split = split.index(payload.len() + 1);
            let wire = [
                masked(0x02, &payload[..split], mask),
                masked(0x89, b"are you there", mask),
                masked(0x80, &payload[split..], mask),
                masked(0x81, b"next", mask),
            ].concat();
            let cut = cut.index(wire.len());
            prop_assert_eq!(messages(&wire, cut), vec![payload, b"next".to_vec()]);
        }

        #[test]
        fn any_bytes_are_events_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let (mut decoder, mut input) = (Decoder::default(), BytesMut::from(&bytes[..]));
            while let Ok(Some(_)) = decoder.take(&mut input) {}
            prop_assert!(input.len() <= bytes.len());
        }
    }
}
