//! What MVCC needs from a disk: point reads and ordered scans of one moment, and a batch of writes.
//!
//! [`Overlay`] lays the writes of entries that are being applied over a view, so that each entry sees
//! the ones before it and all of them become one batch.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use smallvec::SmallVec;

use super::family::Family;
use crate::codec::DecodeError;

/// Reading or writing the disk failed. A member never goes on after one of these on its write path.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    /// The storage engine reported an error.
    #[error("{operation}: {message}")]
    Engine {
        /// What was attempted.
        operation: &'static str,
        /// The engine's words.
        message: String,
    },
    /// A record can't be understood: corruption, or a newer program wrote it.
    #[error("damaged record in {family}")]
    Damaged {
        /// Where.
        family: &'static str,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// A record that must exist doesn't.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl DiskError {
    /// Whether the disk is full, rather than broken.
    pub fn is_no_space(&self) -> bool {
        // The engine tells it only in words: strerror's.
        let words = ["No space left on device", "Disk quota exceeded"];
        matches!(self, Self::Engine { message, .. } if words.iter().any(|words| message.contains(words)))
    }

    /// For `map_err` after decoding a record of `family`.
    pub fn damaged(family: Family) -> impl Fn(DecodeError) -> DiskError {
        move |source| DiskError::Damaged { family: family.name(), source }
    }
}

/// Called with key and value; `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, DiskError> + 'a;

/// One moment of the disk: later writes don't show.
pub trait ReadView {
    /// The value of `key`.
    ///
    /// # Errors
    /// If the disk can't be read.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, DiskError>;

    /// Visits `start <= key < end` in order.
    ///
    /// # Errors
    /// If the disk can't be read, or what `visit` returns.
    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError>;
}

/// A record's key. Those of the families that get a record with each revision fit in without an allocation.
pub type RecordKey = SmallVec<[u8; 16]>;

/// What a record's key is made of.
pub trait IntoRecordKey {
    /// The key.
    fn into_record_key(self) -> RecordKey;
}

impl IntoRecordKey for Vec<u8> {
    fn into_record_key(self) -> RecordKey {
        self.into()
    }
}

impl IntoRecordKey for &[u8] {
    fn into_record_key(self) -> RecordKey {
        self.into()
    }
}

impl<const N: usize> IntoRecordKey for [u8; N] {
    fn into_record_key(self) -> RecordKey {
        RecordKey::from_slice(&self)
    }
}

/// Writes that happen together. In order of family and key, so equal contents are equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    writes: BTreeMap<Family, BTreeMap<RecordKey, Option<Bytes>>>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, family: Family, key: impl IntoRecordKey, value: impl Into<Bytes>) {
        self.writes.entry(family).or_default().insert(key.into_record_key(), Some(value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: impl IntoRecordKey) {
        self.writes.entry(family).or_default().insert(key.into_record_key(), None);
    }

    /// All writes; `None` removes the key.
    pub fn writes(&self) -> impl Iterator<Item = (Family, &[u8], Option<&Bytes>)> {
        self.writes.iter().flat_map(|(family, writes)| {
            writes.iter().map(|(key, value)| (*family, key.as_slice(), value.as_ref()))
        })
    }

    /// The writes to `family`; `None` removes the key.
    pub fn writes_to(&self, family: Family) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
        let writes = self.writes.get(&family).into_iter().flatten();
        writes.map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    /// The writes to `family`, and all others: what a seeded bug writes apart.
    pub fn split(&self, family: Family) -> (Batch, Batch) {
        let (own, others) = self.writes.clone().into_iter().partition(|(of, _)| *of == family);
        (Batch { writes: own }, Batch { writes: others })
    }

    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    fn pending(&self, family: Family, key: &[u8]) -> Option<&Option<Bytes>> {
        self.writes.get(&family)?.get(key)
    }

    fn pending_range<'a>(
        &'a self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a RecordKey, &'a Option<Bytes>)> + use<'a> {
        let empty = end.is_some_and(|end| end <= start);
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let writes = self.writes.get(&family).filter(|_| !empty);
        writes.map(|writes| writes.range::<[u8], _>(bounds)).into_iter().flatten()
    }
}

/// A view with a batch of later writes over it.
pub struct Overlay<'a, V> {
    base: &'a V,
    /// The writes so far.
    pub batch: Batch,
}

impl<'a, V: ReadView> Overlay<'a, V> {
    /// No writes yet.
    pub fn new(base: &'a V) -> Self {
        Self { base, batch: Batch::default() }
    }
}

impl<V: ReadView> ReadView for Overlay<'_, V> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        match self.batch.pending(family, key) {
            Some(pending) => Ok(pending.clone()),
            None => self.base.get(family, key),
        }
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), DiskError> {
        let mut pending = self.batch.pending_range(family, start, end).peekable();
        let mut ended = false;
        self.base.scan(family, start, end, &mut |key, value| {
            let mut replaced = false;
            while let Some((pending_key, pending_value)) = pending.next_if(|(k, _)| k.as_slice() <= key) {
                replaced |= pending_key.as_slice() == key;
                if let Some(value) = pending_value
                    && visit(pending_key, value)?.is_break()
                {
                    ended = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            let flow = if replaced { ControlFlow::Continue(()) } else { visit(key, value)? };
            ended = flow.is_break();
            Ok(flow)
        })?;
        if !ended {
            for (key, value) in pending.filter_map(|(key, value)| Some((key, value.as_ref()?))) {
                if visit(key, value)?.is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}
