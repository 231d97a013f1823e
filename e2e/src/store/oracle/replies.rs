//! What a reply says, against the keyspace of its revision.

use super::Keyspace;
use crate::store::history::{Call, Change, Reply, Request, Revision};

/// Whether a write that deleted so many keys made a revision.
pub(super) fn changes_something(call: &Call, deleted: i64) -> bool {
    let Request::Write { changes, .. } = &call.request else { return false };
    deleted > 0 || changes.iter().any(|change| matches!(change, Change::Put { .. }))
}

/// Why a reply can't be right, given the keyspace at its revision and just before it.
pub(super) fn contradiction(call: &Call, before: &Keyspace, now: &Keyspace) -> Option<&'static str> {
    match (&call.request, call.reply()?) {
        (Request::Write { guard, changes }, Reply::Wrote { deleted, .. }) => {
            let base = if changes_something(call, *deleted) { before } else { now };
            let there = changes
                .iter()
                .filter(|change| matches!(change, Change::Delete { .. }) && base.contains_key(change.key()));
            if there.count() != usize::try_from(*deleted).unwrap_or(usize::MAX) {
                return Some("the number of deleted keys is wrong");
            }
            let held = guard.as_ref().is_none_or(|(key, at)| modified(base, key) == *at);
            (!held).then_some("the guard didn't hold, but the write was done")
        }
        (Request::Write { guard: Some((key, at)), .. }, Reply::Refused { found, .. }) => {
            if now.get(key) != found.as_ref() {
                return Some("a refused write was told something else than what is there");
            }
            (modified(now, key) == *at).then_some("the guard held, but the write was refused")
        }
        (Request::Read { keys, .. }, Reply::Found { keys: found, .. }) => {
            let there = now.iter().filter(|(key, _)| keys.contains(key));
            (!there.eq(found)).then_some("a read was told something else than what is there")
        }
        _ => Some("the reply is none to this request"),
    }
}

pub(super) fn modified(keyspace: &Keyspace, key: &str) -> Revision {
    keyspace.get(key).map_or(0, |state| state.modified)
}
