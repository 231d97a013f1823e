//! Which actions of a plan are performed together.

use crate::plan::Action;
use std::collections::HashSet;

/// How many of `actions` are performed together.
pub(super) fn run_length(first: &Action, actions: &[Action]) -> usize {
    let mut patched = HashSet::new();
    let alike = |action: &&Action| match action {
        // Two patches of one object depend on each other.
        Action::Patch { target, .. } => same_run(first, action) && patched.insert(target.uid.clone()),
        action => same_run(first, action),
    };
    actions.iter().take_while(alike).count()
}

/// Creates of one kind in a row, deletes in a row, and patches of pods in a row are performed together.
fn same_run(first: &Action, other: &Action) -> bool {
    match (first, other) {
        (Action::Create { kind, .. }, Action::Create { kind: other, .. }) => kind == other,
        (Action::Delete { .. }, Action::Delete { .. }) => true,
        (Action::Patch { target, part, .. }, Action::Patch { target: other, part: same, .. }) => {
            target.uid == other.uid
                || target.kind == other.kind && part == same && target.kind.plural == "pods"
        }
        (first, other) => std::ptr::eq(first, other),
    }
}
