//! What each watcher has to get next, as a value.
//!
//! A watcher is a range and the next revision it needs; everything else follows from that. It is *live* when
//! everything older has been handed to it: new events are then put into its short queue as they are
//! published, found by an index, so that a revision costs what its own watchers cost. One that falls behind
//! loses the queue and nothing else: it is fed from the ring of recent revisions, from pieces of history
//! that were loaded from the disk and are shared by all who lag, or told that its history is compacted.
//! Progress is computed from the same state, so it can't overtake events.
//!
//! The hub knows no channel, task or disk: the driver asks [`Hub::next`] when a watcher can take a
//! message, and answers [`Step::Load`] with [`Hub::loaded`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::interest::Interest;
use crate::bug::bug;
use crate::kv::{Event, KeyRange, KvError, Revision, WatchMessage};
use crate::mvcc::read::RevisionEvents;

/// Events that wait for a live watcher; one that needs more has fallen behind.
const LIVE_QUEUE: usize = 64;
/// Pieces of loaded history that are kept for lagging watchers.
const PIECES: usize = 8;

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
    /// The next revision it needs; while it is live and its queue is empty it may be lower than that.
    next: Revision,
    /// The last revision that it knows about, by events or progress.
    told: Revision,
    /// No progress is told below this.
    floor: Revision,
    /// It asked how far it is.
    asked: bool,
    /// While live: all that it still has to get up to the newest revision. Otherwise it lags.
    queue: Option<VecDeque<RevisionEvents>>,
}

/// A piece of history without a gap.
#[derive(Debug)]
struct Piece {
    from: Revision,
    upto: Revision,
    events: Vec<RevisionEvents>,
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
    pieces: VecDeque<Piece>,
    watchers: BTreeMap<WatchId, Watcher>,
    interest: Interest,
    last_id: u64,
}

impl Hub {
    /// No watchers, at the newest revision `current`.
    pub fn new(current: Revision, compacted: Revision, max_ring_bytes: usize) -> Self {
        Self {
            current,
            compacted,
            ring: VecDeque::new(),
            ring_bytes: 0,
            max_ring_bytes,
            pieces: VecDeque::new(),
            watchers: BTreeMap::new(),
            interest: Interest::default(),
            last_id: 0,
        }
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
        let queue = (next > self.current).then(VecDeque::new);
        self.interest.add(id, &range);
        self.watchers.insert(id, Watcher { range, next, told, floor, asked: false, queue });
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
        if let Some(watcher) = self.watchers.remove(&id) {
            self.interest.remove(id, &watcher.range);
        }
    }

    /// The watcher can't take more for now: nothing is kept for it.
    pub fn set_aside(&mut self, id: WatchId) {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.fall_behind(self.current);
        }
    }

    /// New revisions were applied; who has something to get now.
    pub fn publish(
        &mut self,
        events: Vec<RevisionEvents>,
        current: Revision,
        compacted: Revision,
    ) -> Vec<WatchId> {
        (self.current, self.compacted) = (current, compacted.max(self.compacted));
        let mut concerned = Vec::new();
        for (revision, events) in events {
            for (id, events) in self.interest.matches(&events) {
                let watcher = self.watchers.get_mut(&id).expect("the index holds only watchers");
                watcher.notice(revision, events);
                concerned.push(id);
            }
            self.remember((revision, events));
        }
        concerned.sort_unstable();
        concerned.dedup();
        concerned
    }

    fn remember(&mut self, events: RevisionEvents) {
        let gap = self.ring.back().is_some_and(|(last, _)| after(*last) != events.0);
        assert!(!gap, "revisions are published without a gap");
        self.ring_bytes += bytes(&events.1);
        self.ring.push_back(events);
        while self.ring_bytes > self.max_ring_bytes {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= bytes(&oldest.1);
        }
    }

    /// A snapshot replaced the state: revisions up to `current` exist without having been published. All
    /// watchers go on where they are, from the disk.
    pub fn reset(&mut self, current: Revision, compacted: Revision) -> Vec<WatchId> {
        let known = std::mem::replace(&mut self.current, current);
        self.compacted = compacted;
        self.ring.clear();
        self.ring_bytes = 0;
        self.pieces.clear();
        self.watchers.values_mut().for_each(|watcher| watcher.fall_behind(known));
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
        if let Some(message) = watcher.take_queued() {
            return Some(Step::Send(message));
        }
        while watcher.queue.is_none() && watcher.next <= self.current {
            if watcher.next <= self.compacted {
                let message = WatchMessage::Compacted(self.compacted);
                self.remove(id);
                return Some(Step::End(message));
            }
            let oldest = self.ring.front().map(|(revision, _)| *revision);
            if let Some(oldest) = oldest.filter(|oldest| watcher.next < *oldest && bug!(DropVictimBatch)) {
                watcher.next = oldest;
            }
            if let Some(oldest) = oldest.filter(|oldest| watcher.next >= *oldest) {
                let skip = usize::try_from(watcher.next.0 - oldest.0).expect("the ring fits in memory");
                if let Some(message) = watcher.first_of(self.ring.range(skip..)) {
                    return Some(Step::Send(message));
                }
                watcher.next = after(self.current);
                break;
            }
            let covers = |piece: &&Piece| piece.from <= watcher.next && watcher.next <= piece.upto;
            let Some(piece) = self.pieces.iter().find(covers) else { return Some(Step::Load(watcher.next)) };
            let skip = piece.events.partition_point(|(revision, _)| *revision < watcher.next);
            if let Some(message) = watcher.first_of(piece.events[skip..].iter()) {
                if bug!(DuplicateOnResync) && watcher.next > piece.upto {
                    watcher.next = piece.upto;
                }
                return Some(Step::Send(message));
            }
            watcher.next = after(piece.upto);
        }
        watcher.queue.get_or_insert_default();
        Some(watcher.answer(self.current).map_or(Step::Wait, Step::Send))
    }

    /// All events from `from` on up to the last of them, as the disk has them; `newest` is its newest
    /// revision. They are kept for a while, for every watcher that needs them.
    pub fn loaded(&mut self, from: Revision, events: Vec<RevisionEvents>, newest: Revision) {
        let upto = events.last().map_or(newest, |(revision, _)| *revision);
        if self.pieces.len() == PIECES {
            self.pieces.pop_front();
        }
        self.pieces.push_back(Piece { from, upto, events });
    }

    /// Whether the watcher would have to wait for the disk.
    pub fn must_load(&self, id: WatchId) -> bool {
        let Some(watcher) = self.watchers.get(&id) else { return false };
        let in_ring = self.ring.front().is_some_and(|(oldest, _)| *oldest <= watcher.next);
        let covers = |piece: &Piece| piece.from <= watcher.next && watcher.next <= piece.upto;
        let wanted = self.compacted < watcher.next && watcher.next <= self.current;
        watcher.queue.is_none() && wanted && !in_ring && !self.pieces.iter().any(covers)
    }

    /// Offers progress to each watcher that has everything but hasn't heard so; `offer` says whether the
    /// watcher had room. One that hadn't is offered it again at the next call.
    pub fn progress(&mut self, mut offer: impl FnMut(WatchId, WatchMessage) -> bool) {
        let current = self.current;
        for (id, watcher) in &mut self.watchers {
            let has_all = watcher.queue.as_ref().is_some_and(VecDeque::is_empty) || bug!(ProgressOutOfBand);
            if has_all
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
    /// A revision that concerns it was applied.
    fn notice(&mut self, revision: Revision, events: Arc<[Event]>) {
        let next = self.next;
        let Some(queue) = self.queue.as_mut().filter(|_| revision >= next) else { return };
        queue.push_back((revision, events));
        if queue.len() > LIVE_QUEUE {
            self.fall_behind(before(revision));
        }
    }

    /// Gives up the queue, which held everything up to `known`.
    fn fall_behind(&mut self, known: Revision) {
        let Some(queue) = self.queue.take() else { return };
        let first_missing = queue.front().map_or(after(known), |(revision, _)| *revision);
        self.next = self.next.max(first_missing);
    }

    fn take_queued(&mut self) -> Option<WatchMessage> {
        let (revision, events) = self.queue.as_mut()?.pop_front()?;
        (self.next, self.told) = (after(revision), revision);
        Some(WatchMessage::Events { revision, events })
    }

    /// The first message among revisions from `next` on, and moves past it.
    fn first_of<'a>(&mut self, revisions: impl Iterator<Item = &'a RevisionEvents>) -> Option<WatchMessage> {
        revisions.into_iter().find_map(|(revision, events)| self.message(*revision, events))
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
}

fn after(revision: Revision) -> Revision {
    Revision(revision.0 + 1)
}

fn before(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(1))
}

/// What events take in memory, about.
pub fn bytes(events: &[Event]) -> usize {
    let size = |event: &Event| {
        let prev = event.prev.as_ref().map_or(0, |prev| prev.value.len());
        event.kv.key.len() * 2 + event.kv.value.len() + prev + 200
    };
    events.iter().map(size).sum()
}

#[cfg(test)]
mod tests;
