//! Making the directory of a new cluster's member from a backup.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::{BackupError, Manifest, io_error, read, verify};
use crate::config::{ClusterId, Limits};
use crate::disk::{Disk, Durability};
use crate::failpoint::failpoint;
use crate::kv::{MemberId, Revision};
use crate::membership::{MemberInfo, Membership};
use crate::mvcc::family::Family;
use crate::mvcc::state::{self, Head};
use crate::mvcc::view::Batch;
use crate::raft::persist::{self, Identity};
use crate::rocks::Rocks;

/// Added to the newest revision of a backup by default: more than a cluster issues between two backups.
pub const BUMP_REVISION: u64 = 1_000_000_000;

/// Bytes of records written at once while restoring.
const RESTORE_BATCH_BYTES: usize = 1 << 20;

/// What a backup becomes.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The new member's directory; must be empty or not exist.
    pub dir: PathBuf,
    /// The new member.
    pub id: MemberId,
    /// The new cluster; must differ from the old one, and be equal for all its members.
    pub cluster: ClusterId,
    /// All voters of the new cluster with their peer addresses, this one included; equal for all.
    pub peers: BTreeMap<MemberId, String>,
    /// Added to the newest revision. At least [`BUMP_REVISION`] unless you know better.
    pub bump_revision: u64,
    /// Forget all history, so that old watchers must read again.
    pub mark_compacted: bool,
}

/// What came of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Of the backup.
    pub manifest: Manifest,
    /// The newest revision now.
    pub revision: Revision,
    /// History at or below this is forgotten now.
    pub compacted: Revision,
}

/// Makes a member's directory from a backup; nothing is left of it if that fails.
///
/// # Errors
/// [`BackupError`] says which file or option is wrong.
pub fn restore(path: &Path, options: &RestoreOptions) -> Result<Restored, BackupError> {
    let manifest = verify(path)?;
    failpoint!("restore_after_verify");
    check_options(&manifest, options)?;
    let partial = partial_dir(&options.dir)?;
    let restored = load(path, &partial, options, &manifest);
    let moved = restored.and_then(|restored| {
        failpoint!("restore_before_rename");
        std::fs::rename(&partial, &options.dir)
            .map_err(io_error(&options.dir, "name the restored directory"))?;
        failpoint!("restore_after_rename");
        sync_parent(&options.dir)?;
        Ok(restored)
    });
    if moved.is_err() {
        // The next attempt removes it, too.
        let _left = std::fs::remove_dir_all(&partial);
    }
    moved
}

fn check_options(manifest: &Manifest, options: &RestoreOptions) -> Result<(), BackupError> {
    let refuse = |why: String| Err(BackupError::Options(why));
    if options.cluster == manifest.cluster {
        return refuse("the new cluster must have another id than the old one".into());
    }
    if !options.peers.contains_key(&options.id) {
        return refuse(format!("member {} is not among the new cluster's peers", options.id));
    }
    if options.peers.keys().any(|id| id.0 == 0) {
        return refuse("member ids start at 1".into());
    }
    if manifest.revision.0.checked_add(options.bump_revision).is_none_or(|sum| sum > i64::MAX as u64) {
        return refuse(format!("revision {} plus {} is too large", manifest.revision, options.bump_revision));
    }
    if std::fs::read_dir(&options.dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(BackupError::NotEmpty { path: options.dir.clone() });
    }
    Ok(())
}

/// A fresh directory beside the one that is wanted.
fn partial_dir(dir: &Path) -> Result<PathBuf, BackupError> {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(".restoring");
    let partial = dir.with_file_name(name);
    if partial.exists() {
        std::fs::remove_dir_all(&partial)
            .map_err(io_error(&partial, "remove what an earlier restore left"))?;
    }
    std::fs::create_dir_all(partial.join("snapshots")).map_err(io_error(&partial, "create the directory"))?;
    Ok(partial)
}

fn sync_parent(dir: &Path) -> Result<(), BackupError> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = File::open(parent).and_then(|parent| parent.sync_all());
    sync.map_err(io_error(parent, "sync the directory"))
}

fn load(
    path: &Path,
    dir: &Path,
    options: &RestoreOptions,
    manifest: &Manifest,
) -> Result<Restored, BackupError> {
    let failed = |source| BackupError::Database { path: dir.to_path_buf(), source };
    let rocks = Rocks::open(&dir.join("db"), &dir.join("snapshots"), &Limits::default()).map_err(failed)?;
    let (mut chunk, mut size) = (Batch::default(), 0);
    read(path, &mut |family, key, value| {
        if family == Family::Meta && state::belongs_to_members(&key) {
            return Ok(());
        }
        size += key.len() + value.len();
        chunk.put(family, &key[..], value);
        if size >= RESTORE_BATCH_BYTES {
            size = 0;
            failpoint!("restore_mid_load");
            rocks.write(&std::mem::take(&mut chunk), Durability::Later)?;
        }
        Ok(())
    })?;
    rocks.write(&chunk, Durability::Later).map_err(failed)?;
    let mut head = Head::load(&rocks).map_err(failed)?;
    head.revision = Revision(manifest.revision.0 + options.bump_revision);
    if options.mark_compacted {
        head.compacted = head.revision;
    }
    failpoint!("restore_before_identity");
    let mut last = Batch::default();
    head.store(&mut last);
    founders(options).store(&mut last);
    persist::begin_after(&mut last, head.index, head.term);
    persist::identify(&mut last, &identity(options));
    rocks.write(&last, Durability::Synced).map_err(failed)?;
    Ok(Restored { manifest: manifest.clone(), revision: head.revision, compacted: head.compacted })
}

fn identity(options: &RestoreOptions) -> Identity {
    Identity { cluster: options.cluster.0, member: options.id }
}

fn founders(options: &RestoreOptions) -> Membership {
    Membership::found(options.peers.iter().map(|(id, address)| MemberInfo::new(*id, address.to_string())))
}
