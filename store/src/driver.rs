//! The one thread that runs a [`Replica`] over RocksDB.
//!
//! It takes everything that has come since it last looked as one batch, so one fsync and one wake-up
//! serve all of it, and wakes itself only for ticks. When the disk fails it ends the process: nothing
//! that is not durable may be acknowledged, and a failed fsync can't be repeated.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::{oneshot, watch};

use crate::chain::chain;
use crate::command::Applied;
use crate::config::History;
use crate::failpoint::failpoint;
use crate::kv::{KvError, Revision, Status};
use crate::membership::Membership;
use crate::mvcc::state::Head;
use crate::peer::Outbox;
use crate::raft::lease_desk::LeaseAnswer;
use crate::raft::proposals::Ticket;
use crate::raft::replica::{Fatal, Input, Now, Output, Replica};
use crate::rocks::Rocks;
use crate::snapshot::incoming;
use crate::snapshot::offer::Offers;
use crate::space::Space;
use crate::watch::task::Watches;

mod halt;
mod handle;

pub use handle::{Handle, Request, Shared};

/// Requests waiting for the thread. When full, callers are refused as overloaded and messages of other
/// members are dropped, which Raft tolerates.
const QUEUE: usize = 8192;
/// Inputs taken at once.
const BATCH: usize = 1024;
/// History events cleaned up between two batches.
const SCRUB_EVENTS: usize = 512;
/// Exit code after a failed disk (`EX_IOERR`).
const EXIT_DISK: i32 = 74;

/// What the thread works with.
pub struct Driver {
    /// The member.
    pub replica: Replica<Rocks>,
    /// Where messages go.
    pub outbox: Outbox,
    /// Where events go.
    pub watches: Arc<Watches>,
    /// Where received snapshots are.
    pub snapshots: PathBuf,
    /// Retention by size.
    pub history: History,
    /// The length of a tick.
    pub tick: Duration,
    /// Whom to talk to until the membership is known: for a member that joins.
    pub introduced: Membership,
    /// The room on its filesystem.
    pub space: Space,
}

/// Starts the thread.
///
/// # Errors
/// If the system refuses a thread.
pub fn spawn(driver: Driver) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
    let (queue, requests) = sync_channel(QUEUE);
    let (leader, _) = watch::channel(None);
    let (removed, _) = watch::channel(false);
    let known = driver.replica.membership();
    let membership = if known.is_empty() { &driver.introduced } else { known };
    let membership = RwLock::new(Arc::new(membership.clone()));
    let healthy = RwLock::new(driver.replica.healthy());
    let status = RwLock::new(status(&driver.replica));
    let shared = Shared {
        status,
        sole: false.into(),
        leader,
        membership,
        healthy,
        removed,
        offers: Offers::default(),
        fence: OnceLock::new(),
    };
    let handle = Handle { queue, shared: Arc::new(shared) };
    let thread = Loop {
        driver,
        handle: handle.clone(),
        waiting: BTreeMap::new(),
        reading: BTreeMap::new(),
        asking: BTreeMap::new(),
        last_ticket: 0,
        started: Instant::now(),
        scrubbing: true,
        next_size_check: Duration::ZERO,
        made: None,
        arrived: Vec::new(),
    };
    let join = std::thread::Builder::new().name("store".into()).spawn(move || thread.run(&requests))?;
    Ok((handle, join))
}

/// The time as the replica wants it.
pub fn now(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: started.elapsed(), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
}

struct Loop {
    driver: Driver,
    handle: Handle,
    waiting: BTreeMap<Ticket, oneshot::Sender<Applied>>,
    reading: BTreeMap<Ticket, oneshot::Sender<Result<(), KvError>>>,
    asking: BTreeMap<Ticket, oneshot::Sender<LeaseAnswer>>,
    last_ticket: u64,
    started: Instant,
    /// There may be compacted history to clean up.
    scrubbing: bool,
    next_size_check: Duration,
    /// A snapshot that is ready for Raft.
    made: Option<Input>,
    /// Received snapshots that the next batch hands to Raft.
    arrived: Vec<String>,
}

impl Loop {
    fn run(mut self, requests: &Receiver<Request>) {
        let mut next_tick = self.driver.tick;
        self.driver.outbox.set_members(&self.handle.shared.membership());
        // Kept from turn to turn: making it grow again each time costs more than all it is used for.
        let mut inputs = Vec::new();
        loop {
            if self.gather(requests, next_tick, &mut inputs).is_none() {
                break;
            }
            let now = now(self.started);
            inputs.extend(self.driver.outbox.take_failures());
            inputs.extend(self.driver.space.look(now.mono).map(Input::Space));
            inputs.extend(self.made.take());
            if now.mono >= next_tick {
                inputs.push(Input::Tick);
                // After a pause one tick, not all that were missed: they would look like a dead leader.
                next_tick = now.mono + self.driver.tick;
                self.check_size(now.mono, &mut inputs);
                *self.handle.shared.healthy.write() = self.driver.replica.healthy();
            }
            match self.turn(now, &mut inputs) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(Fatal::Fenced(detail)) => {
                    self.fence(requests, &detail);
                    break;
                }
                Err(fatal) if fatal.is_no_space() => {
                    if !self.wait_for_space(requests, &fatal) {
                        break;
                    }
                }
                Err(fatal) => die(&fatal),
            }
        }
        self.driver.outbox.close();
    }

    /// Waits for the first request or the next tick, then takes what else is there, onto `inputs`. `None` to end.
    fn gather(
        &mut self,
        requests: &Receiver<Request>,
        next_tick: Duration,
        inputs: &mut Vec<Input>,
    ) -> Option<()> {
        let busy = self.scrubbing || self.made.is_some();
        let patience = if busy { Duration::ZERO } else { next_tick.saturating_sub(self.started.elapsed()) };
        match requests.recv_timeout(patience) {
            Ok(request) => self.accept(request, inputs)?,
            Err(RecvTimeoutError::Timeout) => return Some(()),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        while inputs.len() < BATCH {
            match requests.try_recv() {
                Ok(request) => self.accept(request, inputs)?,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Some(())
    }

    fn accept(&mut self, request: Request, inputs: &mut Vec<Input>) -> Option<()> {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        inputs.push(match request {
            Request::Propose(command, reply) => {
                self.waiting.insert(ticket, reply);
                Input::Propose(ticket, command)
            }
            Request::Read(reply) => {
                self.reading.insert(ticket, reply);
                Input::Read(ticket)
            }
            Request::Lease(ask, reply) => {
                self.asking.insert(ticket, reply);
                Input::Lease(ticket, ask)
            }
            Request::Input(input) => {
                self.arrived.extend(snapshot_name(&input));
                input
            }
            Request::Answer(caller, address) => {
                self.driver.outbox.answer(caller, &address);
                return Some(());
            }
            Request::Stop => return None,
        });
        Some(())
    }

    /// One batch; `Break` if the member has to end.
    fn turn(&mut self, now: Now, inputs: &mut Vec<Input>) -> Result<ControlFlow<()>, Fatal> {
        let may_scrub = inputs.is_empty() || inputs.iter().any(|input| matches!(input, Input::Tick));
        let Driver { replica, outbox, .. } = &mut self.driver;
        let mut sink = |message: Message| outbox.send(message);
        let output = replica.handle(now, inputs.drain(..), &mut sink)?;
        self.scrubbing |= output.compacted;
        self.remove_ignored_snapshots();
        let removed = output.removed;
        self.publish(output);
        if removed {
            self.leave();
            return Ok(ControlFlow::Break(()));
        }
        if self.scrubbing && may_scrub {
            self.scrubbing = self.driver.replica.scrub(SCRUB_EVENTS)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Tells everyone. Status first: who got an answer must not see an older status.
    fn publish(&mut self, output: Output) {
        let head = self.driver.replica.state().head;
        failpoint!("reply_before_status");
        self.publish_status();
        if output.members_changed {
            self.publish_members();
        }
        if output.installed {
            self.driver.watches.reset(&head);
        }
        if !output.events.is_empty() || output.compacted {
            failpoint!("reply_before_events");
            self.driver.watches.publish(output.events, &head);
        }
        failpoint!("reply_before_results");
        for (ticket, result) in output.results {
            if let Some(reply) = self.waiting.remove(&ticket) {
                // The caller may have gone away; the write stands all the same.
                let _gone = reply.send(result);
            }
        }
        for (ticket, result) in output.reads {
            if let Some(reply) = self.reading.remove(&ticket) {
                let _gone = reply.send(result);
            }
        }
        for (ticket, answer) in output.leases {
            if let Some(reply) = self.asking.remove(&ticket) {
                let _gone = reply.send(answer);
            }
        }
        failpoint!("reply_after_results");
        if output.snapshot_wanted {
            self.make_snapshot(&head);
        }
    }

    fn publish_members(&mut self) {
        let membership = self.driver.replica.membership();
        let (voters, learners) = (membership.voters(), membership.learners());
        tracing::info!(?voters, ?learners, "the membership has changed");
        *self.handle.shared.membership.write() = Arc::new(membership.clone());
        self.driver.outbox.set_members(membership);
    }

    /// Removed from the group: says so. Whoever waits gets no answer, as at any other end.
    fn leave(&self) {
        let member = self.driver.replica.id();
        tracing::error!("member {member} was removed from the cluster; its store ends and can't start again");
        self.handle.shared.removed.send_replace(true);
    }

    fn publish_status(&mut self) {
        let status = status(&self.driver.replica);
        let member = self.driver.replica.member();
        let sole =
            status.voters.len() == 1 && member.leads_surely() && member.commit() == status.applied_index;
        let shared = &self.handle.shared;
        shared.sole.store(sole, std::sync::atomic::Ordering::Release);
        let leader = status.leader;
        *shared.status.write() = status;
        shared.leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
    }

    /// Keeps the state as it is now, for whoever needs a snapshot: done before the next batch, and cheap.
    fn make_snapshot(&mut self, head: &Head) {
        let mut message = self.driver.replica.snapshot_header();
        let name = format!("{}-{}", head.index, self.started.elapsed().as_nanos());
        let kept = self.handle.shared.offers.keep(name.clone(), self.driver.replica.disk().clone());
        let made = match kept {
            Ok(()) => {
                message.data = name.into_bytes().into();
                Some(message)
            }
            Err(error) => {
                tracing::warn!(%error, "no thread for a snapshot; Raft asks again");
                None
            }
        };
        self.made = Some(Input::SnapshotMade(made));
    }

    /// What Raft didn't take of the snapshots that have come is of no use. Removing it may take long.
    fn remove_ignored_snapshots(&mut self) {
        let arrived = std::mem::take(&mut self.arrived).into_iter();
        let ignored: Vec<PathBuf> =
            arrived.map(|name| self.driver.snapshots.join(name)).filter(|path| path.exists()).collect();
        if ignored.is_empty() {
            return;
        }
        let remove = move || ignored.iter().for_each(|path| incoming::remove(path));
        if let Err(error) = std::thread::Builder::new().name("store-remove".into()).spawn(remove) {
            tracing::warn!(%error, "no thread to remove a snapshot on; the next start does it");
        }
    }

    /// History larger than allowed: forget its older half.
    fn check_size(&mut self, now: Duration, inputs: &mut Vec<Input>) {
        if now < self.next_size_check || !self.driver.replica.member().leads_surely() {
            return;
        }
        self.next_size_check = now + self.driver.history.check_every;
        let head = self.driver.replica.state().head;
        if self.driver.replica.disk().history_bytes() > self.driver.history.max_bytes {
            let middle = head.compacted.0.midpoint(head.revision.0);
            inputs.push(Input::Compact(Revision(middle)));
        }
    }
}

/// The directory of the received snapshot that a message brings.
fn snapshot_name(input: &Input) -> Option<String> {
    match input {
        Input::Message(message) if message.get_msg_type() == MessageType::MsgSnapshot => {
            Some(String::from_utf8_lossy(&message.get_snapshot().data).into_owned())
        }
        _ => None,
    }
}

fn status(replica: &Replica<Rocks>) -> Status {
    let (leadership, head) = (replica.member().leadership(), replica.state().head);
    Status {
        member: replica.id(),
        leader: leadership.leader,
        term: leadership.term,
        applied_index: head.index,
        revision: head.revision,
        compacted: head.compacted,
        voters: replica.membership().voters(),
        learners: replica.membership().learners(),
    }
}

fn die(fatal: &Fatal) -> ! {
    tracing::error!("the store can't go on: {}", chain(fatal));
    // A unit test that damages a member's files must outlive it.
    if cfg!(test) {
        panic!("the store can't go on: {}", chain(fatal));
    }
    std::process::exit(EXIT_DISK)
}
