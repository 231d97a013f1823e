//! Archives of images, as `docker save`, `podman save`, `skopeo` and `crane` write them: plain or compressed tar
//! files that hold an OCI layout, Docker's own layout, or both.
//!
//! An archive's parts come in any order, so it is first laid out in a directory.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::image::unpack::unpack;
use crate::image::zstd::Frames;
use crate::image::{ImageError, system};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What is inside a file or stream, whether or not it is compressed, by gzip or zstd.
pub fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut magic = Vec::new();
    reader.by_ref().take(ZSTD.len() as u64).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(reader);
    Ok(match () {
        () if magic == ZSTD => Box::new(Frames::new(whole)),
        () if magic.starts_with(&GZIP) => Box::new(MultiGzDecoder::new(whole)),
        () => Box::new(whole),
    })
}

/// Lays an archive out in a directory, which exists and is empty.
pub fn lay_out(archive: impl Read, dir: &Path) -> Result<(), ImageError> {
    let plain = decompress(archive).map_err(system("read the archive into", dir))?;
    unpack(plain, dir).map_err(|why| {
        let wanted = "an archive as `docker save` writes it, or of an OCI layout";
        ImageError::Malformed(format!("unpack the archive: {why} (it has to be {wanted})"))
    })
}

/// The archive in this file.
pub fn open(path: &Path) -> Result<File, ImageError> {
    File::open(path).map_err(system("open", path))
}
