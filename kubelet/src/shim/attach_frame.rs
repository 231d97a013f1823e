//! What a container's supervisor and the agent say to each other over `attach.sock`: a kind, a length in four
//! bytes, and as many bytes. The socket's end is the container's, or the client's.

/// The longest payload: what is read from a pipe at once.
pub const LONGEST: usize = 64 << 10;
/// Kind and length.
const HEAD: usize = 5;

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the container's input. An empty one says that there will be some.
    Stdin = 0,
    /// From its output.
    Stdout = 1,
    /// From its errors.
    Stderr = 2,
    /// Columns and rows of its terminal, two bytes each.
    Resize = 3,
    /// There will be no more input from this client.
    StdinEnd = 4,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub payload: Vec<u8>,
}

/// Appends a message, or several if the payload is long.
pub fn put(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let mut rest = payload;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(LONGEST));
        out.push(kind as u8);
        out.extend_from_slice(&(piece.len() as u32).to_be_bytes());
        out.extend_from_slice(piece);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// Takes the next whole message out of what was received.
///
/// # Errors
/// The other end isn't one of ours.
pub fn take(input: &mut Vec<u8>) -> Result<Option<Frame>, &'static str> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD>() else { return Ok(None) };
    let kind = match head[0] {
        0 => Kind::Stdin,
        1 => Kind::Stdout,
        2 => Kind::Stderr,
        3 => Kind::Resize,
        4 => Kind::StdinEnd,
        _ => return Err("a message of an unknown kind"),
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > LONGEST {
        return Err("a message is too long");
    }
    let Some(payload) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
    input.drain(..HEAD + length);
    Ok(Some(Frame { kind, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_and_long_ones_in_parts() {
        let mut wire = Vec::new();
        put(Kind::Stdin, b"", &mut wire);
        put(Kind::Stdout, &vec![b'x'; LONGEST + 1], &mut wire);
        let (mut input, mut lengths) = (Vec::new(), Vec::new());
        for piece in wire.chunks(1000) {
            input.extend_from_slice(piece);
            while let Some(frame) = take(&mut input).expect("well formed") {
                lengths.push((frame.kind, frame.payload.len()));
            }
        }
        assert_eq!(lengths, [(Kind::Stdin, 0), (Kind::Stdout, LONGEST), (Kind::Stdout, 1)]);
        assert!(take(&mut vec![9, 0, 0, 0, 0]).is_err());
        assert!(take(&mut vec![0, 1, 0, 0, 0]).is_err());
    }
}
