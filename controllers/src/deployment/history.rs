//! How many old ReplicaSets are kept to go back to.

use super::{Rollout, Sized, revision, status};
use crate::plan::{Action, Target};

impl Rollout<'_> {
    /// Deletes the oldest revisions beyond the limit, once the rollout is complete (or paused); one
    /// that has pods, or whose size was changed and not yet acted on, stays.
    pub(super) fn clean_up_history(&mut self) {
        let Some(limit) = self.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        if self.spec.paused != Some(true) && !status::is_complete(self) {
            return;
        }
        let mut alive: Vec<&Sized> =
            self.old.iter().filter(|set| set.set.metadata.deletion_timestamp.is_none()).collect();
        alive.sort_by_key(|set| (revision::of(&set.set), set.created()));
        let beyond = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let deletions: Vec<Action> = alive
            .into_iter()
            .take(beyond)
            .filter(|set| is_idle(set))
            .map(|set| Action::Delete {
                target: Target::of(&*set.set),
                propagation: None,
                grace: None,
                announce: None,
                reason: format!("beyond the {limit} revisions of the history"),
            })
            .collect();
        self.plan.actions.extend(deletions);
    }
}

fn is_idle(set: &Sized) -> bool {
    let status = set.set.status.clone().unwrap_or_default();
    set.size == 0
        && status.replicas == 0
        && set.set.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0)
}
