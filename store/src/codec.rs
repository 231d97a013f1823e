//! The byte format of everything we write ourselves: fixed big-endian integers and length-prefixed
//! byte strings, read back with bounds checks.
//!
//! A decoder never panics and never allocates more than the input holds. It doesn't know what the
//! fields mean; versions and checksums are its callers' concern.

use bytes::{Buf, Bytes};

/// What is wrong with encoded bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Ends before a field does.
    #[error("the bytes end inside {0}")]
    Truncated(&'static str),
    /// A tag or version that this program doesn't know.
    #[error("unknown {what} {tag}")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Its value.
        tag: u64,
    },
    /// Bytes after the last field.
    #[error("{0} bytes are left after the last field")]
    Trailing(usize),
}

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// A writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A length in four bytes, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).expect("fields are far below 4 GiB by the request limits"));
        self.raw(value)
    }

    /// Just the bytes; for the last field or a fixed length.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.out.extend_from_slice(value);
        self
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Takes fields off the front of a buffer.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`; byte strings share its allocation.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { rest: bytes.into() }
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(1, what)?;
        Ok(self.rest.get_u8())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.need(4, what)?;
        Ok(self.rest.get_u32())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(8, what)?;
        Ok(self.rest.get_u64())
    }

    /// A length-prefixed byte string.
    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.u32(what)? as usize;
        self.need(len, what)?;
        Ok(self.rest.split_to(len))
    }

    /// A length-prefixed string; invalid UTF-8 is replaced, it is only ever shown.
    pub fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        Ok(String::from_utf8_lossy(&self.bytes(what)?).into_owned())
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything that is left.
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }

    fn need(&self, len: usize, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.len() < len { Err(DecodeError::Truncated(what)) } else { Ok(()) }
    }
}
