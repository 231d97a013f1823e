//! The recent changes of one resource, from which all its watchers read.
//!
//! A watcher is a revision and nothing else: it asks for what came after. So memory is bounded however
//! many watchers there are and however slow they read: who falls behind the oldest change kept is told so.

use std::collections::VecDeque;
use std::sync::Arc;

use store::kv::Revision;

use crate::storage::change::Change;

/// The watcher wants changes that are no longer kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FellBehind;

/// The recent changes, oldest first, in the order of their revisions.
#[derive(Debug)]
pub struct History {
    changes: VecDeque<Arc<Change>>,
    /// Every change after this revision is kept.
    floor: Revision,
    bytes: usize,
    max_changes: usize,
    max_bytes: usize,
}

impl History {
    /// An empty history that knows nothing up to `floor`.
    pub fn new(floor: Revision, max_changes: usize, max_bytes: usize) -> Self {
        Self { changes: VecDeque::new(), floor, bytes: 0, max_changes, max_bytes }
    }

    /// Takes in the next change.
    pub fn push(&mut self, change: Arc<Change>) {
        let newest = self.changes.back().map_or(self.floor, |change| change.revision);
        assert!(change.revision >= newest, "changes arrive in the order of revisions");
        self.bytes += change.weight();
        self.changes.push_back(change);
        while self.changes.len() > self.max_changes || self.bytes > self.max_bytes {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= oldest.weight();
            self.floor = oldest.revision;
        }
    }

    /// Up to about `limit` changes after `revision`; those of one revision are never split.
    pub fn after(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<Change>>, FellBehind> {
        if revision < self.floor {
            return Err(FellBehind);
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        let mut taken: Vec<Arc<Change>> = Vec::new();
        for change in self.changes.range(start..) {
            let whole = taken.last().is_none_or(|last| last.revision != change.revision);
            if whole && taken.len() >= limit {
                break;
            }
            taken.push(change.clone());
        }
        Ok(taken)
    }

    /// Every change after this revision is kept.
    pub fn floor(&self) -> Revision {
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(revisions: &[u64], max_changes: usize) -> History {
        let mut history = History::new(Revision(10), max_changes, usize::MAX);
        for revision in revisions {
            history.push(Arc::new(Change::new(Revision(*revision), None, None)));
        }
        history
    }

    fn after(history: &History, revision: u64, limit: usize) -> Result<Vec<u64>, FellBehind> {
        let changes = history.after(Revision(revision), limit)?;
        Ok(changes.iter().map(|change| change.revision.0).collect())
    }

    #[test]
    fn a_watcher_gets_what_came_after_its_revision() {
        let history = history(&[11, 13, 13, 17], 10);
        assert_eq!(after(&history, 10, 9), Ok(vec![11, 13, 13, 17]));
        assert_eq!(after(&history, 12, 9), Ok(vec![13, 13, 17]));
        assert_eq!(after(&history, 17, 9), Ok(vec![]));
        assert_eq!(after(&history, 9, 9), Err(FellBehind));
    }

    #[test]
    fn one_revision_is_never_split() {
        assert_eq!(after(&history(&[11, 13, 13, 17], 10), 10, 2), Ok(vec![11, 13, 13]));
    }

    #[test]
    fn what_is_dropped_is_known_to_be_missing() {
        let history = history(&[11, 13, 15, 17], 2);
        assert_eq!(history.floor(), Revision(13));
        assert_eq!(after(&history, 13, 9), Ok(vec![15, 17]));
        assert_eq!(after(&history, 12, 9), Err(FellBehind));
    }
}
