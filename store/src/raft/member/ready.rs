//! Work that Raft wants done, in the only order that is safe: what promises durability leaves after it is durable.

use raft::eraftpb::{Entry, Message, Snapshot};

use crate::bug::bug;
use crate::disk::{Disk, Durability};
use crate::failpoint::failpoint;
use crate::mvcc::view::{Batch, DiskError};
use crate::raft::persist;

/// Work that Raft wants done; at first it must be persisted.
pub struct Ready {
    pub(super) inner: raft::Ready,
    pub(super) old_last: u64,
}

/// Work whose entries and hard state are on the disk.
pub struct Persisted {
    pub(super) inner: raft::Ready,
}

impl Ready {
    /// Messages that may leave before anything is persisted: a leader's, which replicate in parallel
    /// with its own write (Raft thesis, 10.2.1).
    pub fn take_messages(&mut self) -> Vec<Message> {
        self.inner.take_messages()
    }

    /// Writes entries, hard state and snapshot to the disk, in one batch, synced if it promises anything.
    ///
    /// # Errors
    /// If the disk fails; the member must stop then.
    pub fn persist(self, disk: &impl Disk) -> Result<Persisted, DiskError> {
        let mut batch = Batch::default();
        let snapshot = self.inner.snapshot();
        let entries = self.inner.entries();
        if let Some(state) = self.inner.hs() {
            persist::hard_state(&mut batch, state);
        }
        if snapshot.is_empty() {
            persist::append(&mut batch, entries, self.old_last);
            if !batch.is_empty() {
                let unsafely = bug!(AckBeforeSync) || bug!(VoteNotPersisted) && entries.is_empty();
                failpoint!("raft_before_save");
                disk.write(&batch, durability(self.inner.must_sync() && !unsafely))?;
                failpoint!("raft_after_save");
            }
        } else {
            failpoint!("raft_before_save_snapshot");
            install(disk, snapshot, entries, batch)?;
            failpoint!("raft_after_save_snapshot");
        }
        Ok(Persisted { inner: self.inner })
    }
}

fn install(
    disk: &impl Disk,
    snapshot: &Snapshot,
    entries: &[Entry],
    mut batch: Batch,
) -> Result<(), DiskError> {
    let metadata = snapshot.get_metadata();
    persist::truncate(&mut batch, [], metadata.index, metadata.term);
    persist::append(&mut batch, entries, metadata.index);
    if bug!(SnapshotInstalledInPlace) {
        disk.install(&snapshot.data, &Batch::default())?;
        return disk.write(&batch, Durability::Synced);
    }
    disk.install(&snapshot.data, &batch)
}

fn durability(must_sync: bool) -> Durability {
    if must_sync { Durability::Synced } else { Durability::Later }
}
