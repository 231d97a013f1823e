//! Who made a revision: the call whose changes are those of its events.

use std::collections::{BTreeMap, HashMap};

use super::Keyspace;
use super::replies::{changes_something, modified};
use crate::store::history::{Call, Change, Event, Reply, Request, Revision};

/// Finds the call behind a revision.
pub(super) struct Authors<'a> {
    pub(super) calls: &'a [Call],
    by_value: HashMap<&'a str, usize>,
    /// Acknowledged writes by their revision.
    by_revision: HashMap<Revision, usize>,
    /// Deletes whose outcome nobody knows, by key, the first sent first.
    perhaps: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Authors<'a> {
    pub(super) fn new(calls: &'a [Call]) -> Self {
        let mut authors =
            Self { calls, by_value: HashMap::new(), by_revision: HashMap::new(), perhaps: HashMap::new() };
        for (number, call) in calls.iter().enumerate() {
            authors.enter(number, call);
        }
        for numbers in authors.perhaps.values_mut() {
            numbers.sort_by_key(|number| calls[*number].invoked);
        }
        authors
    }

    fn enter(&mut self, number: usize, call: &'a Call) {
        let Request::Write { changes, .. } = &call.request else { return };
        for change in changes {
            match change {
                Change::Put { value, .. } => {
                    self.by_value.insert(value, number);
                }
                Change::Delete { key } if changes.len() == 1 && call.reply().is_none() => {
                    self.perhaps.entry(key).or_default().push(number);
                }
                Change::Delete { .. } => {}
            }
        }
        if let Some(Reply::Wrote { revision, deleted }) = call.reply()
            && changes_something(call, *deleted)
        {
            self.by_revision.insert(*revision, number);
        }
    }

    /// The call that does exactly this to this keyspace.
    pub(super) fn of(&mut self, revision: Revision, events: &[&Event], before: &Keyspace) -> Option<usize> {
        let value = events.iter().find_map(|event| event.now.as_ref().map(|now| now.value.as_str()));
        let number = match value {
            Some(value) => *self.by_value.get(value)?,
            None => match self.by_revision.get(&revision) {
                Some(number) => *number,
                None => self.perhaps(events)?,
            },
        };
        let Request::Write { changes, guard } = &self.calls[number].request else { return None };
        let guarded = guard.as_ref().is_none_or(|(key, at)| modified(before, key) == *at);
        (guarded && effect(changes, before) == shape(events)).then_some(number)
    }

    fn perhaps(&mut self, events: &[&Event]) -> Option<usize> {
        let [event] = events else { return None };
        let numbers = self.perhaps.get_mut(event.key.as_str())?;
        (!numbers.is_empty()).then(|| numbers.remove(0))
    }
}

/// What changes do to a keyspace: each key with its new value and lease, or its deletion.
fn effect<'a>(changes: &'a [Change], before: &Keyspace) -> BTreeMap<&'a str, Option<(&'a str, i64)>> {
    let effective = changes.iter().filter_map(|change| match change {
        Change::Put { key, value, lease } => Some((key.as_str(), Some((value.as_str(), *lease)))),
        Change::Delete { key } => before.contains_key(key).then_some((key.as_str(), None)),
    });
    effective.collect()
}

fn shape<'a>(events: &[&'a Event]) -> BTreeMap<&'a str, Option<(&'a str, i64)>> {
    events
        .iter()
        .map(|event| (event.key.as_str(), event.now.as_ref().map(|now| (now.value.as_str(), now.lease))))
        .collect()
}
