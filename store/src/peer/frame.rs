//! The wire format: length, checksum, payload; the payload's first byte is its kind.
//!
//! A frame that is too long or damaged ends the connection before anything of it is believed.

use std::io;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::MemberId;
use crate::membership::Membership;

/// Larger frames are refused. An append message holds at most what may be uncommitted (32 MiB).
const MAX_FRAME_BYTES: usize = 64 << 20;
const MAGIC: u64 = 0x616d_6f65_6261_0002;

/// What travels between members.
#[derive(Debug)]
pub enum Frame {
    /// First on each connection.
    Hello(Hello),
    /// A Raft message.
    Raft(Message),
    /// A Raft message whose snapshot follows as chunks.
    SnapshotBegin(Message),
    /// A piece of the snapshot.
    SnapshotChunk(Bytes),
    /// The snapshot is complete.
    SnapshotEnd,
    /// The snapshot is stored.
    SnapshotStored,
    /// Instead of a greeting: a new member asks whom it has reached.
    WhoAreYou,
    /// The answer to [`Frame::WhoAreYou`].
    Members {
        /// The cluster.
        cluster: u64,
        /// Its members, as far as the one that answers knows.
        membership: Membership,
    },
    /// The last frame to a caller that isn't served.
    Refused(RefusedCall),
}

/// Why a caller isn't served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCall {
    /// The cluster has removed the caller, and these are its members now.
    pub removed: Option<Membership>,
    /// The reason.
    pub why: String,
}

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster that the caller belongs to.
    pub cluster: u64,
    /// The caller.
    pub from: MemberId,
    /// Whom it means to call.
    pub to: MemberId,
    /// The caller's own peer address, for a callee that doesn't know it yet.
    pub address: String,
}

/// Writes a frame.
///
/// # Errors
/// Of the connection.
pub async fn write(output: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let payload = encode(frame)?;
    let mut header = Writer::with_capacity(8);
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    header.u32(len).u32(crc32fast::hash(&payload));
    output.write_all(&header.finish()).await?;
    output.write_all(&payload).await
}

/// Reads a frame. Safe to abandon only together with the connection.
///
/// # Errors
/// Of the connection, or if the frame is too long or damaged.
pub async fn read(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let len = input.read_u32().await? as usize;
    let expected = input.read_u32().await?;
    if len > MAX_FRAME_BYTES {
        return Err(invalid(format!("a frame of {len} bytes")));
    }
    // Grows with what really arrives, not with what the length claims.
    let mut payload = Vec::with_capacity(len.min(64 << 10));
    input.take(len as u64).read_to_end(&mut payload).await?;
    if payload.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if crc32fast::hash(&payload) != expected {
        return Err(invalid("a frame with a wrong checksum"));
    }
    decode(payload.into())
}

fn encode(frame: &Frame) -> io::Result<Vec<u8>> {
    let mut out = Writer::with_capacity(128);
    match frame {
        Frame::Hello(hello) => {
            out.u8(1).u64(MAGIC).u64(hello.cluster).u64(hello.from.0).u64(hello.to.0);
            out.bytes(hello.address.as_bytes());
        }
        Frame::Raft(message) => drop(out.u8(2).raw(&message.write_to_bytes().map_err(io::Error::other)?)),
        Frame::SnapshotBegin(message) => {
            out.u8(3).raw(&message.write_to_bytes().map_err(io::Error::other)?);
        }
        Frame::SnapshotChunk(chunk) => drop(out.u8(4).raw(chunk)),
        Frame::SnapshotEnd => drop(out.u8(5)),
        Frame::SnapshotStored => drop(out.u8(6)),
        Frame::WhoAreYou => drop(out.u8(7).u64(MAGIC)),
        Frame::Members { cluster, membership } => {
            out.u8(8).u64(*cluster).bytes(&membership.encode());
        }
        Frame::Refused(refused) => {
            let members = refused.removed.as_ref().map(Membership::encode).unwrap_or_default();
            out.u8(9).bytes(&members).bytes(refused.why.as_bytes());
        }
    }
    Ok(out.finish())
}

fn decode(payload: Bytes) -> io::Result<Frame> {
    let mut input = Reader::new(payload);
    Ok(match input.u8("frame kind").map_err(invalid)? {
        1 => Frame::Hello(decode_hello(&mut input).map_err(invalid)?),
        2 => Frame::Raft(decode_message(&input.rest())?),
        3 => Frame::SnapshotBegin(decode_message(&input.rest())?),
        4 => Frame::SnapshotChunk(input.rest()),
        5 => Frame::SnapshotEnd,
        6 => Frame::SnapshotStored,
        7 => decode_magic(&mut input).map(|()| Frame::WhoAreYou).map_err(invalid)?,
        8 => decode_members(&mut input).map_err(invalid)?,
        9 => decode_refused(&mut input).map_err(invalid)?,
        kind => return Err(invalid(format!("a frame of unknown kind {kind}"))),
    })
}

fn decode_hello(input: &mut Reader) -> Result<Hello, DecodeError> {
    decode_magic(input)?;
    Ok(Hello {
        cluster: input.u64("cluster")?,
        from: MemberId(input.u64("from")?),
        to: MemberId(input.u64("to")?),
        address: input.text("address")?,
    })
}

fn decode_magic(input: &mut Reader) -> Result<(), DecodeError> {
    match input.u64("magic")? {
        MAGIC => Ok(()),
        tag => Err(DecodeError::Unknown { what: "protocol", tag }),
    }
}

fn decode_members(input: &mut Reader) -> Result<Frame, DecodeError> {
    let cluster = input.u64("cluster")?;
    Ok(Frame::Members { cluster, membership: Membership::decode(input.bytes("membership")?)? })
}

fn decode_refused(input: &mut Reader) -> Result<Frame, DecodeError> {
    let members = input.bytes("members")?;
    let removed = if members.is_empty() { None } else { Some(Membership::decode(members)?) };
    Ok(Frame::Refused(RefusedCall { removed, why: input.text("reason")? }))
}

fn decode_message(bytes: &[u8]) -> io::Result<Message> {
    Message::parse_from_bytes(bytes).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_survives_and_a_damaged_one_is_refused() {
        let hello = Hello { cluster: 1, from: MemberId(2), to: MemberId(3), address: "h:1".into() };
        let mut wire = Vec::new();
        write(&mut wire, &Frame::Hello(hello.clone())).await.unwrap();
        assert!(matches!(read(&mut &wire[..]).await.unwrap(), Frame::Hello(back) if back == hello));
        for at in 0..wire.len() {
            let mut damaged = wire.clone();
            damaged[at] ^= 0x40;
            assert!(read(&mut &damaged[..]).await.is_err(), "byte {at}");
            assert!(read(&mut &wire[..at]).await.is_err(), "cut at {at}");
        }
    }
}
