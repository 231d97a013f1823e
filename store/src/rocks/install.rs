//! Taking a snapshot in, behind a marker with everything that is needed to finish.

use std::path::PathBuf;

use bytes::Bytes;
use rocksdb::{IngestExternalFileOptions, ReadOptions, WriteBatch};

use super::{INSTALLING_KEY, Inner, engine};
use crate::codec::{DecodeError, Reader, Writer};
use crate::disk::Durability;
use crate::failpoint::failpoint;
use crate::mvcc::family::Family;
use crate::mvcc::view::{Batch, DiskError};
use crate::snapshot::incoming;

impl Inner {
    pub(super) fn finish_install(&self) -> Result<(), DiskError> {
        let marker = self.read(Family::Raft, INSTALLING_KEY, &ReadOptions::default())?;
        let Some(marker) = marker else { return Ok(()) };
        let (name, batch) = decode_marker(marker).map_err(DiskError::damaged(Family::Raft))?;
        tracing::info!(file = %name, "finishing the installation of a snapshot");
        failpoint!("install_finish_at_start");
        self.load(&name, &batch)
    }

    /// Replaces the replicated families by the snapshot's tables, then writes `last`. Can be done again after
    /// a crash at any point: the tables stay until the end.
    pub(super) fn load(&self, name: &str, last: &Batch) -> Result<(), DiskError> {
        let dir = self.snapshots.join(name);
        let mut clear = WriteBatch::default();
        for family in Family::REPLICATED.into_iter().chain([Family::Log]) {
            // No key is that long or high: user keys are at most MAX_KEY_BYTES of text, the rest fixed.
            clear.delete_range_cf(self.family(family), &[][..], &[0xff; 64][..]);
        }
        self.recent.lock().clear();
        self.commit(clear, Durability::Later)?;
        failpoint!("install_after_clear");
        for family in Family::REPLICATED {
            self.ingest(family, incoming::tables(&dir, family)?)?;
            failpoint!("install_mid_load");
        }
        let mut last = self.to_write_batch(last);
        last.delete_cf(self.family(Family::Raft), INSTALLING_KEY);
        failpoint!("install_before_finish");
        self.commit(last, Durability::Synced)?;
        failpoint!("install_after_finish");
        // If it stays, the next start removes it.
        incoming::remove(&dir);
        Ok(())
    }

    /// Takes tables into the database by a second name each: no byte is copied, and the first names stay for
    /// a repetition. Where the filesystem has no links, they are copied.
    fn ingest(&self, family: Family, tables: Vec<PathBuf>) -> Result<(), DiskError> {
        if tables.is_empty() {
            return Ok(());
        }
        let links: Vec<PathBuf> = tables.iter().map(|table| table.with_extension("link")).collect();
        let link = |(table, link): (&PathBuf, &PathBuf)| {
            // Of an earlier attempt.
            let _none = std::fs::remove_file(link);
            std::fs::hard_link(table, link).is_ok()
        };
        let linked = tables.iter().zip(&links).all(link);
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(linked);
        let paths = if linked { links } else { tables };
        let ingested = self.db().ingest_external_file_cf_opts(self.family(family), &options, paths);
        ingested.map_err(engine("take in a snapshot's tables"))
    }
}

pub(super) fn encode_marker(name: &str, batch: &Batch) -> Vec<u8> {
    let mut out = Writer::with_capacity(256);
    out.bytes(name.as_bytes());
    for (family, key, value) in batch.writes() {
        let tag = Family::ALL.iter().position(|f| *f == family).expect("ALL has every family");
        out.u8(u8::try_from(tag).expect("there are few families")).bytes(key);
        match value {
            Some(value) => out.u8(1).bytes(value),
            None => out.u8(0),
        };
    }
    out.finish()
}

fn decode_marker(marker: Bytes) -> Result<(String, Batch), DecodeError> {
    let mut input = Reader::new(marker);
    let name = input.text("file name")?;
    let mut batch = Batch::default();
    while input.remaining() > 0 {
        let tag = input.u8("family")?;
        let family = *Family::ALL
            .get(usize::from(tag))
            .ok_or(DecodeError::Unknown { what: "family", tag: tag.into() })?;
        let key = input.bytes("key")?.to_vec();
        match input.u8("presence")? {
            0 => batch.delete(family, key),
            _ => batch.put(family, key, input.bytes("value")?),
        }
    }
    Ok((name, batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::disk::Disk;
    use crate::mvcc::view::ReadView;
    use crate::rocks::Rocks;

    /// Wherever the first attempt stopped: the next open finishes it.
    #[test]
    fn an_interrupted_installation_is_finished_at_the_next_open() {
        for stage in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let snapshots = dir.path().join("snapshots");
            std::fs::create_dir(&snapshots).unwrap();
            let open = || Rocks::open(&dir.path().join("db"), &snapshots, &Limits::default()).unwrap();
            let rocks = open();
            let mut batch = Batch::default();
            batch.put(Family::Meta, *b"new", Bytes::from_static(b"1"));
            batch.put(Family::Latest, *b"key", Bytes::from_static(b"2"));
            rocks.write(&batch, Durability::Later).unwrap();
            let mut bytes = Vec::new();
            let mut collect = |block: &[u8]| {
                bytes.extend_from_slice(block);
                Ok(())
            };
            crate::snapshot::encode(&rocks.view(), &mut collect).unwrap();
            incoming::store(&snapshots.join("in"), &bytes[..]).unwrap();
            let mut old = Batch::default();
            old.put(Family::Latest, *b"old", Bytes::new());
            old.delete(Family::Meta, *b"new");
            let mut last = Batch::default();
            last.put(Family::Raft, *b"last", Bytes::from_static(b"3"));
            old.put(Family::Raft, INSTALLING_KEY, encode_marker("in", &last));
            rocks.write(&old, Durability::Synced).unwrap();
            if stage > 0 {
                let tables = incoming::tables(&snapshots.join("in"), Family::Meta).unwrap();
                rocks.current().ingest(Family::Meta, tables).unwrap();
            }
            if stage > 1 {
                let tables = incoming::tables(&snapshots.join("in"), Family::Latest).unwrap();
                rocks.current().ingest(Family::Latest, tables).unwrap();
            }
            drop(rocks);
            let rocks = open();
            assert_eq!(rocks.get(Family::Meta, b"new").unwrap().unwrap(), "1");
            assert_eq!(rocks.get(Family::Latest, b"key").unwrap().unwrap(), "2");
            assert_eq!(rocks.get(Family::Latest, b"old").unwrap(), None);
            assert_eq!(rocks.get(Family::Raft, b"last").unwrap().unwrap(), "3");
            assert_eq!(rocks.get(Family::Raft, INSTALLING_KEY).unwrap(), None);
            assert!(!snapshots.join("in").exists());
        }
    }

    #[test]
    fn a_marker_carries_its_batch() {
        let mut batch = Batch::default();
        batch.put(Family::Raft, *b"hard", Bytes::from_static(b"x"));
        batch.delete(Family::Log, *b"1");
        let (name, back) = decode_marker(encode_marker("f", &batch).into()).unwrap();
        assert_eq!((name.as_str(), back), ("f", batch));
    }
}
