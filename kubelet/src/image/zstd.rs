//! Contents that are compressed with zstd: frames one after the other, of which some hold nothing.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What all frames of a stream hold together.
pub struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Frames<R> {
    /// From the first byte of a frame.
    pub fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame; `false` if there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(invalid(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.begin()? {
                return Ok(0);
            }
            self.in_frame = true;
            if self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let next = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, next).map_err(invalid)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.in_frame = !self.decoder.is_finished();
        }
    }
}

fn invalid(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn frames_are_one_stream() {
        // By zstd 1.5.4: two frames, and one between them that is to be skipped.
        let compressed = bytes(
            "28b52ffd04585900006f6e65206672616d652c2084d8bff1502a4d180300000061626328b52ffd0068590000616e6420616e6f74686572",
        );
        let mut text = String::new();
        Frames::new(&compressed[..]).read_to_string(&mut text).expect("whole");
        assert_eq!(text, "one frame, and another");
        let cut = Frames::new(&compressed[..compressed.len() - 3]).read_to_string(&mut text);
        assert!(cut.is_err(), "half of a frame is no frame");
        let garbage = Frames::new(&b"no frame at all"[..]).read_to_string(&mut text);
        assert_eq!(garbage.expect_err("garbage").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_long_comes_in_parts() {
        let long: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7 % 251) as u8).collect();
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let compressed = ruzstd::encoding::compress_to_vec(&long[..], level);
        let mut read = Vec::new();
        Frames::new(&compressed[..]).read_to_end(&mut read).expect("whole");
        assert!(read == long);
    }
}
