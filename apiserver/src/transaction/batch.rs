//! The writes of a transaction's steps, until all are known to be fine.

use api::status::Status;
use parking_lot::Mutex;
use store::kv::Revision;

use crate::error::Outcome;
use crate::storage::object::{UNWRITTEN, name_of};
use crate::storage::{Also, Commit, Storage, Write};

/// Collects what would be written.
#[derive(Debug, Default)]
pub struct Batch(Mutex<Collected>);

#[derive(Debug, Default)]
struct Collected {
    /// With the step that each belongs to.
    writes: Vec<(usize, Write)>,
    /// Steps begun.
    steps: usize,
}

impl Batch {
    /// What is collected from now on belongs to the next step.
    pub fn begin_step(&self) {
        self.0.lock().steps += 1;
    }

    /// Takes a write as if it were done. Whether its object is as expected is looked up now, so that a name that
    /// is taken is told of its step; the commit asks again.
    ///
    /// # Errors
    /// 400 if another step writes the same object.
    pub async fn take(&self, storage: &Storage, write: Write) -> Outcome<Commit> {
        if self.0.lock().writes.iter().any(|(_, other)| other.key == write.key) {
            let name = String::from_utf8_lossy(&write.key).rsplit('/').next().unwrap_or_default().to_owned();
            let why =
                format!("{name:?} is written by another step already: a transaction writes an object once");
            return Err(Status::bad_request(why).into());
        }
        let present = storage.read(&write.key).await?;
        if present.as_ref().map_or(Revision(0), |stored| stored.revision) != write.expected {
            debug_assert!(
                present.as_ref().is_none_or(|stored| !name_of(stored).is_empty()),
                "objects have names"
            );
            return Ok(Commit::Lost(present));
        }
        let mut collected = self.0.lock();
        let step = collected.steps;
        collected.writes.push((step, write));
        Ok(Commit::Done(UNWRITTEN))
    }

    /// Whether an object that doesn't exist yet will, by this transaction.
    pub fn creates(&self, key: &[u8]) -> bool {
        let collected = self.0.lock();
        let creates =
            |write: &Write| write.key == key && write.expected == Revision(0) && write.value.is_some();
        collected.writes.iter().any(|(_, write)| creates(write))
    }

    /// What is to be written at `key` beside the objects, so that the next step adds to it.
    pub fn also(&self, key: &[u8]) -> Option<Also> {
        let collected = self.0.lock();
        let mut all = collected.writes.iter().flat_map(|(_, write)| &write.also);
        all.rfind(|also| also.key == key).cloned()
    }

    /// Of each step, whether it changes something.
    pub fn changed(&self) -> Vec<bool> {
        let collected = self.0.lock();
        (1..=collected.steps).map(|step| collected.writes.iter().any(|(of, _)| *of == step)).collect()
    }

    /// All writes, in the order of the steps.
    pub fn into_writes(self) -> Vec<Write> {
        self.0.into_inner().writes.into_iter().map(|(_, write)| write).collect()
    }
}
