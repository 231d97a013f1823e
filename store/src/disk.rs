//! What a member needs from its disk, and nothing about how it is done: [`crate::rocks`] is the real
//! one, the simulation has one that loses unsynced writes.

use crate::mvcc::view::{Batch, DiskError, ReadView};

/// When a write counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: it survives a power cut.
    Synced,
    /// With the next synced write at the latest; writes never overtake each other.
    Later,
}

/// A member's disk. Reads see all writes so far. One thread writes.
pub trait Disk: ReadView {
    /// Writes a batch: all of it or nothing survives a crash, and only after every earlier batch.
    ///
    /// # Errors
    /// If the engine reports one. The member must stop: what is on the disk is unknown then.
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), DiskError>;

    /// Replaces the replicated families by the contents of a snapshot and empties the Raft log, then
    /// writes `batch`, durably. A crash in the middle is finished at the next open.
    ///
    /// # Errors
    /// As [`Disk::write`]; also if the snapshot is damaged.
    fn install(&self, snapshot: &[u8], batch: &Batch) -> Result<(), DiskError>;
}
