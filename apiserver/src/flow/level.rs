//! One priority level: seats, and queues that share them fairly.
//!
//! A request takes seats while it is served. When none is free it waits in one of the queues in its flow's hand,
//! and queues are served by virtual time, as upstream does (fair queuing of packets, with seats times seconds in
//! place of bytes): a queue's clock moves on by what its requests take, and the queue whose next request would
//! end first is served next. No clock, no task, no lock here; requests are numbers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::shuffle;

/// A request, for as long as it is known here.
pub type RequestId = u64;

/// What a request is thought to take before it is known (upstream's guess).
const GUESS: f64 = 0.003;

/// What a level may do, as its PriorityLevelConfiguration says.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// No limit at all.
    pub exempt: bool,
    /// Seats of its own.
    pub nominal: u32,
    /// Of them, what others may use while they are idle.
    pub lendable: u32,
    /// What it may use of others' at most.
    pub borrowable: u32,
    /// Queues; none means that what finds no seat is rejected.
    pub queues: usize,
    /// Queues in the hand of a flow.
    pub hand: usize,
    /// Requests that may wait in one queue.
    pub queue_length: usize,
}

/// Why a request isn't served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// Every queue in its hand is full.
    QueueFull,
    /// No seat is free, and the level has no queues.
    ConcurrencyLimit,
    /// It waited too long.
    TimeOut,
}

impl Rejection {
    /// The name in metrics, upstream's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
        }
    }
}

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is served at once.
    Served,
    /// It waits; whether its turn has come already, [`Level::dispatch`] tells.
    Waits,
    /// It is refused.
    Rejected(Rejection),
}

/// A level at work.
#[derive(Debug)]
pub struct Level {
    /// What it may do.
    pub shape: Shape,
    queues: Vec<Queue>,
    running: BTreeMap<RequestId, Running>,
    /// Seats in use.
    seats: u32,
    waiting: usize,
    /// Seat-seconds that a queue has been entitled to since the beginning.
    virtual_now: f64,
    updated: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    running: u32,
    /// When, in virtual time, its next request begins.
    next_start: f64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: RequestId,
    seats: u32,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    seats: u32,
    /// `None` if it never was in one.
    queue: Option<usize>,
    began: Duration,
}

impl Level {
    /// An idle level.
    pub fn new(shape: Shape) -> Self {
        let mut level = Self {
            shape: shape.clone(),
            queues: Vec::new(),
            running: BTreeMap::new(),
            seats: 0,
            waiting: 0,
            virtual_now: 0.0,
            updated: Duration::ZERO,
        };
        level.reshape(shape);
        level
    }

    /// Changes what it may do; who waits or is served stays. Queues that are no longer dealt run empty.
    pub fn reshape(&mut self, shape: Shape) {
        while self.queues.len() < shape.queues {
            self.queues.push(Queue::default());
        }
        self.shape = shape;
    }

    /// Seats in use.
    pub fn seats(&self) -> u32 {
        self.seats
    }

    /// Requests that are served.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Seats of its own that others may use now.
    pub fn idle_lendable(&self) -> u32 {
        self.shape.nominal.saturating_sub(self.seats).min(self.shape.lendable)
    }

    /// Seats of others that it uses now.
    pub fn borrowed(&self) -> u32 {
        if self.shape.exempt { 0 } else { self.seats.saturating_sub(self.shape.nominal) }
    }

    /// A request of the flow with this hash arrives; `spare` seats of other levels are free for it.
    pub fn arrive(&mut self, id: RequestId, hash: u64, seats: u32, spare: u32, now: Duration) -> Arrival {
        self.advance(now);
        if self.shape.exempt {
            self.start(id, seats, None, now);
            return Arrival::Served;
        }
        let seats = seats.clamp(1, self.shape.nominal.max(1));
        if self.shape.queues == 0 {
            if !self.has_room(seats, spare) {
                return Arrival::Rejected(Rejection::ConcurrencyLimit);
            }
            self.start(id, seats, None, now);
            return Arrival::Served;
        }
        let queue = self.shortest(hash);
        if self.queues[queue].waiting.len() >= self.shape.queue_length {
            return Arrival::Rejected(Rejection::QueueFull);
        }
        self.enqueue(queue, Waiting { id, seats });
        Arrival::Waits
    }

    /// Whom to serve next, as long as there is room: the numbers of those that begin now.
    pub fn dispatch(&mut self, spare: u32, now: Duration) -> Vec<RequestId> {
        self.advance(now);
        let mut begun = Vec::new();
        while let Some(queue) = self.next_queue() {
            let first = self.queues[queue].waiting[0];
            let spare = spare.saturating_sub(self.borrowed());
            if !self.has_room(first.seats, spare) {
                break;
            }
            self.queues[queue].waiting.pop_front();
            self.waiting -= 1;
            self.start(first.id, first.seats, Some(queue), now);
            begun.push(first.id);
        }
        begun
    }

    /// A request is done. False if it isn't served here.
    pub fn finish(&mut self, id: RequestId, now: Duration) -> bool {
        self.advance(now);
        let Some(running) = self.running.remove(&id) else { return false };
        self.seats -= running.seats;
        if let Some(queue) = running.queue {
            let took = now.saturating_sub(running.began).as_secs_f64();
            // It was charged by a guess; now it is known.
            self.queues[queue].next_start += f64::from(running.seats) * (took - GUESS);
            self.queues[queue].running -= 1;
        }
        true
    }

    /// A request stops waiting. False if it doesn't wait here.
    pub fn abandon(&mut self, id: RequestId, now: Duration) -> bool {
        self.advance(now);
        for queue in &mut self.queues {
            if let Some(at) = queue.waiting.iter().position(|waiting| waiting.id == id) {
                queue.waiting.remove(at);
                self.waiting -= 1;
                return true;
            }
        }
        false
    }

    fn has_room(&self, seats: u32, spare: u32) -> bool {
        let borrowable = spare.min(self.shape.borrowable.saturating_sub(self.borrowed()));
        // One that asks for more than there is runs alone rather than never.
        self.seats == 0 || self.seats + seats <= self.shape.nominal.max(self.seats) + borrowable
    }

    fn start(&mut self, id: RequestId, seats: u32, queue: Option<usize>, now: Duration) {
        self.seats += seats;
        if let Some(queue) = queue {
            self.queues[queue].next_start += f64::from(seats) * GUESS;
            self.queues[queue].running += 1;
        }
        self.running.insert(id, Running { seats, queue, began: now });
    }

    fn enqueue(&mut self, queue: usize, request: Waiting) {
        let virtual_now = self.virtual_now;
        let queue = &mut self.queues[queue];
        if queue.waiting.is_empty() && queue.running == 0 {
            // Idle time is no credit: who comes back begins now.
            queue.next_start = virtual_now;
        }
        queue.waiting.push_back(request);
        self.waiting += 1;
    }

    /// Of the queues in the flow's hand the one with the least work.
    fn shortest(&self, hash: u64) -> usize {
        let hand = shuffle::deal(hash, self.shape.queues, self.shape.hand);
        let work = |queue: &usize| {
            let queue = &self.queues[*queue];
            queue.waiting.iter().map(|waiting| u64::from(waiting.seats)).sum::<u64>()
                + u64::from(queue.running)
        };
        hand.into_iter().min_by_key(work).expect("a hand has at least one queue")
    }

    /// The queue whose first request would end first, in virtual time.
    fn next_queue(&self) -> Option<usize> {
        let end = |queue: &Queue| {
            let first = queue.waiting.front()?;
            Some(queue.next_start + f64::from(first.seats) * GUESS)
        };
        let waiting = self.queues.iter().enumerate().filter_map(|(index, queue)| Some((index, end(queue)?)));
        waiting.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
    }

    /// Moves virtual time on: the seats of the level, shared by the queues that want some.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.updated).as_secs_f64();
        self.updated = self.updated.max(now);
        if passed == 0.0 || self.shape.exempt {
            return;
        }
        let wants = |queue: &&Queue| !queue.waiting.is_empty() || queue.running > 0;
        let active = self.queues.iter().filter(wants).count();
        if active > 0 {
            let wanted: u32 = self.queues.iter().flat_map(|q| &q.waiting).map(|waiting| waiting.seats).sum();
            let rate = f64::from((wanted + self.seats).min(self.shape.nominal.max(self.seats)));
            self.virtual_now += passed * rate / active as f64;
        }
    }
}

#[cfg(test)]
#[path = "level_tests.rs"]
mod tests;
