//! A disk that loses a random tail of what wasn't synced, and breaks at a chosen write.
//!
//! What isn't synced is kept as a way back: a crash undoes it from the end, so that an ordinary write
//! costs one map and no copy.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use crate::disk::{Disk, Durability};
use crate::mvcc::family::Family;
use crate::mvcc::view::{Batch, DiskError, ReadView, Visit};
use crate::raft::persist;
use crate::snapshot::SnapshotFile;
use crate::tests::apply::MapDisk;

/// How to undo a batch: the records as they were before.
type Undo = Vec<(Family, Vec<u8>, Option<Bytes>)>;

#[derive(Default)]
struct Inner {
    current: MapDisk,
    /// What leads back to what is synced, newest last.
    pending: Vec<Undo>,
    /// Writes until the disk breaks.
    breaks_in: Option<u64>,
    /// Writes until it is full.
    full_in: Option<u64>,
    /// Every log record ever written, the newest at each index, whatever was truncated or lost since.
    tape: BTreeMap<u64, Bytes>,
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
        while inner.pending.len() > survivors {
            let undo = inner.pending.pop().expect("there are more than the survivors");
            for (family, key, value) in undo.into_iter().rev() {
                match value {
                    Some(value) => inner.current.put(family, key, value),
                    None => inner.current.remove(family, &key),
                }
            }
        }
        inner.pending.clear();
        inner.breaks_in = None;
    }

    /// Another disk with the same contents, all of it synced.
    pub fn copy(&self) -> Self {
        Self { inner: Rc::new(RefCell::new(Inner { current: self.contents(), ..Inner::default() })) }
    }

    pub fn pending(&self) -> usize {
        self.inner.borrow().pending.len()
    }

    /// The `writes`-th write from now fails.
    pub fn break_in(&self, writes: u64) {
        self.inner.borrow_mut().breaks_in = Some(writes);
    }

    /// It won't break any more, unless it has, and has space.
    pub fn repair(&self) {
        let mut inner = self.inner.borrow_mut();
        (inner.breaks_in, inner.full_in) = (None, None);
    }

    /// After so many writes there is no space for more.
    pub fn fill_in(&self, writes: u64) {
        self.inner.borrow_mut().full_in = Some(writes);
    }

    /// There is space again.
    pub fn give_space(&self) {
        self.inner.borrow_mut().full_in = None;
    }

    pub fn is_full(&self) -> bool {
        self.inner.borrow().full_in == Some(0)
    }

    /// The log record last written at `index`.
    pub fn logged(&self, index: u64) -> Option<Bytes> {
        self.inner.borrow().tape.get(&index).cloned()
    }

    pub fn replicated(&self) -> Vec<(Family, Vec<u8>, Bytes)> {
        self.inner.borrow().current.replicated()
    }

    /// Everything.
    pub fn contents(&self) -> MapDisk {
        self.inner.borrow().current.clone()
    }

    fn count_down(inner: &mut Inner) -> Result<(), DiskError> {
        match &mut inner.full_in {
            Some(0) => {
                let message = "No space left on device".into();
                return Err(DiskError::Engine { operation: "write", message });
            }
            Some(writes) => *writes -= 1,
            None => {}
        }
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

impl Inner {
    fn write(&mut self, batch: &Batch) -> Undo {
        let mut undo = Vec::new();
        for (family, key, value) in batch.writes() {
            if family == Family::Log
                && let Some(Ok(entries)) = value.map(|value| persist::decode_entries(value.clone()))
            {
                let alone = |entry| persist::encode_entries(std::slice::from_ref(entry)).into();
                self.tape.extend(entries.iter().map(|entry| (entry.index, alone(entry))));
            }
            let before = match value {
                Some(value) => self.current.insert(family, key.to_vec(), value.clone()),
                None => self.current.take(family, key),
            };
            undo.push((family, key.to_vec(), before));
        }
        undo
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
        let undo = inner.write(batch);
        match durability {
            Durability::Synced => inner.pending.clear(),
            Durability::Later => inner.pending.push(undo),
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
        inner.write(batch);
        inner.pending.clear();
        Ok(())
    }
}
