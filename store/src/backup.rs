//! Backups: the replicated state of one moment in one file, and new clusters made from it.
//!
//! A backup is a mark, a manifest, the checksummed blocks of a [`crate::snapshot`], zeros up to a multiple of
//! 512 bytes, and the SHA-256 of all of that: `etcdctl snapshot save` takes only a file of that length. [`verify`] reads it all and adds up the live pairs, so a backup that verifies can be restored.
//!
//! [`restore`] makes a member of a **new** cluster: it has its own identity, so that members of the old one
//! never talk to it, and revisions beyond any that the old one can have issued, so that no revision means
//! two things. History is marked as compacted: a watcher that knows only the old cluster has to read again.
//! Leases start again with their full time. Every member of the new cluster restores the same file; their
//! states are then identical.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::chain::chain;
use crate::codec::{DecodeError, Reader, Writer};
use crate::config::ClusterId;
use crate::failpoint::failpoint;
use crate::kv::{MemberId, Revision};
use crate::mvcc::digest;
use crate::mvcc::family::{Family, SCHEMA_VERSION};
use crate::mvcc::state::Head;
use crate::mvcc::view::{DiskError, ReadView};
use crate::snapshot::{self, SnapshotFile};

mod restore;

pub use restore::{BUMP_REVISION, RestoreOptions, Restored, restore};

const MAGIC: &[u8; 8] = b"amoebaB\x01";
const SHA256_BYTES: usize = 32;
/// What precedes the SHA-256 is a multiple of this, as in etcd, whose pages begin on sectors.
const SECTOR_BYTES: u64 = 512;
/// A manifest is never larger.
const MAX_MANIFEST_BYTES: usize = 64 << 10;
/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose data it is.
    pub cluster: ClusterId,
    /// Who made it.
    pub member: MemberId,
    /// Raft's term of the last applied entry.
    pub term: u64,
    /// Raft's index of the last applied entry.
    pub index: u64,
    /// The newest revision in it.
    pub revision: Revision,
    /// History at or below this is not in it.
    pub compacted: Revision,
    /// The members' common digest at `index`.
    pub digest: u64,
    /// What all live pairs add up to.
    pub live_digest: u64,
    /// The layout of the records.
    pub schema: u32,
    /// The version of the program that made it.
    pub program: String,
}

/// Why a backup can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or directory can't be read or made.
    #[error("{}: can't {attempted}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It isn't whole.
    #[error("{}: the backup is damaged ({why}); use another one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another program's, or a newer one's.
    #[error("{}: the backup has schema {found}, but this program knows {known}; use version {program} or later",
        path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
        /// Who made it.
        program: String,
    },
    /// There is something already.
    #[error("{}: the directory is not empty; choose a new one or remove it", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The options contradict each other.
    #[error("can't restore: {0}")]
    Options(String),
    /// The new database can't be written.
    #[error("{}: can't write the restored database", path.display())]
    Database {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: DiskError,
    },
}

impl Manifest {
    /// The manifest of a view.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub(crate) fn of(view: &impl ReadView, cluster: u64, member: MemberId) -> Result<Self, DiskError> {
        let head = Head::load(view)?;
        Ok(Self {
            cluster: ClusterId(cluster),
            member,
            term: head.term,
            index: head.index,
            revision: head.revision,
            compacted: head.compacted,
            digest: head.fingerprint(),
            live_digest: head.live,
            schema: SCHEMA_VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(128);
        // The schema first: whoever doesn't know it needs nothing else but the program's version.
        out.u32(self.schema).bytes(self.program.as_bytes());
        out.u64(self.cluster.0).u64(self.member.0).u64(self.term).u64(self.index);
        out.u64(self.revision.0).u64(self.compacted.0).u64(self.digest).u64(self.live_digest);
        out.finish()
    }

    fn decode(input: &mut Reader, schema: u32, program: String) -> Result<Self, DecodeError> {
        Ok(Self {
            schema,
            program,
            cluster: ClusterId(input.u64("cluster")?),
            member: MemberId(input.u64("member")?),
            term: input.u64("term")?,
            index: input.u64("index")?,
            revision: Revision(input.u64("revision")?),
            compacted: Revision(input.u64("compacted")?),
            digest: input.u64("digest")?,
            live_digest: input.u64("live digest")?,
        })
    }
}

/// Writes the backup of a view, block by block.
///
/// # Errors
/// If the view can't be read, or what `out` returns.
pub(crate) fn write(
    view: &impl ReadView,
    manifest: &Manifest,
    out: &mut dyn FnMut(Bytes) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut hashed = |block: Bytes| {
        hash.update(&block);
        length += block.len() as u64;
        out(block)
    };
    failpoint!("backup_before_manifest");
    hashed(Bytes::from_static(MAGIC))?;
    hashed(snapshot::frame(&manifest.encode()).into())?;
    snapshot::encode(view, &mut |block| {
        failpoint!("backup_mid_blocks");
        hashed(Bytes::copy_from_slice(block))
    })?;
    failpoint!("backup_before_sum");
    let padding = Bytes::from(vec![0; padding(length)]);
    hash.update(&padding);
    out(padding)?;
    out(Bytes::copy_from_slice(&hash.finalize()))
}

/// Zeros after `length` bytes.
fn padding(length: u64) -> usize {
    let rest = length.next_multiple_of(SECTOR_BYTES) - length;
    usize::try_from(rest).expect("less than a sector")
}

/// Reads a whole backup and checks everything about it.
///
/// # Errors
/// If it can't be read, isn't whole, or is of a schema that this program doesn't know.
pub fn verify(path: &Path) -> Result<Manifest, BackupError> {
    read(path, &mut |_, _, _| Ok(()))
}

/// Called with each record.
type VisitRecord<'a> = dyn FnMut(Family, Bytes, Bytes) -> Result<(), DiskError> + 'a;

/// Reads a backup from start to end, and checks it.
fn read(path: &Path, visit: &mut VisitRecord<'_>) -> Result<Manifest, BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: path.to_path_buf(), why };
    let file = File::open(path).map_err(io_error(path, "open the backup"))?;
    let mut input =
        Hashing { input: BufReader::with_capacity(256 << 10, file), hash: Sha256::new(), length: 0 };
    let manifest = read_manifest(path, &mut input)?;
    let mut live = 0_u64;
    let mut records = SnapshotFile::new(&mut input);
    while let Some((family, key, value)) = records.next_record().map_err(|e| damaged(chain(&e)))? {
        if family == Family::Latest {
            let sum = digest::record(&key, &value).map_err(|e| damaged(chain(&e)))?;
            live = live.wrapping_add(sum);
        }
        visit(family, key, value)
            .map_err(|source| BackupError::Database { path: path.to_path_buf(), source })?;
    }
    let mut zeros = vec![0; padding(input.length)];
    input.read_exact(&mut zeros).map_err(|_| damaged("it ends before its SHA-256".into()))?;
    let found = input.hash.finalize();
    let mut sum = [0; SHA256_BYTES];
    input.input.read_exact(&mut sum).map_err(|_| damaged("it ends before its SHA-256".into()))?;
    if sum != *found {
        return Err(damaged("its SHA-256 doesn't match".into()));
    }
    if input.input.read(&mut [0]).map_err(io_error(path, "read the backup"))? > 0 {
        return Err(damaged("there are bytes after its end".into()));
    }
    if live != manifest.live_digest {
        return Err(damaged("its pairs don't add up to the manifest's digest".into()));
    }
    Ok(manifest)
}

fn read_manifest(path: &Path, input: &mut impl Read) -> Result<Manifest, BackupError> {
    let damaged = |why: &str| BackupError::Damaged { path: path.to_path_buf(), why: why.into() };
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic).map_err(|_| damaged("it is too short"))?;
    if magic != *MAGIC {
        return Err(damaged("it isn't a backup of this program"));
    }
    let mut reader = SnapshotFile::new(input);
    let block = reader.next_block().map_err(|error| damaged(&chain(&error)))?;
    if block.len() > MAX_MANIFEST_BYTES {
        return Err(damaged("its manifest is too long"));
    }
    let mut fields = Reader::new(block);
    let unreadable = |error: DecodeError| damaged(&error.to_string());
    let schema = fields.u32("schema").map_err(unreadable)?;
    let program = fields.text("program").map_err(unreadable)?;
    if schema != SCHEMA_VERSION {
        let path = path.to_path_buf();
        return Err(BackupError::Schema { path, found: schema, known: SCHEMA_VERSION, program });
    }
    Manifest::decode(&mut fields, schema, program).map_err(unreadable)
}

/// Hashes what is read through it.
struct Hashing<R> {
    input: R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

fn io_error(path: &Path, attempted: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| BackupError::Io { path, attempted, source }
}
