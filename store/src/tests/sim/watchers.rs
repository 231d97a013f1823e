//! Watchers at any member, slow and fast, from past and future revisions, who come back after a crash
//! where they stopped. Everything they get is kept and judged at the end.

use std::collections::VecDeque;

use super::random::Random;
use super::registers::key;
use super::verdict::{Judge, ensure, violated};
use super::world::World;
use crate::kv::{KeyRange, Revision, WatchMessage};
use crate::mvcc::read;
use crate::mvcc::state::Head;
use crate::proof::watch::{self, Watched};
use crate::watch::hub::{Hub, Step, WatchId};

const WATCHERS: usize = 4;
/// Messages on the way to one reader.
const QUEUE: usize = 4;

pub struct Watchers {
    random: Random,
    all: Vec<Watcher>,
    /// Watches that have ended.
    ended: Vec<Watched>,
    /// Events, and messages of progress.
    pub delivered: (u64, u64),
}

struct Watcher {
    range: KeyRange,
    /// The next revision it needs; `None` before it ever watched: then it chooses.
    needs: Option<Revision>,
    now: Option<Open>,
}

struct Open {
    node: usize,
    id: WatchId,
    /// Sent and not read yet.
    queue: VecDeque<WatchMessage>,
    watched: Watched,
}

impl Watchers {
    pub fn new(seed: u64) -> Self {
        let watcher = |_| Watcher { range: KeyRange::prefix(""), needs: None, now: None };
        let all = (0..WATCHERS).map(watcher).collect();
        Self { random: Random::new(seed, 4), all, ended: Vec::new(), delivered: (0, 0) }
    }

    fn some_range(&mut self) -> KeyRange {
        match self.random.below(4) {
            0 => KeyRange::prefix(""),
            1 => KeyRange::prefix("k"),
            2 => KeyRange::prefix("l"),
            _ => KeyRange::key(key(self.random.below(3))),
        }
    }

    /// Ends a watch; what it got is judged later.
    fn close(&mut self, watcher: usize) -> Option<(usize, WatchId)> {
        let open = self.all[watcher].now.take()?;
        self.ended.push(open.watched);
        Some((open.node, open.id))
    }
}

impl Open {
    /// The reader takes a message; the next revision it needs.
    fn take(&mut self, needs: Revision) -> Option<(Revision, WatchMessage)> {
        let message = self.queue.pop_front()?;
        self.watched.messages.push(message.clone());
        let upto = match &message {
            WatchMessage::Events { revision, .. } | WatchMessage::Progress(revision) => *revision,
            WatchMessage::Compacted(revision) => *revision,
        };
        Some((needs.max(Revision(upto.0 + 1)), message))
    }
}

impl World {
    /// Watches there end with their member.
    pub fn watches_break(&mut self, node: usize) {
        for watcher in 0..WATCHERS {
            if self.watchers.all[watcher].now.as_ref().is_some_and(|open| open.node == node) {
                self.watchers.close(watcher);
            }
        }
    }

    pub fn watchers_act(&mut self) {
        for watcher in 0..WATCHERS {
            match &self.watchers.all[watcher].now {
                None if self.watchers.random.percent(20) => self.open_watch(watcher),
                None => {}
                Some(open) if self.nodes[open.node].running.is_none() => {}
                Some(_) => self.serve(watcher),
            }
        }
    }

    fn open_watch(&mut self, watcher: usize) {
        let node = self.watchers.random.index(self.nodes.len());
        let Some(running) = &mut self.nodes[node].running else { return };
        let head = running.replica.state().head;
        if self.watchers.all[watcher].needs.is_none() {
            self.watchers.all[watcher].range = self.watchers.some_range();
        }
        let random = &mut self.watchers.random;
        let needs = self.watchers.all[watcher].needs.or_else(|| match random.below(4) {
            0 => None,
            1 => Some(Revision(head.revision.0 + random.between(1, 100))),
            _ => Some(Revision(1 + random.below(head.revision.0 + 3))),
        });
        let range = self.watchers.all[watcher].range.clone();
        match running.hub.register(range.clone(), needs) {
            Ok((id, current)) => {
                let start = needs.unwrap_or(Revision(current.0 + 1));
                let watched = Watched { range, start, messages: Vec::new() };
                self.watchers.all[watcher].needs = Some(start);
                self.watchers.all[watcher].now = Some(Open { node, id, queue: VecDeque::new(), watched });
            }
            Err(_) => {
                let needs = needs.unwrap_or_default();
                let compacted = self.oracle.compacted();
                ensure!(
                    needs <= compacted,
                    Judge::WatchComplete,
                    "a watch from {needs} is refused at {compacted}"
                );
                self.watchers.all[watcher].needs = Some(Revision(head.compacted.0 + 1));
            }
        }
    }

    /// Lets the member send, and the reader read.
    fn serve(&mut self, watcher: usize) {
        let open = self.watchers.all[watcher].now.as_mut().expect("it watches");
        let stalled = self.now < self.nodes[open.node].watchers_stall_until;
        let running = self.nodes[open.node].running.as_mut().expect("the member runs");
        while open.queue.len() < QUEUE {
            match running.hub.next(open.id) {
                None | Some(Step::Wait) => break,
                Some(Step::Send(message)) => open.queue.push_back(message),
                Some(Step::End(message)) => {
                    ensure!(
                        matches!(message, WatchMessage::Compacted(_)),
                        Judge::WatchComplete,
                        "a watch ended with {message:?}"
                    );
                    open.queue.push_back(message);
                }
                Some(Step::Load(from)) => {
                    load(&mut running.hub, from, running.replica.disk());
                }
            }
        }
        if open.queue.len() == QUEUE {
            running.hub.set_aside(open.id);
        }
        if !stalled && (self.calm || self.watchers.random.percent(60)) {
            self.read_messages(watcher);
        }
        if !self.calm && self.watchers.random.below(300) == 0 {
            self.leave(watcher);
        }
    }

    fn read_messages(&mut self, watcher: usize) {
        let (mut delivered, mut told, mut compacted) = (0, 0, None);
        let of = &mut self.watchers.all[watcher];
        let open = of.now.as_mut().expect("it watches");
        let mut needs = of.needs.expect("it watches from there");
        while let Some((next, message)) = open.take(needs) {
            match &message {
                WatchMessage::Events { events, .. } => delivered += events.len() as u64,
                WatchMessage::Progress(_) => told += 1,
                WatchMessage::Compacted(at) => compacted = Some((*at, needs)),
            }
            needs = next;
        }
        of.needs = Some(needs);
        self.watchers.delivered.0 += delivered;
        self.watchers.delivered.1 += told;
        if let Some((at, needs)) = compacted {
            let real = self.oracle.compacted();
            let right = needs <= at && at <= real;
            ensure!(right, Judge::WatchComplete, "told of compaction {at}: needs {needs}, really {real}");
            self.watchers.close(watcher);
        } else if self.watchers.random.percent(2)
            && let Some(open) = &self.watchers.all[watcher].now
            && let Some(running) = &mut self.nodes[open.node].running
        {
            running.hub.request_progress(open.id);
        }
    }

    /// The reader ends the watch; it comes back where it stopped, or watches something else.
    fn leave(&mut self, watcher: usize) {
        if let Some((node, id)) = self.watchers.close(watcher)
            && let Some(running) = &mut self.nodes[node].running
        {
            running.hub.remove(id);
        }
        if self.watchers.random.percent(50) {
            self.watchers.all[watcher].needs = None;
        }
    }

    /// Tells progress to the watchers at a member, as its timer does.
    pub fn tell_progress(&mut self, node: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let all = &mut self.watchers.all;
        running.hub.progress(|id, message| {
            let open = all.iter_mut().filter_map(|watcher| watcher.now.as_mut());
            let mut here = open.filter(|open| open.node == node && open.id == id && open.queue.len() < QUEUE);
            here.next().map(|open| open.queue.push_back(message)).is_some()
        });
    }

    /// Whether every watcher has everything up to the newest revision.
    pub fn watchers_are_done(&self) -> bool {
        let newest = self.oracle.newest();
        self.watchers.all.iter().all(|watcher| {
            let Some(open) = &watcher.now else { return false };
            let from = watcher.needs.unwrap_or_default();
            let mut left =
                (from <= newest).then(|| self.oracle.replay.history().range(from..)).into_iter().flatten();
            open.queue.is_empty()
                && left.all(|(_, events)| !events.iter().any(|event| watcher.range.contains(&event.kv.key)))
        })
    }

    pub fn invariant_watches_kept_their_guarantees(&mut self) {
        for watcher in 0..WATCHERS {
            self.watchers.close(watcher);
        }
        for watched in &self.watchers.ended {
            self.summary.watches += 1;
            if let Err(broken) = watch::check(watched, self.oracle.replay.history()) {
                let Watched { range, start, .. } = watched;
                violated(Judge::Watch(broken.guarantee), format!("{}; {range:?} from {start}", broken.what));
            }
        }
    }
}

/// Reads the past for a watcher, as the store's own task does.
fn load(hub: &mut Hub, from: Revision, disk: &super::disk::SimDisk) {
    let head = Head::load(disk).expect("memory can be read");
    if from <= head.compacted {
        return hub.note_compacted(head.compacted);
    }
    let events = read::events(disk, from, 300).expect("memory can be read");
    hub.loaded(from, events, head.revision);
}
