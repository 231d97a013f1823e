//! How a member's replicated state travels to a follower that fell behind the log, and to a backup.
//!
//! A sequence of blocks, each with length and checksum, ended by an empty block; a block holds whole
//! records, which come in the order of family and key. A reader that meets anything else than the end mark
//! at the end refuses all of it.
//!
//! - [`offer`]: the leader keeps a moment of its database and streams it.
//! - [`incoming`]: the follower turns what arrives into tables that the database takes in whole.

use std::io::Read;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::mvcc::family::Family;
use crate::mvcc::view::{DiskError, ReadView};

pub mod incoming;
pub mod offer;

/// A block is closed when it is this large, in bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// No block is larger: a record and its framing fit.
const MAX_BLOCK_BYTES: usize = 64 << 20;

/// A record: its family, key and value.
pub type Record = (Family, Bytes, Bytes);

/// The whole snapshot as framed blocks.
///
/// # Errors
/// If the view can't be read, or what `out` returns.
pub fn encode(
    view: &impl ReadView,
    out: &mut dyn FnMut(&[u8]) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let mut block = Writer::with_capacity(BLOCK_BYTES + 4096);
    let mut size = 0;
    for (tag, family) in (0..).zip(Family::REPLICATED) {
        view.scan(family, &[], None, &mut |key, value| {
            block.u8(tag).bytes(key).bytes(value);
            size += key.len() + value.len() + 9;
            if size >= BLOCK_BYTES {
                size = 0;
                out(&frame(&std::mem::take(&mut block).finish()))?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let rest = block.finish();
    if !rest.is_empty() {
        out(&frame(&rest))?;
    }
    out(&frame(&[]))
}

/// A block with its length and checksum.
pub fn frame(block: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(block.len() + 8);
    out.bytes(block).u32(crc32fast::hash(block));
    out.finish()
}

/// Reads a snapshot's records in order, from a file or from memory.
pub struct SnapshotFile<R> {
    input: R,
    block: Reader,
    ended: bool,
}

impl<R: Read> SnapshotFile<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self { input, block: Reader::new(Bytes::new()), ended: false }
    }

    /// The next record; `None` after the end mark.
    ///
    /// # Errors
    /// If a block is damaged or the end mark is missing.
    pub fn next_record(&mut self) -> Result<Option<Record>, DiskError> {
        while self.block.remaining() == 0 {
            if self.ended {
                return Ok(None);
            }
            let block = self.next_block()?;
            self.ended = block.is_empty();
            self.block = Reader::new(block);
        }
        let record = read_record(&mut self.block);
        record.map(Some).map_err(|source| DiskError::Damaged { family: "snapshot", source })
    }

    /// The next block, empty at the end.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn next_block(&mut self) -> Result<Bytes, DiskError> {
        let len = self.read_u32()? as usize;
        if len > MAX_BLOCK_BYTES {
            let source = DecodeError::Unknown { what: "block length", tag: len as u64 };
            return Err(DiskError::Damaged { family: "snapshot", source });
        }
        let mut block = vec![0; len];
        self.input.read_exact(&mut block).map_err(io("read the snapshot"))?;
        let expected = self.read_u32()?;
        if crc32fast::hash(&block) != expected {
            let source = DecodeError::Unknown { what: "checksum", tag: expected.into() };
            return Err(DiskError::Damaged { family: "snapshot", source });
        }
        Ok(block.into())
    }

    fn read_u32(&mut self) -> Result<u32, DiskError> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes).map_err(io("read the snapshot"))?;
        Ok(u32::from_be_bytes(bytes))
    }
}

fn read_record(block: &mut Reader) -> Result<Record, DecodeError> {
    let tag = block.u8("family")?;
    let family = Family::REPLICATED.get(usize::from(tag));
    let family = *family.ok_or(DecodeError::Unknown { what: "family", tag: tag.into() })?;
    Ok((family, block.bytes("key")?, block.bytes("value")?))
}

fn io(operation: &'static str) -> impl Fn(std::io::Error) -> DiskError {
    move |error| DiskError::Engine { operation, message: error.to_string() }
}
