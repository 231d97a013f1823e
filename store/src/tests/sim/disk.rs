//! A disk that loses a random tail of what wasn't synced, and breaks at a chosen write.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use crate::disk::{Disk, Durability};
use crate::mvcc::family::Family;
use crate::mvcc::view::{Batch, DiskError, ReadView, Visit};
use crate::snapshot::SnapshotFile;
use crate::tests::apply::MapDisk;

#[derive(Default)]
struct Inner {
    durable: MapDisk,
    /// Durable plus pending.
    current: MapDisk,
    pending: Vec<Batch>,
    /// Writes until the disk breaks.
    breaks_in: Option<u64>,
}

/// Clones share the platters; the simulation keeps one while the member is down.
#[derive(Clone, Default)]
pub struct SimDisk {
    inner: Rc<RefCell<Inner>>,
}

impl SimDisk {
    /// The power fails: of the unsynced batches only the first `survivors` are there afterwards.
    pub fn crash(&self, survivors: usize) {
        let mut inner = self.inner.borrow_mut();
        let pending = std::mem::take(&mut inner.pending);
        pending.iter().take(survivors).for_each(|batch| inner.durable.write(batch));
        inner.current = inner.durable.clone();
        inner.breaks_in = None;
    }

    pub fn pending(&self) -> usize {
        self.inner.borrow().pending.len()
    }

    /// The `writes`-th write from now fails.
    pub fn break_in(&self, writes: u64) {
        self.inner.borrow_mut().breaks_in = Some(writes);
    }

    pub fn replicated(&self) -> Vec<(Family, Vec<u8>, Bytes)> {
        self.inner.borrow().current.replicated()
    }

    fn count_down(inner: &mut Inner) -> Result<(), DiskError> {
        match &mut inner.breaks_in {
            Some(0) => Err(DiskError::Engine { operation: "write", message: "the power failed".into() }),
            Some(writes) => {
                *writes -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl ReadView for SimDisk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.inner.borrow().current.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        self.inner.borrow().current.scan(family, start, end, visit)
    }
}

impl Disk for SimDisk {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), DiskError> {
        let mut inner = self.inner.borrow_mut();
        Self::count_down(&mut inner)?;
        inner.current.write(batch);
        inner.pending.push(batch.clone());
        if durability == Durability::Synced {
            for batch in std::mem::take(&mut inner.pending) {
                inner.durable.write(&batch);
            }
        }
        Ok(())
    }

    fn install(&self, snapshot: &[u8], batch: &Batch) -> Result<(), DiskError> {
        let mut inner = self.inner.borrow_mut();
        Self::count_down(&mut inner)?;
        inner.current.clear(&Family::REPLICATED);
        inner.current.clear(&[Family::Log]);
        let mut file = SnapshotFile::new(snapshot);
        while let Some((family, key, value)) = file.next_record()? {
            inner.current.put(family, key.to_vec(), value);
        }
        inner.current.write(batch);
        inner.pending.clear();
        inner.durable = inner.current.clone();
        Ok(())
    }
}
