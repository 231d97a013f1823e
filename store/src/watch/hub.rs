//! What each watcher has to get next, as a value.
//!
//! A watcher is a range and the next revision it needs; everything else follows from that. It is
//! *synced* when it needs a revision that doesn't exist yet, and then costs one comparison a revision.
//! Otherwise it is fed from the ring of recent revisions, or from the disk if it needs older ones, or
//! told that they are compacted. Progress is computed from the same number, so it can't overtake events.
//!
//! The hub knows no channel, task or disk: the driver asks [`Hub::next`] when a watcher can take a
//! message, and answers [`Step::Load`] with [`Hub::loaded`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::bug::bug;
use crate::kv::{Event, KeyRange, KvError, Revision, WatchMessage};
use crate::mvcc::read::RevisionEvents;

/// Names a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// What to do for a watcher that can take a message.
#[derive(Debug)]
pub enum Step {
    /// It has everything.
    Wait,
    /// Send this, and ask again.
    Send(WatchMessage),
    /// Read events from this revision on from the disk, tell them by [`Hub::loaded`], and ask again.
    Load(Revision),
    /// Send this and forget the watcher.
    End(WatchMessage),
}

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    /// The next revision it needs.
    next: Revision,
    /// The last revision that it knows about, by events or progress.
    told: Revision,
    /// No progress is told below this.
    floor: Revision,
    /// It asked how far it is.
    asked: bool,
    /// Loaded for it and not sent yet; all at or above `next`.
    backlog: VecDeque<RevisionEvents>,
}

/// All watchers of a member.
#[derive(Debug)]
pub struct Hub {
    current: Revision,
    compacted: Revision,
    /// The newest revisions, without a gap up to `current`.
    ring: VecDeque<RevisionEvents>,
    ring_bytes: usize,
    max_ring_bytes: usize,
    watchers: BTreeMap<WatchId, Watcher>,
    last_id: u64,
}

impl Hub {
    /// No watchers, at the newest revision `current`.
    pub fn new(current: Revision, compacted: Revision, max_ring_bytes: usize) -> Self {
        let (ring, watchers) = (VecDeque::new(), BTreeMap::new());
        Self { current, compacted, ring, ring_bytes: 0, max_ring_bytes, watchers, last_id: 0 }
    }

    /// A watcher comes. `start` is the first revision it wants, by default the next one.
    ///
    /// # Errors
    /// [`KvError::Compacted`] if `start` is gone.
    pub fn register(
        &mut self,
        range: KeyRange,
        start: Option<Revision>,
    ) -> Result<(WatchId, Revision), KvError> {
        let next = start.unwrap_or(after(self.current));
        let next = if bug!(FutureWatchSendsOld) { next.min(after(self.current)) } else { next };
        if next <= self.compacted {
            return Err(KvError::Compacted { requested: next, compacted: self.compacted });
        }
        self.last_id += 1;
        let id = WatchId(self.last_id);
        let told = self.current.min(before(next));
        let floor = start.unwrap_or(self.current);
        let watcher = Watcher { range, next, told, floor, asked: false, backlog: VecDeque::new() };
        self.watchers.insert(id, watcher);
        Ok((id, self.current))
    }

    /// The watcher wants to hear how far it is, as soon as it has everything.
    pub fn request_progress(&mut self, id: WatchId) {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.asked = true;
        }
    }

    /// A watcher is gone.
    pub fn remove(&mut self, id: WatchId) {
        self.watchers.remove(&id);
    }

    /// New revisions were applied; who has something to get now.
    pub fn publish(
        &mut self,
        events: Vec<RevisionEvents>,
        current: Revision,
        compacted: Revision,
    ) -> Vec<WatchId> {
        (self.current, self.compacted) = (current, compacted);
        let interested = self.watchers.iter_mut().filter_map(|(id, watcher)| {
            events.iter().any(|(revision, events)| watcher.notice(*revision, events)).then_some(*id)
        });
        let interested = interested.collect();
        self.ring_bytes += events.iter().map(bytes).sum::<usize>();
        for (revision, events) in events {
            let gap = self.ring.back().is_some_and(|(last, _)| after(*last) != revision);
            assert!(!gap, "revisions are published without a gap");
            self.ring.push_back((revision, events));
        }
        while self.ring_bytes > self.max_ring_bytes {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= bytes(&oldest);
        }
        interested
    }

    /// A snapshot replaced the state: revisions up to `current` exist without having been published.
    pub fn reset(&mut self, current: Revision, compacted: Revision) -> Vec<WatchId> {
        (self.current, self.compacted) = (current, compacted);
        self.ring.clear();
        self.ring_bytes = 0;
        if bug!(ReplayAfterSnapshot) {
            self.watchers.values_mut().for_each(|watcher| watcher.next = after(compacted));
        }
        self.watchers.keys().copied().collect()
    }

    /// The disk says that history is compacted up to here.
    pub fn note_compacted(&mut self, compacted: Revision) {
        self.compacted = self.compacted.max(compacted);
    }

    /// What to do for a watcher that can take a message; `None` if it is gone.
    pub fn next(&mut self, id: WatchId) -> Option<Step> {
        let watcher = self.watchers.get_mut(&id)?;
        if let Some(message) = watcher.take_backlog() {
            return Some(Step::Send(message));
        }
        if watcher.next > self.current {
            return Some(watcher.answer(self.current).map_or(Step::Wait, Step::Send));
        }
        if watcher.next <= self.compacted {
            let message = WatchMessage::Compacted(self.compacted);
            self.watchers.remove(&id);
            return Some(Step::End(message));
        }
        let Some(oldest) = self.ring.front().map(|(revision, _)| *revision) else {
            return Some(Step::Load(watcher.next));
        };
        if watcher.next < oldest && bug!(DropVictimBatch) {
            watcher.next = oldest;
        }
        if watcher.next < oldest {
            return Some(Step::Load(watcher.next));
        }
        let skip = usize::try_from(watcher.next.0 - oldest.0).expect("the ring fits in memory");
        for (revision, events) in self.ring.range(skip..) {
            if let Some(message) = watcher.message(*revision, events) {
                return Some(Step::Send(message));
            }
        }
        watcher.next = after(self.current);
        Some(watcher.answer(self.current).map_or(Step::Wait, Step::Send))
    }

    /// Events from the disk, from the revision asked for on; `newest` is the newest revision on the disk
    /// when it was read.
    pub fn loaded(&mut self, id: WatchId, events: Vec<RevisionEvents>, newest: Revision) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        if events.is_empty() {
            watcher.next = watcher.next.max(after(newest));
        }
        let next = watcher.next;
        watcher.backlog.extend(events.into_iter().filter(|(revision, _)| *revision >= next));
    }

    /// Offers progress to each watcher that has everything but hasn't heard so; `offer` says whether the
    /// watcher had room. One that hadn't is offered it again at the next call.
    pub fn progress(&mut self, mut offer: impl FnMut(WatchId, WatchMessage) -> bool) {
        let current = self.current;
        for (id, watcher) in &mut self.watchers {
            let synced =
                watcher.next == after(current) && watcher.backlog.is_empty() || bug!(ProgressOutOfBand);
            if synced
                && watcher.told < current
                && watcher.floor <= current
                && offer(*id, WatchMessage::Progress(current))
            {
                watcher.told = current;
            }
        }
    }
}

impl Watcher {
    /// A revision was applied. A synced watcher that it doesn't concern moves on at once.
    fn notice(&mut self, revision: Revision, events: &[Event]) -> bool {
        if self.next != revision || !self.backlog.is_empty() {
            return self.next <= revision;
        }
        let concerned = events.iter().any(|event| self.range.contains(&event.kv.key));
        if !concerned {
            self.next = after(revision);
        }
        concerned
    }

    /// The message for a revision, and moves past it.
    fn message(&mut self, revision: Revision, events: &Arc<[Event]>) -> Option<WatchMessage> {
        self.next = after(revision);
        let concerned = events.iter().filter(|event| self.range.contains(&event.kv.key)).count();
        if concerned == 0 {
            return None;
        }
        self.told = revision;
        let events = if concerned == events.len() {
            events.clone()
        } else {
            events.iter().filter(|event| self.range.contains(&event.kv.key)).cloned().collect()
        };
        Some(WatchMessage::Events { revision, events })
    }

    /// The answer to a request for progress, of a watcher that has everything.
    fn answer(&mut self, current: Revision) -> Option<WatchMessage> {
        if !self.asked || self.floor > current {
            return None;
        }
        self.asked = false;
        self.told = current;
        Some(WatchMessage::Progress(current))
    }

    fn take_backlog(&mut self) -> Option<WatchMessage> {
        while let Some((revision, events)) = self.backlog.pop_front() {
            if let Some(message) = self.message(revision, &events) {
                if bug!(DuplicateOnResync) && self.backlog.is_empty() {
                    self.next = revision;
                }
                return Some(message);
            }
        }
        None
    }
}

fn after(revision: Revision) -> Revision {
    Revision(revision.0 + 1)
}

fn before(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(1))
}

fn bytes((_, events): &RevisionEvents) -> usize {
    let size = |event: &Event| {
        let prev = event.prev.as_ref().map_or(0, |prev| prev.value.len());
        event.kv.key.len() * 2 + event.kv.value.len() + prev + 200
    };
    events.iter().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::read::deletion;

    fn events(revision: u64, keys: &[&'static str]) -> RevisionEvents {
        let event = |key: &&'static str| {
            let mut event = deletion((*key).into(), Revision(revision), some_kv(key));
            event.prev = None;
            event
        };
        (Revision(revision), keys.iter().map(event).collect())
    }

    fn some_kv(key: &'static str) -> crate::kv::KeyValue {
        crate::kv::KeyValue {
            key: key.into(),
            value: "".into(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: None,
        }
    }

    fn sent(step: Option<Step>) -> u64 {
        match step {
            Some(Step::Send(WatchMessage::Events { revision, .. })) => revision.0,
            other => panic!("expected events, got {other:?}"),
        }
    }

    #[test]
    fn a_synced_watcher_is_woken_only_by_what_concerns_it() {
        let mut hub = Hub::new(Revision(0), Revision(0), 1 << 20);
        let (a, _) = hub.register(KeyRange::prefix("a"), None).unwrap();
        assert_eq!(hub.publish(vec![events(1, &["b"])], Revision(1), Revision(0)), []);
        assert_eq!(hub.publish(vec![events(2, &["a", "b"])], Revision(2), Revision(0)), [a]);
        assert_eq!(sent(hub.next(a)), 2);
        assert!(matches!(hub.next(a), Some(Step::Wait)));
    }

    #[test]
    fn a_late_watcher_is_fed_from_disk_then_ring_without_gap_or_repeat() {
        let mut hub = Hub::new(Revision(0), Revision(0), 500);
        let (a, _) = hub.register(KeyRange::prefix("a"), Some(Revision(1))).unwrap();
        for revision in 1..=5 {
            hub.publish(vec![events(revision, &["a"])], Revision(revision), Revision(0));
        }
        assert!(matches!(hub.next(a), Some(Step::Load(Revision(1)))));
        hub.loaded(a, (1..=4).map(|r| events(r, &["a"])).collect(), Revision(5));
        for expected in 1..=5 {
            assert_eq!(sent(hub.next(a)), expected);
        }
        assert!(matches!(hub.next(a), Some(Step::Wait)));
    }

    #[test]
    fn a_watcher_whose_history_is_gone_is_told_so() {
        let mut hub = Hub::new(Revision(9), Revision(0), 500);
        let (a, _) = hub.register(KeyRange::prefix("a"), Some(Revision(3))).unwrap();
        let (b, _) = hub.register(KeyRange::prefix("a"), Some(Revision(5))).unwrap();
        hub.publish(vec![], Revision(9), Revision(4));
        assert!(matches!(hub.next(a), Some(Step::End(WatchMessage::Compacted(Revision(4))))));
        assert!(hub.next(a).is_none());
        assert!(matches!(hub.next(b), Some(Step::Load(Revision(5)))));
        let refused = hub.register(KeyRange::prefix("a"), Some(Revision(4)));
        assert!(matches!(refused, Err(KvError::Compacted { .. })));
    }

    #[test]
    fn progress_never_overtakes_events_and_never_precedes_the_start() {
        let mut hub = Hub::new(Revision(0), Revision(0), 1 << 20);
        let (a, _) = hub.register(KeyRange::prefix("a"), None).unwrap();
        let (_future, _) = hub.register(KeyRange::prefix("b"), Some(Revision(10))).unwrap();
        hub.publish(vec![events(1, &["a"])], Revision(1), Revision(0));
        let told = |hub: &mut Hub, room| {
            let mut told = Vec::new();
            hub.progress(|id, message| {
                assert!(matches!(message, WatchMessage::Progress(Revision(2))), "{message:?}");
                told.push(id);
                room
            });
            told
        };
        assert!(told(&mut hub, true).is_empty(), "an event is still to be delivered");
        sent(hub.next(a));
        assert!(told(&mut hub, true).is_empty(), "the event itself told");
        hub.publish(vec![events(2, &["b"])], Revision(2), Revision(0));
        assert_eq!(told(&mut hub, false), [a], "no room");
        assert_eq!(told(&mut hub, true), [a]);
        assert!(told(&mut hub, true).is_empty(), "told once");
    }
}
