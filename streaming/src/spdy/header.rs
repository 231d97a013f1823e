//! Header blocks: lists of names and values, compressed in one stream over all blocks of a connection.

use flate2::{Decompress, FlushDecompress, Status};

use crate::Malformed;
use crate::spdy::dictionary::{CHECKSUM, dictionary};

/// The largest block, unpacked, in bytes. A stream's headers here are a hundred.
const LONGEST: usize = 16 << 10;
/// The bit in a zlib stream's second byte that says that a dictionary is named.
const HAS_DICTIONARY: u8 = 0x20;

/// Names, in small letters, and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of this name; the first one, if there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        found.1.split('\0').next()
    }

    /// Reads an unpacked block.
    fn parse(mut block: &[u8]) -> Result<Self, Malformed> {
        let count = number(&mut block)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            // Each takes bytes of the block, so a count that lies ends in an error soon.
            headers.push((text(&mut block)?, text(&mut block)?));
        }
        match block {
            [] => Ok(Self(headers)),
            _ => Err(Malformed("a header block is longer than its headers")),
        }
    }
}

fn number(block: &mut &[u8]) -> Result<u32, Malformed> {
    let (number, rest) = block.split_first_chunk().ok_or(Malformed("a header block is cut off"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Result<String, Malformed> {
    let length = usize::try_from(number(block)?).unwrap_or(usize::MAX);
    let (text, rest) = block.split_at_checked(length).ok_or(Malformed("a header block is cut off"))?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Malformed("a header is no text"))
}

/// Unpacks the blocks of one connection, in order.
#[derive(Debug)]
pub struct Unpacker {
    inflate: Decompress,
    /// The head of the compressed stream was read.
    begun: bool,
}

impl Default for Unpacker {
    /// Inflating goes on from a dictionary as if it had been sent, uncompressed, before all else. So it is
    /// fed that way: no support for dictionaries is asked of the library.
    fn default() -> Self {
        let mut inflate = Decompress::new(false);
        let mut unpacked = Vec::with_capacity(2048);
        let fed = inflate.decompress_vec(&stored(&dictionary()), &mut unpacked, FlushDecompress::Sync);
        assert!(fed.is_ok() && unpacked == dictionary(), "a stored block is its own content");
        Self { inflate, begun: false }
    }
}

impl Unpacker {
    /// Unpacks the next block.
    ///
    /// # Errors
    /// If it is none, or is too long.
    pub fn unpack(&mut self, mut packed: &[u8]) -> Result<Headers, Malformed> {
        if !std::mem::replace(&mut self.begun, true) {
            packed = skip_head(packed)?;
        }
        let mut block = Vec::with_capacity(LONGEST);
        let before = self.inflate.total_in();
        let done = self.inflate.decompress_vec(packed, &mut block, FlushDecompress::Sync);
        let taken = self.inflate.total_in() - before;
        match done {
            Ok(Status::StreamEnd) => Err(Malformed("the stream of headers has ended")),
            Ok(_) if taken == packed.len() as u64 && block.len() < LONGEST => Headers::parse(&block),
            Ok(_) => Err(Malformed("a header block is too long")),
            Err(_) => Err(Malformed("a header block can't be unpacked")),
        }
    }
}

/// The head of a zlib stream (RFC 1950): two bytes, and the dictionary's checksum.
fn skip_head(packed: &[u8]) -> Result<&[u8], Malformed> {
    let [method, flags, rest @ ..] = packed else { return Err(Malformed("a header block is cut off")) };
    if method & 0x0f != 8 || !u16::from_be_bytes([*method, *flags]).is_multiple_of(31) {
        return Err(Malformed("a header block isn't compressed as agreed"));
    }
    if flags & HAS_DICTIONARY == 0 {
        return Ok(rest);
    }
    match rest.split_first_chunk() {
        Some((checksum, rest)) if u32::from_be_bytes(*checksum) == CHECKSUM => Ok(rest),
        _ => Err(Malformed("a header block is compressed against another dictionary")),
    }
}

/// A block of a deflate stream that holds bytes as they are (RFC 1951, section 3.2.4).
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short by construction");
    [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), bytes].concat()
}

/// Packs the blocks of one connection. What we have to say is short, so nothing is compressed: each block is
/// stored. An empty one follows, as from a compressor that is flushed: Go's inflater hands out what it has only
/// then, and takes the end of a frame without one for the end of the stream.
#[derive(Debug, Default)]
pub struct Packer {
    begun: bool,
}

impl Packer {
    /// A block without headers.
    pub fn empty(&mut self) -> Vec<u8> {
        self.pack(&[])
    }

    /// A block with these headers, whose names are in small letters.
    pub fn pack(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).expect("short by construction").to_be_bytes();
        let mut block = number(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&number(text.len()));
            block.extend_from_slice(text.as_bytes());
        }
        let head: &[u8] = if std::mem::replace(&mut self.begun, true) { &[] } else { &[0x78, 0x01] };
        [head, &stored(&block), &stored(&[])].concat()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// A client's side: deflates in one stream.
    pub(crate) struct Client(Compress, bool);

    impl Default for Client {
        fn default() -> Self {
            Self(Compress::new(Compression::default(), false), false)
        }
    }

    impl Client {
        pub(crate) fn pack(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            let mut block = (headers.len() as u32).to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                block.extend_from_slice(&(text.len() as u32).to_be_bytes());
                block.extend_from_slice(text.as_bytes());
            }
            let mut packed = Vec::with_capacity(2 * block.len() + 64);
            self.0.compress_vec(&block, &mut packed, FlushCompress::Sync).expect("deflate");
            let head: &[u8] = if std::mem::replace(&mut self.1, true) { &[] } else { &[0x78, 0x9c] };
            [head, &packed].concat()
        }
    }

    /// Two blocks of one stream as kubectl port-forward sends them, deflated against the dictionary by zlib
    /// itself (level 9, a sync flush after each block).
    const FROM_ZLIB: [&str; 2] = [include_str!("testdata/first.hex"), include_str!("testdata/second.hex")];

    fn from_hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.trim().bytes().collect();
        let pair =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex");
        digits.chunks(2).map(pair).collect()
    }

    #[test]
    fn blocks_packed_against_the_dictionary_are_unpacked_in_order() {
        let mut unpacker = Unpacker::default();
        let first = unpacker.unpack(&from_hex(FROM_ZLIB[0])).expect("a block");
        assert_eq!((first.get("streamtype"), first.get("port")), (Some("error"), Some("8080")));
        let second = unpacker.unpack(&from_hex(FROM_ZLIB[1])).expect("a block");
        assert_eq!((second.get("StreamType"), second.get("requestid")), (Some("data"), Some("0")));
        assert_eq!(second.get("method"), None);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let ok = Client::default().pack(&[("a", "b")]);
        let long = "x".repeat(LONGEST);
        let cases = [
            vec![],
            vec![0x78],
            vec![0x79, 0x9c],
            vec![0x78, 0xbb, 1, 2, 3, 4],
            ok[..ok.len() - 8].to_vec(),
            Client::default().pack(&[("a", &long)]),
        ];
        for case in cases {
            assert!(Unpacker::default().unpack(&case).is_err(), "{case:?}");
        }
        let lying = [&[0x78, 0x01][..], &stored(&u32::MAX.to_be_bytes())].concat();
        assert_eq!(Unpacker::default().unpack(&lying), Err(Malformed("a header block is cut off")));
    }

    #[test]
    fn our_own_blocks_can_be_read() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for _ in 0..3 {
            let block = packer.empty();
            assert!(block.ends_with(&[0, 0, 0, 0xff, 0xff]), "flushed: {block:?}");
            assert_eq!(unpacker.unpack(&block), Ok(Headers::default()));
        }
    }

    proptest! {
        #[test]
        fn any_headers_come_as_they_went(names in prop::collection::vec("[a-z]{1,20}", 0..8), value in "\\PC{0,50}") {
            let (mut client, mut unpacker) = (Client::default(), Unpacker::default());
            for round in 0..3 {
                let headers: Vec<_> = names.iter().take(8 - round).map(|name| (name.as_str(), value.as_str())).collect();
                let unpacked = unpacker.unpack(&client.pack(&headers)).expect("a block");
                let want = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                prop_assert_eq!(unpacked, Headers(want));
            }
        }

        #[test]
        fn any_bytes_are_headers_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Unpacker::default().unpack(&bytes);
            let _ = Unpacker::default().unpack(&[&[0x78, 0x9c][..], &bytes].concat());
        }
    }
}
