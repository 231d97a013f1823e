//! The real disk: one RocksDB with a family per kind of record and one write-ahead log for all.
//!
//! Because all families share the log, an unsynced batch becomes durable with the next synced one and
//! nothing overtakes anything: the applied index never runs ahead of its data. A write error is never
//! retried; the caller must stop the process.
//!
//! A snapshot is installed behind a marker with everything needed to finish: a crash in the middle is
//! finished at the next open, before anyone reads.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

use crate::config::Limits;
use crate::disk::{Disk, Durability};
use crate::failpoint::failpoint;
use crate::mvcc::family::Family;
use crate::mvcc::view::{Batch, DiskError, ReadView, Visit};
use crate::snapshot::incoming;
use crate::space::Filesystem;

mod install;
mod options;
mod recent;

use install::encode_marker;
pub use options::table_options;
use options::{db_options, family_options};
use recent::Recent;

const INSTALLING_KEY: &[u8] = b"installing";
/// What a write batch takes for a record besides its key and value: kind, family and two lengths.
const RECORD_OVERHEAD: usize = 8;
/// How long opening again waits for those who read; a long reader (a backup) puts it off.
const READERS_LEAVE: Duration = Duration::from_millis(200);
/// Keys in a row of which half must be deletions for a file to be compacted at once.
const DELETION_WINDOW: usize = 4096;

/// The member's database. Clones share it.
#[derive(Clone)]
pub struct Rocks {
    shared: Arc<Shared>,
}

struct Shared {
    setup: Setup,
    /// Replaced when the database is opened again.
    open: RwLock<Arc<Inner>>,
}

/// What opening takes.
struct Setup {
    dir: PathBuf,
    limits: Limits,
}

/// How a database is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

struct Inner {
    /// `None` only while it is opened again, when nobody else has this value.
    db: Option<DB>,
    snapshots: PathBuf,
    /// Held for writing while a snapshot is installed: nobody sees half of one.
    installing: RwLock<()>,
    /// What was written to `latest` last.
    recent: Mutex<Recent>,
}

/// The database at one moment. Keeps it open.
pub struct RocksView {
    /// Borrows from the database in `inner`, so it stands before it: fields are dropped in order.
    snapshot: Snapshot<'static>,
    inner: Arc<Inner>,
    fills_cache: bool,
}

impl Rocks {
    /// Opens or creates the database in `dir`, and finishes an interrupted snapshot installation whose
    /// file is in `snapshots`.
    ///
    /// # Errors
    /// If RocksDB can't open it, or the interrupted installation can't be finished.
    pub fn open(dir: &Path, snapshots: &Path, limits: &Limits) -> Result<Self, DiskError> {
        let setup = Setup { dir: dir.to_path_buf(), limits: *limits };
        let inner = Inner {
            db: Some(setup.open(Access::Write)?),
            snapshots: snapshots.into(),
            installing: RwLock::new(()),
            recent: Mutex::new(Recent::new(limits.recent_pairs_bytes)),
        };
        inner.finish_install()?;
        Ok(Self { shared: Arc::new(Shared { setup, open: RwLock::new(Arc::new(inner)) }) })
    }

    /// Closes the database and opens it again, as a new process would, after a write has failed for want of
    /// space. False if it can't be done now: someone reads, or there is still no space; reading goes on then.
    ///
    /// # Errors
    /// If the database can't be opened for any other reason.
    #[expect(clippy::disallowed_methods, reason = "nothing tells when the last reader is done")]
    pub fn reopen(&self) -> Result<bool, DiskError> {
        let mut open = self.shared.open.write();
        // Readers hold their own reference until they are done; new ones wait for the lock meanwhile. Nothing
        // tells when the last one is done, so it is looked for, for a short time.
        let deadline = Instant::now() + READERS_LEAVE;
        while Arc::get_mut(&mut open).is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let Some(inner) = Arc::get_mut(&mut open) else { return Ok(false) };
        inner.db = None;
        inner.recent.lock().clear();
        let opened = self.shared.setup.open(Access::Write).and_then(|db| {
            inner.db = Some(db);
            inner.finish_install()
        });
        match opened {
            Ok(()) => Ok(true),
            Err(error) if error.is_no_space() => {
                inner.db = None;
                inner.db = Some(self.shared.setup.open(Access::Read)?);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The database as it is now. Waits while a snapshot is being installed.
    pub fn view(&self) -> RocksView {
        let inner = self.current();
        let whole = inner.installing.read();
        let snapshot = inner.db().snapshot();
        // SAFETY: only the lifetime changes. The snapshot refers to the `DB` inside the `Arc`, which the view
        // owns beside it and drops after it; `Arc::get_mut`, the only way to replace that `DB`, fails as long
        // as the view lives.
        let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
        drop(whole);
        RocksView { snapshot, inner, fills_cache: true }
    }

    /// Like [`Rocks::view`], for reading a lot once: what is read doesn't push other blocks out of the cache.
    pub fn view_aside(&self) -> RocksView {
        RocksView { fills_cache: false, ..self.view() }
    }

    /// Bytes of history on disk, estimated.
    pub fn history_bytes(&self) -> u64 {
        self.current().property(Family::History, "rocksdb.total-sst-files-size")
    }

    /// What all files of the database take, and what of it is live, estimated; bytes.
    pub fn size(&self) -> (u64, u64) {
        let inner = self.current();
        let sum = |property: &str| -> u64 {
            Family::ALL.into_iter().map(|family| inner.property(family, property)).sum()
        };
        let memory = sum("rocksdb.cur-size-all-mem-tables");
        // What is only in memory yet stands in the write-ahead log.
        (sum("rocksdb.total-sst-files-size") + memory, sum("rocksdb.estimate-live-data-size") + memory)
    }

    /// Free bytes on the filesystem.
    ///
    /// # Errors
    /// If the system can't say.
    pub fn free_bytes(&self) -> Result<u64, DiskError> {
        let failed = |error: std::io::Error| DiskError::Engine {
            operation: "ask for free space",
            message: error.to_string(),
        };
        Ok(Filesystem::of(&self.shared.setup.dir).map_err(failed)?.free_bytes)
    }

    fn current(&self) -> Arc<Inner> {
        self.shared.open.read().clone()
    }
}

impl Setup {
    fn open(&self, access: Access) -> Result<DB, DiskError> {
        let cache = Cache::new_lru_cache(self.limits.block_cache_bytes);
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache, &self.limits))
        });
        let options = db_options(&self.limits);
        match access {
            Access::Write => DB::open_cf_descriptors(&options, &self.dir, families),
            Access::Read => DB::open_cf_descriptors_read_only(&options, &self.dir, families, false),
        }
        .map_err(engine("open the database"))
    }
}

impl Inner {
    fn db(&self) -> &DB {
        self.db.as_ref().expect("only `reopen` closes it, and it has the value for itself")
    }

    fn property(&self, family: Family, name: &str) -> u64 {
        self.db().property_int_value_cf(self.family(family), name).ok().flatten().unwrap_or(0)
    }

    fn read(&self, family: Family, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, DiskError> {
        let value = self.db().get_cf_opt(self.family(family), key, options).map_err(engine("read"))?;
        Ok(value.map(Bytes::from))
    }

    fn walk(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        mut options: ReadOptions,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = self.db().raw_iterator_cf_opt(self.family(family), options);
        iterator.seek(start);
        while let Some((key, value)) = iterator.item() {
            if visit(key, value)? == ControlFlow::Break(()) {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(engine("scan"))
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db().cf_handle(family.name()).expect("every family is opened with the database")
    }

    fn to_write_batch(&self, batch: &Batch) -> WriteBatch {
        let size =
            |key: &[u8], value: Option<&Bytes>| RECORD_OVERHEAD + key.len() + value.map_or(0, Bytes::len);
        let bytes = batch.writes().map(|(_, key, value)| size(key, value)).sum();
        let mut out = WriteBatch::with_capacity_bytes(bytes);
        // Looked up once for each family, not for each record; they come in order of family.
        let mut last = None;
        for (family, key, value) in batch.writes() {
            let handle = match last {
                Some((known, handle)) if known == family => handle,
                _ => self.family(family),
            };
            last = Some((family, handle));
            match value {
                Some(value) => out.put_cf(handle, key, value),
                None => out.delete_cf(handle, key),
            }
        }
        out
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<(), DiskError> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.db().write_opt(batch, &options).map_err(engine("write"))
    }

    fn remember(&self, batch: &Batch) {
        let mut recent = self.recent.lock();
        batch.writes_to(Family::Latest).for_each(|(key, record)| recent.put(key, record));
    }
}

impl Disk for Rocks {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), DiskError> {
        let inner = self.current();
        inner.commit(inner.to_write_batch(batch), durability)?;
        inner.remember(batch);
        Ok(())
    }

    fn install(&self, snapshot: &[u8], batch: &Batch) -> Result<(), DiskError> {
        let name = String::from_utf8_lossy(snapshot).into_owned();
        let inner = self.current();
        // Every block was checked when it came; without its tables nothing may be touched.
        if incoming::tables(&inner.snapshots.join(&name), Family::Meta)?.is_empty() {
            return Err(DiskError::Missing("the table of a snapshot"));
        }
        let mut marker = Batch::default();
        marker.put(Family::Raft, INSTALLING_KEY, encode_marker(&name, batch));
        let _alone = inner.installing.write();
        failpoint!("install_before_marker");
        self.write(&marker, Durability::Synced)?;
        failpoint!("install_after_marker");
        inner.load(&name, batch)
    }
}

impl ReadView for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        let inner = self.current();
        let known = if family == Family::Latest { inner.recent.lock().get(key) } else { None };
        known.map_or_else(|| inner.read(family, key, &ReadOptions::default()), Ok)
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        self.current().walk(family, start, end, ReadOptions::default(), visit)
    }
}

impl RocksView {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options.fill_cache(self.fills_cache);
        options
    }
}

impl ReadView for RocksView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.inner.read(family, key, &self.options())
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        self.inner.walk(family, start, end, self.options(), visit)
    }
}

/// An error of the engine, as ours.
pub fn engine(operation: &'static str) -> impl Fn(rocksdb::Error) -> DiskError {
    move |error| DiskError::Engine { operation, message: error.into_string() }
}
