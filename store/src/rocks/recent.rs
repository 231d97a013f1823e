//! The pairs that were written last, in memory: a put reads the pair before it, and what is written often
//! would otherwise be looked up in the database each time.
//!
//! Only writes fill it, so it never holds what a slower reader found before a write. Two generations
//! instead of a list of uses: when the young one is full it becomes the old one, and what is used out of the
//! old one becomes young again.

use std::collections::HashMap;
use std::mem;

use bytes::Bytes;

/// What an entry takes besides its key and record, about; bytes.
const ENTRY_OVERHEAD: usize = 96;

type Generation = HashMap<Vec<u8>, Option<Bytes>>;

/// Newest records by key; `None` is known to be deleted.
#[derive(Debug, Default)]
pub struct Recent {
    young: Generation,
    young_bytes: usize,
    old: Generation,
    /// Of both generations together, bytes.
    limit: usize,
}

impl Recent {
    /// Nothing yet; keeps about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// What is known of `key`: its record, or that there is none.
    pub fn get(&mut self, key: &[u8]) -> Option<Option<Bytes>> {
        if let Some(found) = self.young.get(key) {
            return Some(found.clone());
        }
        let (key, record) = self.old.remove_entry(key)?;
        self.insert(key, record.clone());
        Some(record)
    }

    /// `key` was written.
    pub fn put(&mut self, key: &[u8], record: Option<&Bytes>) {
        match self.young.get_mut(key) {
            Some(known) => {
                self.young_bytes -= size(&[], known.as_ref());
                self.young_bytes += size(&[], record);
                *known = record.cloned();
            }
            None => {
                let key = self.old.remove_entry(key).map_or_else(|| key.to_vec(), |(key, _)| key);
                self.insert(key, record.cloned());
            }
        }
    }

    /// The database isn't what it was.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    fn insert(&mut self, key: Vec<u8>, record: Option<Bytes>) {
        self.young_bytes += size(&key, record.as_ref());
        self.young.insert(key, record);
        if self.young_bytes > self.limit / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn size(key: &[u8], record: Option<&Bytes>) -> usize {
    ENTRY_OVERHEAD + key.len() + record.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_stays_within_its_limit_and_keeps_what_is_used() {
        let mut recent = Recent::new(64 << 10);
        let record = Bytes::from(vec![7; 100]);
        for number in 0..10_000_u32 {
            recent.put(&number.to_be_bytes(), Some(&record));
            recent.put(b"used", Some(&record));
        }
        assert_eq!(recent.get(b"used"), Some(Some(record.clone())));
        assert_eq!(recent.get(&0_u32.to_be_bytes()), None);
        let entries = recent.young.len() + recent.old.len();
        assert!(entries <= (64 << 10) / size(&[0; 4], Some(&record)) + 1, "{entries} entries");
        recent.clear();
        assert_eq!(recent.get(b"used"), None);
    }

    proptest! {
        #[test]
        fn it_knows_the_newest_or_nothing(writes in prop::collection::vec((0_u8..40, prop::option::of(0_u8..9)), 0..400)) {
            let mut recent = Recent::new(3000);
            let mut truth: HashMap<u8, Option<Bytes>> = HashMap::new();
            for (key, value) in writes {
                let value = value.map(|value| Bytes::from(vec![value; usize::from(value)]));
                recent.put(&[key], value.as_ref());
                truth.insert(key, value);
                for key in 0..40 {
                    if let Some(found) = recent.get(&[key]) {
                        prop_assert_eq!(Some(&found), truth.get(&key));
                    }
                }
            }
        }
    }
}
