//! What an operator asks of one member: alarms, hashes, sizes and backups.
//!
//! All of it is about this member's own state at this moment and needs no quorum, except disarming,
//! which is a replicated write.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::alarm::{Alarm, AlarmKind};
use crate::backup::{self, Manifest};
use crate::command::Command;
use crate::kv::{KvError, MemberId, Revision};
use crate::mvcc::digest;
use crate::mvcc::read;
use crate::mvcc::state::{Head, State};
use crate::mvcc::view::DiskError;
use crate::rocks::Rocks;
use crate::store::{Store, unreadable};

/// Blocks of a backup on their way to a slow receiver; when full, the backup's thread waits.
const BACKUP_BLOCKS: usize = 8;

/// A hash of history; see [`Store::hash_kv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash of all history from `compacted` to `hashed`.
    pub hash: u32,
    /// Up to where.
    pub hashed: Revision,
    /// History at or below this was gone.
    pub compacted: Revision,
    /// The newest revision.
    pub revision: Revision,
}

/// Bytes of a member's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// What the database's files take.
    pub total_bytes: u64,
    /// What of it is live: the rest is given back by compaction in the background.
    pub in_use_bytes: u64,
    /// Free on the filesystem.
    pub free_bytes: u64,
}

/// A backup on its way: written to a file, the blocks are what [`backup::verify`] reads.
#[derive(Debug)]
pub struct Backup {
    /// What is in it.
    pub manifest: Manifest,
    /// The file's bytes in order. It is whole only if the channel ends without an error.
    pub blocks: mpsc::Receiver<Result<Bytes, KvError>>,
}

impl Store {
    /// All alarms that this member knows of.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn alarms(&self) -> Result<Vec<Alarm>, KvError> {
        let state = State::load(&self.rocks()?.view()).map_err(unreadable)?;
        Ok(state.alarms().collect())
    }

    /// Withdraws an alarm; true if there was one. A member that is still short of space raises it again.
    ///
    /// # Errors
    /// As any write.
    pub async fn disarm(&self, kind: AlarmKind, member: MemberId) -> Result<bool, KvError> {
        let known = self.alarms()?.iter().any(|alarm| alarm.kind == kind && alarm.member == member);
        self.propose(Command::AlarmDisarm { kind, member }).await?;
        Ok(known)
    }

    /// Hashes the history up to `revision`, by default the newest: equal on all members that have the same
    /// compaction. Reads all of it, on a thread for blocking work.
    ///
    /// # Errors
    /// If the revision is compacted or doesn't exist yet, or the disk can't be read.
    pub async fn hash_kv(&self, revision: Option<Revision>) -> Result<HashKv, KvError> {
        let rocks = self.rocks()?.clone();
        let hashing = move || {
            let view = rocks.view();
            let head = Head::load(&view).map_err(unreadable)?;
            read::check_revision(&head, revision)?;
            let hashed = revision.unwrap_or(head.revision);
            let hash = digest::history(&view, head.compacted, hashed).map_err(unreadable)?;
            Ok(HashKv { hash, hashed, compacted: head.compacted, revision: head.revision })
        };
        blocking(hashing).await
    }

    /// What the database takes on the disk.
    ///
    /// # Errors
    /// If the disk can't be asked.
    pub fn disk_use(&self) -> Result<DiskUse, KvError> {
        let (total_bytes, in_use_bytes) = self.rocks()?.size();
        let free_bytes = self.rocks()?.free_bytes().map_err(unreadable)?;
        Ok(DiskUse { total_bytes, in_use_bytes, free_bytes })
    }

    /// Makes a consistent backup of this member's state, while everything goes on. The moment is now; what
    /// other members acknowledged and this one hasn't applied yet is not in it.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub async fn backup(&self) -> Result<Backup, KvError> {
        let (manifest, known) = oneshot::channel();
        let (sender, blocks) = mpsc::channel(BACKUP_BLOCKS);
        let (rocks, cluster) = (self.rocks()?.clone(), self.cluster());
        let member = self.member_id();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write_backup(&rocks, cluster, member, manifest, &sender) {
                // Nobody listens any more if the receiver gave up.
                let _gone = sender.blocking_send(Err(unreadable(error)));
            }
        });
        let manifest = known.await.unwrap_or(Err(KvError::Closed))?;
        Ok(Backup { manifest, blocks })
    }
}

fn write_backup(
    rocks: &Rocks,
    cluster: u64,
    member: MemberId,
    announce: oneshot::Sender<Result<Manifest, KvError>>,
    sender: &mpsc::Sender<Result<Bytes, KvError>>,
) -> Result<(), DiskError> {
    let view = rocks.view();
    let manifest = match Manifest::of(&view, cluster, member) {
        Ok(manifest) => manifest,
        Err(error) => {
            let _gone = announce.send(Err(unreadable(error)));
            return Ok(());
        }
    };
    let _gone = announce.send(Ok(manifest.clone()));
    backup::write(&view, &manifest, &mut |block| {
        let gone =
            |_| DiskError::Engine { operation: "send a backup", message: "the receiver is gone".into() };
        sender.blocking_send(Ok(block)).map_err(gone)
    })
}

/// Runs something long beside the asynchronous workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KvError> + Send + 'static,
) -> Result<T, KvError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KvError::Closed))
}
