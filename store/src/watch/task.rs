//! Gives watchers what the [`Hub`] says: one task for all of them.
//!
//! The store's thread only puts new events into an inbox. A watcher whose channel holds enough, in messages
//! or in bytes, is left alone until its reader has taken half of it, and is then fed from where it stopped:
//! a slow reader costs a bounded channel and never delays the others. History is read from the disk on a
//! thread that may block, one piece at a time for all who lag.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::hub::{self, Hub, Step, WatchId};
use crate::failpoint::failpoint;
use crate::kv::{KvError, Revision, Watch, WatchControl, WatchMessage, WatchRequest};
use crate::mvcc::read::RevisionEvents;
use crate::mvcc::state::Head;
use crate::rocks::Rocks;

mod loader;

use loader::Loader;

/// How often an idle watcher hears how far the store is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Messages for one watcher before the others have their turn.
const TURN: usize = 256;
/// Batches that wait for the task; when there are more, the store's thread distributes them itself.
const INBOX: usize = 1024;
/// Bytes of messages in the channels of all watchers together, as long as each may have its least.
const CHANNEL_BYTES: usize = 64 << 20;
/// A watcher's channel may always hold this much, and one message.
const LEAST_CHANNEL_BYTES: usize = 16 << 10;
/// A watcher's channel never holds more than this and one message.
const MOST_CHANNEL_BYTES: usize = 1 << 20;

/// All watchers as shared between the store's thread, callers and the task.
pub struct Watches {
    inner: Mutex<Inner>,
    /// What the store's thread has applied. Taken only under the lock of `inner`, so in order.
    inbox: Mutex<Vec<Update>>,
    /// Watchers whose readers have made room; each is in it once at most.
    roomy: Mutex<Vec<WatchId>>,
    /// How many watchers there are.
    watching: AtomicUsize,
    wake: Notify,
    buffer: usize,
}

enum Update {
    Applied { events: Vec<RevisionEvents>, current: Revision, compacted: Revision },
    Installed { current: Revision, compacted: Revision },
}

struct Inner {
    hub: Hub,
    outlets: BTreeMap<WatchId, Outlet>,
    /// Who may have something to get.
    active: BTreeSet<WatchId>,
    closed: bool,
}

/// The sending end of a watch.
struct Outlet {
    sender: mpsc::Sender<WatchMessage>,
    gauge: Arc<Gauge>,
}

/// What is in a watch's channel, as far as both ends must know.
#[derive(Default)]
struct Gauge {
    bytes: AtomicUsize,
    /// The task leaves this watcher alone until its reader says that there is room.
    blocked: AtomicBool,
}

impl Watches {
    /// No watchers; `buffer` messages wait for each.
    pub fn new(hub: Hub, buffer: usize) -> Arc<Self> {
        let inner = Inner { hub, outlets: BTreeMap::new(), active: BTreeSet::new(), closed: false };
        Arc::new(Self {
            inner: Mutex::new(inner),
            inbox: Mutex::default(),
            roomy: Mutex::default(),
            watching: AtomicUsize::new(0),
            wake: Notify::new(),
            buffer,
        })
    }

    /// A watcher comes.
    ///
    /// # Errors
    /// [`KvError::Compacted`] if its start is gone, [`KvError::Closed`] after the end.
    pub fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<Watch, KvError> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(KvError::Closed);
        }
        failpoint!("watch_open");
        self.drain(&mut inner);
        let (id, revision) = inner.hub.register(request.range, request.start)?;
        let (sender, messages) = mpsc::channel(self.buffer);
        let gauge = Arc::new(Gauge::default());
        inner.outlets.insert(id, Outlet { sender, gauge: gauge.clone() });
        inner.active.insert(id);
        self.watching.store(inner.outlets.len(), Ordering::SeqCst);
        self.wake.notify_one();
        let control = Arc::new(Control { watches: self.clone(), id, gauge });
        Ok(Watch::new(messages, control, revision))
    }

    /// New revisions were applied.
    pub fn publish(&self, events: Vec<RevisionEvents>, head: &Head) {
        self.put(Update::Applied { events, current: head.revision, compacted: head.compacted });
    }

    /// A snapshot replaced the state.
    pub fn reset(&self, head: &Head) {
        self.put(Update::Installed { current: head.revision, compacted: head.compacted });
    }

    fn put(&self, update: Update) {
        let full = {
            let mut inbox = self.inbox.lock();
            inbox.push(update);
            inbox.len() >= INBOX
        };
        if full || self.watching.load(Ordering::SeqCst) == 0 {
            self.drain(&mut self.inner.lock());
        }
        if self.watching.load(Ordering::SeqCst) > 0 {
            self.wake.notify_one();
        }
    }

    /// Distributes what has been applied.
    fn drain(&self, inner: &mut Inner) {
        let updates = std::mem::take(&mut *self.inbox.lock());
        for update in updates {
            let concerned = match update {
                Update::Applied { events, current, compacted } => {
                    inner.hub.publish(events, current, compacted)
                }
                Update::Installed { current, compacted } => inner.hub.reset(current, compacted),
            };
            inner.active.extend(concerned);
        }
    }

    fn forget(&self, inner: &mut Inner, id: WatchId) {
        failpoint!("watch_cancel");
        inner.hub.remove(id);
        inner.outlets.remove(&id);
        inner.active.remove(&id);
        self.watching.store(inner.outlets.len(), Ordering::SeqCst);
    }

    /// Ends all watches.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.outlets.clear();
        self.watching.store(0, Ordering::SeqCst);
    }

    /// Everyone who may have something to get.
    fn take_active(&self) -> BTreeSet<WatchId> {
        let mut inner = self.inner.lock();
        self.drain(&mut inner);
        inner.active.extend(self.roomy.lock().drain(..));
        std::mem::take(&mut inner.active)
    }

    fn tell_progress(&self) {
        failpoint!("watch_progress");
        let mut inner = self.inner.lock();
        self.drain(&mut inner);
        let Inner { hub, outlets, .. } = &mut *inner;
        hub.progress(|id, message| outlets.get(&id).is_some_and(|outlet| outlet.try_send(message)));
    }
}

/// What a watch hears of its reader.
struct Control {
    watches: Arc<Watches>,
    id: WatchId,
    gauge: Arc<Gauge>,
}

impl WatchControl for Control {
    fn received(&self, message: &WatchMessage, left: usize) {
        self.gauge.bytes.fetch_sub(bytes(message), Ordering::SeqCst);
        // Pairs with the fence in `Outlet::block`: the task sees the empty channel, or we see that it waits.
        fence(Ordering::SeqCst);
        if self.gauge.blocked.load(Ordering::SeqCst)
            && left <= self.watches.buffer / 2
            && self.gauge.blocked.swap(false, Ordering::SeqCst)
        {
            self.watches.roomy.lock().push(self.id);
            self.watches.wake.notify_one();
        }
    }

    fn request_progress(&self) {
        let mut inner = self.watches.inner.lock();
        inner.hub.request_progress(self.id);
        inner.active.insert(self.id);
        self.watches.wake.notify_one();
    }

    fn ended(&self) {
        self.watches.forget(&mut self.watches.inner.lock(), self.id);
    }
}

impl Outlet {
    fn is_empty(&self) -> bool {
        self.sender.capacity() == self.sender.max_capacity()
    }

    /// Whether another message may be put in: always one, then up to `most` bytes.
    fn has_room(&self, most: usize) -> bool {
        self.is_empty() || self.sender.capacity() > 0 && self.gauge.bytes.load(Ordering::SeqCst) < most
    }

    /// Has the reader say when there is room; false if it has taken everything meanwhile.
    fn block(&self) -> bool {
        failpoint!("watch_victim");
        self.gauge.blocked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let blocked = !self.is_empty();
        if !blocked {
            self.gauge.blocked.store(false, Ordering::SeqCst);
        }
        blocked
    }

    fn try_send(&self, message: WatchMessage) -> bool {
        let size = bytes(&message);
        // Counted before the reader can take it.
        self.gauge.bytes.fetch_add(size, Ordering::SeqCst);
        let sent = self.sender.try_send(message).is_ok();
        if !sent {
            self.gauge.bytes.fetch_sub(size, Ordering::SeqCst);
        }
        sent
    }
}

fn bytes(message: &WatchMessage) -> usize {
    match message {
        WatchMessage::Events { events, .. } => hub::bytes(events),
        WatchMessage::Progress(_) | WatchMessage::Compacted(_) => 64,
    }
}

/// Serves all watchers until `shutdown` says so.
pub async fn serve(watches: Arc<Watches>, rocks: Rocks, mut shutdown: watch::Receiver<bool>) {
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut loader = Loader { rocks, waiting: VecDeque::new(), running: None };
    loop {
        tokio::select! {
            () = async { drop(shutdown.wait_for(|stop| *stop).await) } => break,
            () = watches.wake.notified() => {}
            _ = progress.tick() => watches.tell_progress(),
            loaded = loader.done() => loader.settle(&watches, loaded),
        }
        for id in watches.take_active() {
            match pump(&watches, id) {
                Pumped::Idle => {}
                Pumped::More => {
                    watches.inner.lock().active.insert(id);
                    watches.wake.notify_one();
                }
                Pumped::Load(from) => loader.ask(id, from),
            }
        }
        loader.start();
    }
    loader.stop().await;
    watches.close();
}

enum Pumped {
    /// It has everything, or its channel is full and its reader will say when it isn't.
    Idle,
    More,
    Load(Revision),
}

/// Sends a watcher what it has to get, up to a turn.
fn pump(watches: &Watches, id: WatchId) -> Pumped {
    let mut inner = watches.inner.lock();
    let Inner { hub, outlets, .. } = &mut *inner;
    let most = (CHANNEL_BYTES / outlets.len().max(1)).clamp(LEAST_CHANNEL_BYTES, MOST_CHANNEL_BYTES);
    let Some(outlet) = outlets.get(&id) else { return Pumped::Idle };
    for _ in 0..TURN {
        if !outlet.has_room(most) && outlet.block() {
            hub.set_aside(id);
            return Pumped::Idle;
        }
        let permit = match outlet.sender.try_reserve() {
            Ok(permit) => permit,
            // The reader is between taking the last message and saying so.
            Err(TrySendError::Full(())) => continue,
            // It is about to be forgotten.
            Err(TrySendError::Closed(())) => return Pumped::Idle,
        };
        let (message, ends) = match hub.next(id) {
            None | Some(Step::Wait) => return Pumped::Idle,
            Some(Step::Load(from)) => return Pumped::Load(from),
            Some(Step::Send(message)) => (message, false),
            Some(Step::End(message)) => (message, true),
        };
        failpoint!("watch_send");
        outlet.gauge.bytes.fetch_add(bytes(&message), Ordering::SeqCst);
        permit.send(message);
        if ends {
            watches.forget(&mut inner, id);
            return Pumped::Idle;
        }
    }
    Pumped::More
}
