//! The oracles accept a right history, and each kind of wrong one is seen: a judge who never convicts is none.

use std::time::Duration;

use super::*;
use crate::store::history::{Change, Keys, Watched};

/// A right history by hand: one client writes, one reads, a watch on everything sees all.
struct Story {
    history: History,
    keyspace: Keyspace,
    clock: Instant,
    revision: Revision,
}

impl Story {
    fn new() -> Self {
        let keys = Keys::all();
        let watch = Watched { member: 0, start: 1, keys, seen: Vec::new(), end: None };
        let history = History { watches: vec![watch], last: 1, ..History::default() };
        Self { history, keyspace: Keyspace::new(), clock: Instant::now(), revision: 1 }
    }

    fn tick(&mut self) -> Instant {
        self.clock += Duration::from_millis(1);
        self.clock
    }

    fn call(&mut self, request: Request, outcome: Outcome) -> &mut Self {
        let (invoked, returned) = (self.tick(), self.tick());
        self.history.calls.push(Call { client: 0, member: 0, invoked, returned, request, outcome });
        self
    }

    /// What the store does: the events, and what it would say.
    fn commit(&mut self, changes: &[Change]) -> Reply {
        let touched: Vec<_> = changes
            .iter()
            .filter(|change| matches!(change, Change::Put { .. }) || self.keyspace.contains_key(change.key()))
            .collect();
        self.revision += Revision::from(!touched.is_empty());
        let mut deleted = 0;
        for change in touched {
            let before = self.keyspace.remove(change.key());
            let now = match change {
                Change::Put { value, lease, .. } => Some(KeyState {
                    value: value.clone(),
                    created: before.as_ref().map_or(self.revision, |before| before.created),
                    modified: self.revision,
                    version: before.as_ref().map_or(1, |before| before.version + 1),
                    lease: *lease,
                }),
                Change::Delete { .. } => None,
            };
            deleted += i64::from(now.is_none());
            if let Some(now) = &now {
                self.keyspace.insert(change.key().to_owned(), now.clone());
            }
            let event = Event { key: change.key().to_owned(), now, before };
            let at = self.tick();
            self.history.watches[0].seen.push((at, Seen::Event(self.revision, event)));
        }
        self.history.last = self.revision;
        Reply::Wrote { revision: self.revision, deleted }
    }

    fn write(&mut self, changes: &[Change]) -> &mut Self {
        let invoked = self.tick();
        let reply = self.commit(changes);
        self.call(Request::Write { guard: None, changes: changes.to_vec() }, Outcome::Done(reply));
        self.history.calls.last_mut().expect("just made").invoked = invoked;
        self
    }

    fn read(&mut self, serializable: bool) -> &mut Self {
        let (keys, revision) = (self.keyspace.clone(), self.revision);
        let request = Request::Read { keys: Keys::all(), at: None, serializable };
        self.call(request, Outcome::Done(Reply::Found { revision, keys }))
    }

    /// Five puts, a delete, reads between.
    fn usual() -> Self {
        let mut story = Self::new();
        story.write(&[put("a", "1")]).write(&[put("b", "2")]).read(false).write(&[put("a", "3")]);
        story.write(&[delete("b")]).read(true).write(&[put("b", "4"), put("a", "5")]).read(false);
        story
    }

    fn verdict(&self) -> Vec<String> {
        judge(&self.history).1
    }

    #[track_caller]
    fn is_convicted_of(&self, what: &str) {
        let verdict = self.verdict();
        assert!(verdict.iter().any(|violation| violation.contains(what)), "no `{what}` in {verdict:#?}");
    }

    fn watch(&mut self) -> &mut Vec<(Instant, Seen)> {
        &mut self.history.watches[0].seen
    }
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned(), value: value.to_owned(), lease: 0 }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned() }
}

fn unknown() -> Outcome {
    Outcome::Unknown("no answer".to_owned())
}

fn plain(change: Change) -> Request {
    Request::Write { guard: None, changes: vec![change] }
}

#[test]
fn a_right_history_is_accepted() {
    let story = Story::usual();
    assert_eq!(story.verdict(), Vec::<String>::new());
    assert_eq!(judge(&story.history).0.revisions, 5);
}

#[test]
fn what_nobody_knows_may_have_happened_or_not() {
    let mut story = Story::usual();
    story.call(plain(put("c", "never")), unknown()).call(plain(put("c", "done")), unknown());
    story.call(plain(delete("c")), unknown());
    story.commit(&[put("c", "done")]);
    story.commit(&[delete("c")]);
    story.read(false);
    assert_eq!(story.verdict(), Vec::<String>::new());
}

#[test]
fn a_lost_write_is_seen() {
    let mut story = Story::usual();
    let reply = Reply::Wrote { revision: story.revision, deleted: 0 };
    story.call(plain(put("c", "lost")), Outcome::Done(reply)).is_convicted_of("isn't in the history");
}

#[test]
fn a_write_done_twice_is_seen() {
    let mut story = Story::usual();
    story.write(&[put("c", "6")]);
    story.commit(&[put("c", "6")]);
    story.is_convicted_of("done twice");
}

#[test]
fn a_write_that_failed_and_was_done_is_seen() {
    let mut story = Story::usual();
    story.call(plain(put("c", "6")), Outcome::Failed("no space".to_owned()));
    story.commit(&[put("c", "6")]);
    story.is_convicted_of("made by a call that failed");
}

#[test]
fn a_write_out_of_nothing_is_seen() {
    let mut story = Story::usual();
    story.commit(&[put("c", "whose?")]);
    story.is_convicted_of("nobody asked for");
}

#[test]
fn a_stale_read_is_seen_unless_it_was_asked_for() {
    for serializable in [false, true] {
        let mut story = Story::usual();
        let (keys, revision) = (story.keyspace.clone(), story.revision);
        story.write(&[put("c", "6")]);
        let request = Request::Read { keys: Keys::all(), at: None, serializable };
        story.call(request, Outcome::Done(Reply::Found { revision, keys }));
        if serializable {
            assert_eq!(story.verdict(), Vec::<String>::new());
        } else {
            story.is_convicted_of("or more was due");
        }
    }
}

#[test]
fn an_invented_read_is_seen_even_if_it_may_be_stale() {
    let mut story = Story::usual();
    story.keyspace.remove("a");
    story.read(true).is_convicted_of("a read was told something else");
}

#[test]
fn a_guard_that_was_ignored_is_seen() {
    let mut story = Story::usual();
    let changes = vec![put("a", "6")];
    let reply = story.commit(&changes);
    let guard = Some(("a".to_owned(), 1));
    story.call(Request::Write { guard: guard.clone(), changes }, Outcome::Done(reply));
    story.is_convicted_of("nobody asked for");

    let mut story = Story::usual();
    let (revision, found) = (story.revision, story.keyspace.get("a").cloned());
    let guard = found.as_ref().map(|state| ("a".to_owned(), state.modified));
    let request = Request::Write { guard, changes: vec![put("a", "6")] };
    story.call(request, Outcome::Done(Reply::Refused { revision, found }));
    story.is_convicted_of("the guard held, but the write was refused");
}

#[test]
fn a_wrong_count_of_deleted_keys_is_seen() {
    let mut story = Story::usual();
    let Reply::Wrote { revision, .. } = story.commit(&[delete("a")]) else { unreachable!() };
    let reply = Reply::Wrote { revision, deleted: 2 };
    story.call(plain(delete("a")), Outcome::Done(reply)).is_convicted_of("number of deleted keys");
}

#[test]
fn a_watch_that_misses_repeats_or_swaps_is_seen() {
    let mut story = Story::usual();
    let again = story.watch()[1].clone();
    story.watch().insert(2, again);
    story.is_convicted_of("changes a key twice");

    let mut other = Story::usual();
    let mut second = other.history.watches[0].clone();
    second.seen.remove(2);
    other.history.watches.push(second.clone());
    other.is_convicted_of("but due was");
    second = other.history.watches[0].clone();
    second.seen.swap(0, 1);
    other.history.watches[1] = second;
    other.is_convicted_of("but due was");
}

#[test]
fn a_watch_that_tears_a_revision_is_seen() {
    let mut story = Story::usual();
    let mut second = story.history.watches[0].clone();
    second.seen.pop();
    story.history.watches.push(second);
    story.is_convicted_of("is missing");
}

#[test]
fn an_event_below_the_start_is_seen() {
    let mut story = Story::usual();
    let mut second = story.history.watches[0].clone();
    second.start = 4;
    story.history.watches.push(second);
    story.is_convicted_of("after progress");
}

#[test]
fn progress_that_runs_ahead_is_seen() {
    let mut story = Story::usual();
    let mut second = story.history.watches[0].clone();
    let at = second.seen[1].0;
    second.seen.insert(1, (at, Seen::Progress(4)));
    story.history.watches.push(second);
    story.is_convicted_of("wasn't delivered");
}

#[test]
fn a_wrong_previous_value_is_seen() {
    let mut story = Story::usual();
    let Seen::Event(_, event) = &mut story.watch()[2].1 else { unreachable!() };
    event.before = None;
    story.is_convicted_of("the previous content was");
}

#[test]
fn a_gap_in_the_revisions_is_seen() {
    let mut story = Story::usual();
    story.revision += 1;
    story.write(&[put("c", "6")]).is_convicted_of("no watch on all keys saw the revisions [7]");
}

#[test]
fn a_lease_that_ends_early_is_seen() {
    for (ttl, early) in [(1, false), (60_000, true)] {
        let mut story = Story::usual();
        let sent = story.tick();
        story.write(&[Change::Put { key: "l".to_owned(), value: "l".to_owned(), lease: 9 }]);
        story.tick();
        story.commit(&[delete("l")]);
        let (ttl, key) = (Duration::from_millis(ttl), "l".to_owned());
        story.history.leases.push(Lease { id: 9, ttl, key, renewed: vec![sent], revoked: false });
        if early {
            story.is_convicted_of("early");
        } else {
            assert_eq!(story.verdict(), Vec::<String>::new());
            assert_eq!(judge(&story.history).0.leases, 1);
        }
    }
}
