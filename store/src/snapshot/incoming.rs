//! A snapshot that is being received: its blocks become sorted tables, one or more a family, in a directory
//! of their own.
//!
//! All checking and nearly all work happens here, beside the store's thread; installing is only to take the
//! tables into the database. Until then nothing refers to the directory: whatever is left of one after a
//! crash is removed at the next start.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use rocksdb::{Options, SstFileWriter};
use tokio::sync::mpsc;

use super::SnapshotFile;
use crate::failpoint::failpoint;
use crate::mvcc::family::Family;
use crate::mvcc::view::DiskError;
use crate::rocks::{engine, table_options};

/// A table is closed when it is this large, in bytes. Few and large: they enter the database on the level at
/// which many would stall writes.
const TABLE_BYTES: u64 = 1 << 30;

/// Reads what arrives block by block.
pub struct Arriving {
    blocks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Arriving {
    /// Reads the blocks that come from another task. Blocks while there is none.
    pub fn new(blocks: mpsc::Receiver<Bytes>) -> Self {
        Self { blocks, current: Bytes::new() }
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(block) = self.blocks.blocking_recv() else { return Ok(0) };
            self.current = block;
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Why a snapshot wasn't stored.
#[derive(Debug, thiserror::Error)]
pub enum Unstored {
    /// What came isn't a whole snapshot: a block is damaged, or the end mark is missing.
    #[error("what came isn't a whole snapshot")]
    Broken(#[source] DiskError),
    /// This member's own disk failed, or is full.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Writes a whole snapshot as tables into the new directory `dir`, and syncs them.
///
/// # Errors
/// [`Unstored`]. The directory is then worthless.
pub fn store(dir: &Path, input: impl Read) -> Result<(), Unstored> {
    std::fs::create_dir(dir).map_err(failed("make the directory of a snapshot"))?;
    let options = Family::REPLICATED.map(|family| (family, table_options(family)));
    let mut records = SnapshotFile::new(input);
    let mut table: Option<Table<'_>> = None;
    let mut count = 0;
    while let Some((family, key, value)) = records.next_record().map_err(Unstored::Broken)? {
        if table.as_ref().is_none_or(|table| table.family != family || table.is_full()) {
            if let Some(done) = table.take() {
                done.finish()?;
            }
            let options = options.iter().find(|(of, _)| *of == family).map(|(_, options)| options);
            let options = options.expect("only replicated families are decoded");
            table = Some(Table::begin(dir, family, count, options)?);
            count += 1;
        }
        let open = table.as_mut().expect("just begun");
        open.writer.put(&key, &value).map_err(engine("write a snapshot's table"))?;
    }
    if let Some(done) = table {
        done.finish()?;
    }
    failpoint!("snapshot_before_sync");
    sync(dir)?;
    Ok(sync(dir.parent().unwrap_or(Path::new(".")))?)
}

struct Table<'a> {
    family: Family,
    writer: SstFileWriter<'a>,
}

impl<'a> Table<'a> {
    fn begin(dir: &Path, family: Family, number: u32, options: &'a Options) -> Result<Self, DiskError> {
        let writer = SstFileWriter::create(options);
        let path = dir.join(format!("{}-{number:04}.sst", family.name()));
        writer.open(path).map_err(engine("begin a snapshot's table"))?;
        Ok(Self { family, writer })
    }

    fn is_full(&self) -> bool {
        self.writer.file_size() >= TABLE_BYTES
    }

    /// Also syncs it.
    fn finish(mut self) -> Result<(), DiskError> {
        self.writer.finish().map_err(engine("finish a snapshot's table"))
    }
}

/// The tables of `family` in `dir`, in the order of their keys.
///
/// # Errors
/// If the directory can't be read.
pub fn tables(dir: &Path, family: Family) -> Result<Vec<PathBuf>, DiskError> {
    let prefix = format!("{}-", family.name());
    let entries = std::fs::read_dir(dir).map_err(failed("read the directory of a snapshot"))?;
    let mut tables = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("read the directory of a snapshot"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".sst") {
            tables.push(path);
        }
    }
    tables.sort();
    Ok(tables)
}

/// Removes what earlier snapshots have left in `dir`: files and directories.
pub fn remove_all(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    entries.flatten().for_each(|entry| remove(&entry.path()));
}

/// Removes one received snapshot, if it is there.
pub fn remove(path: &Path) {
    // What can't be removed only takes space; the next start tries again.
    let _left = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

fn sync(dir: &Path) -> Result<(), DiskError> {
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("sync the directory of a snapshot"))
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> DiskError {
    move |error| DiskError::Engine { operation, message: error.to_string() }
}
