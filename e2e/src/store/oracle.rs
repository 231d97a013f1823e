//! Judges a run by etcd's promises.
//!
//! The watches together are the history: every revision with its events. A store is strictly serializable if
//! that order of revisions explains every reply and keeps to real time, so no search for an order is needed:
//! the store has to stand by the one that it published. What must hold:
//!
//! - revisions have no gap, and each was made by exactly one call, which is not one that failed (or by the end of a
//!   lease); what was acknowledged is in the history at the revision that was acknowledged;
//! - a reply is what the history says at the reply's revision, guards and counts included;
//! - a linearizable call is told at least the revision that anybody knew before it was sent, and a write gets a
//!   greater one; serializable reads may be old but never invented;
//! - a watch delivers exactly its keys' events from its start on, once, in order, whole revisions, with the
//!   right previous values; and a progress message promises nothing that comes later;
//! - a lease never ends early.

mod authors;
mod replies;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use self::authors::Authors;
use self::replies::{changes_something, contradiction};
use super::history::{Call, Event, History, KeyState, Lease, Outcome, Reply, Request, Revision, Seen};

/// At the latest the second write of a fresh store gets this revision; etcd begins with it.
const FIRST: Revision = 2;
/// More than this many violations of one kind say nothing new.
const ENOUGH: usize = 5;

type Keyspace = BTreeMap<String, KeyState>;

/// What was counted on the way, to show that something was judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Calls with a reply.
    pub done: usize,
    /// Calls without one.
    pub unknown: usize,
    /// Calls that the store refused to do.
    pub failed: usize,
    /// Revisions in the history.
    pub revisions: usize,
    /// Events delivered, over all watches.
    pub events: usize,
    /// Watches.
    pub watches: usize,
    /// Leases whose end was seen and judged.
    pub leases: usize,
}

/// Every promise that the run broke, in words; none if all is well.
pub fn judge(history: &History) -> (Counts, Vec<String>) {
    let mut court = Court::new(history);
    court.merge_watches();
    court.check_gaps();
    court.replay();
    court.check_real_time();
    court.check_watches();
    court.check_leases();
    (court.counts, court.violations)
}

struct Court<'a> {
    history: &'a History,
    /// The events of each revision.
    commits: BTreeMap<Revision, Vec<&'a Event>>,
    /// When each revision was first seen by anybody's watch.
    first_seen: HashMap<Revision, Instant>,
    /// The call that made each revision, if it was a call.
    made_by: HashMap<Revision, usize>,
    /// The revision at which a lease's keys went away without anybody deleting them.
    lease_ends: HashMap<i64, Revision>,
    counts: Counts,
    violations: Vec<String>,
}

impl<'a> Court<'a> {
    fn new(history: &'a History) -> Self {
        let mut counts = Counts { watches: history.watches.len(), ..Counts::default() };
        for call in &history.calls {
            match call.outcome {
                Outcome::Done(_) => counts.done += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Unknown(_) => counts.unknown += 1,
            }
        }
        Self {
            history,
            commits: BTreeMap::new(),
            first_seen: HashMap::new(),
            made_by: HashMap::new(),
            lease_ends: HashMap::new(),
            counts,
            violations: Vec::new(),
        }
    }

    fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Of all watches on all keys. That they agree is what [`Self::check_watches`] finds.
    fn merge_watches(&mut self) {
        let history = self.history;
        for watch in history.watches.iter().filter(|watch| watch.keys == super::history::Keys::all()) {
            let mut mine: BTreeMap<Revision, Vec<&Event>> = BTreeMap::new();
            for (at, seen) in &watch.seen {
                if let Seen::Event(revision, event) = seen {
                    mine.entry(*revision).or_default().push(event);
                    let first = self.first_seen.entry(*revision).or_insert(*at);
                    *first = (*first).min(*at);
                }
            }
            for (revision, events) in mine {
                self.commits.entry(revision).or_insert(events);
            }
        }
        self.counts.revisions = self.commits.len();
    }

    fn check_gaps(&mut self) {
        let missing: Vec<_> =
            (FIRST..=self.history.last).filter(|revision| !self.commits.contains_key(revision)).collect();
        if !missing.is_empty() {
            self.violated(format!("no watch on all keys saw the revisions {missing:?}"));
        }
        if let Some((beyond, events)) = self.commits.range(self.history.last + 1..).next() {
            self.violated(format!(
                "revision {beyond} was seen ({events:?}), but the store ends at {}",
                self.history.last
            ));
        }
    }

    /// Goes through the history once, and checks each revision and each reply against the keyspace of its time.
    fn replay(&mut self) {
        let history = self.history;
        let mut replies: BTreeMap<Revision, Vec<&Call>> = BTreeMap::new();
        for call in &history.calls {
            if let Some(reply) = call.reply() {
                let at = match &call.request {
                    Request::Read { at: Some(at), .. } => *at,
                    _ => reply.revision(),
                };
                replies.entry(at).or_default().push(call);
            }
        }
        let mut authors = Authors::new(&history.calls);
        let mut keyspace = Keyspace::new();
        // A member that has just joined may know nothing yet, which is the keyspace at revision 0.
        for revision in 0..=history.last {
            let before = keyspace.clone();
            if let Some(events) = self.commits.get(&revision).cloned() {
                self.check_events(revision, &events, &before);
                self.attribute(revision, &events, &before, &mut authors);
                apply(&mut keyspace, &events);
            }
            for call in replies.remove(&revision).unwrap_or_default() {
                if let Some(what) = contradiction(call, &before, &keyspace) {
                    self.violated(format!("{what}: {call:?}; the keyspace at {revision} is {keyspace:?}"));
                }
            }
        }
        for (revision, calls) in replies {
            self.violated(format!(
                "a reply at revision {revision}, which isn't in the history: {:?}",
                calls[0]
            ));
        }
        self.check_acknowledged(&authors);
    }

    /// Each event follows from the keyspace before it.
    fn check_events(&mut self, revision: Revision, events: &[&Event], before: &Keyspace) {
        let keys: BTreeSet<_> = events.iter().map(|event| &event.key).collect();
        if keys.len() != events.len() {
            self.violated(format!("revision {revision} changes a key twice: {events:?}"));
        }
        for event in events {
            let old = before.get(&event.key);
            let right = match &event.now {
                None => old.is_some(),
                Some(now) => {
                    now.modified == revision
                        && now.created == old.map_or(revision, |old| old.created)
                        && now.version == old.map_or(1, |old| old.version + 1)
                }
            };
            if !right {
                self.violated(format!("{event:?} at revision {revision} doesn't follow from {old:?}"));
            }
            let gone = event.before.is_none() && revision <= self.history.compacted;
            if event.before.as_ref() != old && !gone {
                self.violated(format!("{event:?} at revision {revision}: the previous content was {old:?}"));
            }
        }
    }

    /// Finds who made a revision.
    fn attribute(
        &mut self,
        revision: Revision,
        events: &[&Event],
        before: &Keyspace,
        authors: &mut Authors<'_>,
    ) {
        if let Some(call) = authors.of(revision, events, before) {
            if matches!(authors.calls[call].outcome, Outcome::Failed(_)) {
                self.violated(format!(
                    "revision {revision} was made by a call that failed: {:?}",
                    authors.calls[call]
                ));
            }
            self.made_by.insert(revision, call);
        } else if let Some(lease) = ended_lease(events, before) {
            self.lease_ends.insert(lease, revision);
        } else {
            self.violated(format!("nobody asked for {events:?} at revision {revision}"));
        }
    }

    /// What was acknowledged was done by the call that was told so, and once.
    fn check_acknowledged(&mut self, authors: &Authors<'_>) {
        for (number, call) in authors.calls.iter().enumerate() {
            let Some(Reply::Wrote { revision, deleted }) = call.reply() else { continue };
            if changes_something(call, *deleted) && self.made_by.get(revision) != Some(&number) {
                self.violated(format!("an acknowledged write isn't in the history: {call:?}"));
            }
        }
        let mut made: HashMap<usize, Revision> = HashMap::new();
        for (revision, call) in self.made_by.clone() {
            if let Some(other) = made.insert(call, revision) {
                let call = &authors.calls[call];
                self.violated(format!("done twice, at revisions {other} and {revision}: {call:?}"));
            }
        }
    }

    /// Nobody is told less than anybody knew before.
    fn check_real_time(&mut self) {
        let history = self.history;
        let known = Known::new(history, &self.first_seen);
        let mut late = Vec::new();
        for call in history.calls.iter().filter(|call| call.linearizable()) {
            let Some(reply) = call.reply() else { continue };
            let writes = matches!(reply, Reply::Wrote { deleted, .. } if changes_something(call, *deleted));
            let floor = known.before(call.invoked) + Revision::from(writes);
            if reply.revision() < floor {
                late.push(format!("{floor} or more was due: {call:?}"));
            }
        }
        for (revision, call) in &self.made_by {
            let call = &history.calls[*call];
            if *revision <= known.before(call.invoked) {
                late.push(format!("revision {revision} was known before the call that made it: {call:?}"));
            }
        }
        self.violations.extend(late.into_iter().take(ENOUGH));
    }

    fn check_watches(&mut self) {
        for watch in &self.history.watches {
            let events = watch.seen.iter().filter(|(_, seen)| matches!(seen, Seen::Event(..))).count();
            self.counts.events += events;
            if let Err(what) = self.check_watch(watch) {
                let (member, start, keys) = (watch.member, watch.start, &watch.keys);
                self.violated(format!("watch of {keys:?} from {start} at member {member}: {what}"));
            }
        }
    }

    fn check_watch(&self, watch: &super::history::Watched) -> Result<(), String> {
        let due = self.commits.range(watch.start..).flat_map(|(revision, events)| {
            let mine = events.iter().filter(|event| watch.keys.contains(&event.key));
            mine.map(|event| (*revision, *event))
        });
        let mut due = due.peekable();
        let (mut last, mut promised) = (watch.start - 1, watch.start - 1);
        for (_, seen) in &watch.seen {
            match seen {
                Seen::Event(revision, event) => {
                    if *revision <= promised {
                        return Err(format!("{event:?} at {revision} after progress {promised}"));
                    }
                    let expected = due.next();
                    if !expected.is_some_and(|(due, other)| due == *revision && self.same(due, other, event))
                    {
                        return Err(format!("{event:?} at {revision}, but due was {expected:?}"));
                    }
                    last = *revision;
                }
                Seen::Progress(revision) => {
                    if *revision < last || *revision < promised {
                        return Err(format!("progress {revision} after {last} and progress {promised}"));
                    }
                    promised = *revision;
                    if let Some((missed, event)) = due.next_if(|(due, _)| *due <= *revision) {
                        return Err(format!(
                            "progress {revision}, but {event:?} at {missed} wasn't delivered"
                        ));
                    }
                }
            }
        }
        // The last revision came whole.
        match due.next() {
            Some((missed, event)) if missed <= last => Err(format!("{event:?} of {missed} is missing")),
            _ => Ok(()),
        }
    }

    /// The previous content may be gone by compaction in one watch and not in the other.
    fn same(&self, revision: Revision, one: &Event, other: &Event) -> bool {
        let before = one.before == other.before || revision <= self.history.compacted;
        one.key == other.key && one.now == other.now && before
    }

    fn check_leases(&mut self) {
        let ends: HashMap<i64, Instant> = self
            .lease_ends
            .iter()
            .filter_map(|(lease, revision)| Some((*lease, *self.first_seen.get(revision)?)))
            .collect();
        for lease in self.history.leases.iter().filter(|lease| !lease.revoked) {
            let Some(ended) = ends.get(&lease.id) else { continue };
            self.counts.leases += 1;
            if let Some(early) = earliness(lease, *ended) {
                self.violated(format!("lease {:x} ended {early:?} early: {lease:?}", lease.id));
            }
        }
    }
}

/// How much too early a lease ended, if it did.
fn earliness(lease: &Lease, ended: Instant) -> Option<std::time::Duration> {
    let due = lease.renewed.iter().max().copied()? + lease.ttl;
    (ended < due).then(|| due - ended)
}

fn apply(keyspace: &mut Keyspace, events: &[&Event]) {
    for event in events {
        match &event.now {
            Some(now) => keyspace.insert(event.key.clone(), now.clone()),
            None => keyspace.remove(&event.key),
        };
    }
}

/// The lease whose keys are exactly those that were deleted.
fn ended_lease(events: &[&Event], before: &Keyspace) -> Option<i64> {
    let lease = before.get(&events.first()?.key)?.lease;
    let hanging: BTreeSet<_> =
        before.iter().filter(|(_, state)| state.lease == lease).map(|(key, _)| key).collect();
    let deleted: BTreeSet<_> =
        events.iter().filter(|event| event.now.is_none()).map(|event| &event.key).collect();
    (lease != 0 && hanging == deleted && deleted.len() == events.len()).then_some(lease)
}

/// What revision was known to somebody at each time.
struct Known(Vec<(Instant, Revision)>);

impl Known {
    fn new(history: &History, first_seen: &HashMap<Revision, Instant>) -> Self {
        let told = history.calls.iter().filter_map(|call| Some((call.returned, call.reply()?.revision())));
        let seen = first_seen.iter().map(|(revision, at)| (*at, *revision));
        let mut known: Vec<_> = told.chain(seen).collect();
        known.sort();
        let mut greatest = 0;
        for (_, revision) in &mut known {
            greatest = greatest.max(*revision);
            *revision = greatest;
        }
        Self(known)
    }

    /// The greatest revision that somebody had been told before this time.
    fn before(&self, time: Instant) -> Revision {
        let earlier = self.0.partition_point(|(told, _)| *told < time);
        earlier.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

#[cfg(test)]
mod tests;
