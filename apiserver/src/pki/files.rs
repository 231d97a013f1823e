//! Certificate files on disk: written whole or not at all, keys readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::PkiError;

const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const PUBLIC_FILE: u32 = 0o644;

/// The two files of one authority.
pub(super) struct Paths {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Paths {
    pub(super) fn new(dir: &Path, stem: &str) -> Self {
        Self { certificate: dir.join(format!("{stem}.crt")), key: dir.join(format!("{stem}.key")) }
    }
}

/// Makes the directory, and its parents, if they are missing.
pub(super) fn ensure_private_dir(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(dir)
        .map_err(|source| io_error("create the directory", dir, source))
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| io_error("read", path, source))
}

pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write_atomically(path, content, PRIVATE_FILE).map_err(|source| io_error("write", path, source))
}

pub(super) fn write_public(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write_atomically(path, content, PUBLIC_FILE).map_err(|source| io_error("write", path, source))
}

/// Writes a private file unless it is there: of several members that start at once, one makes it, and all read
/// the same.
pub(super) fn create_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let own = path.with_extension(format!("new-{}", std::process::id()));
    write_private(&own, content)?;
    let linked = fs::hard_link(&own, path);
    let _ = fs::remove_file(&own); // the name only; what it named stays under the other
    match linked {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(io_error("create", path, source)),
        _ => Ok(()),
    }
}

/// The mode is given at creation, never set later: there is no moment at which others could open a key.
fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let _ = fs::remove_file(&temporary); // left by a crash of a process with our id
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> PkiError {
    PkiError::Io { action, path: path.to_owned(), source }
}
