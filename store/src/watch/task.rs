//! Gives watchers what the [`Hub`] says: one task for all of them, woken once per applied batch that
//! concerns anyone.
//!
//! A watcher whose channel is full is left alone until it has room; it is then fed from where it
//! stopped, so a slow reader costs one channel of memory and never delays the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::hub::{Hub, Step, WatchId};
use crate::failpoint::failpoint;
use crate::kv::{KvError, Revision, Watch, WatchControl, WatchMessage, WatchRequest};
use crate::mvcc::read::{self, RevisionEvents};
use crate::mvcc::state::Head;
use crate::mvcc::view::DiskError;
use crate::rocks::Rocks;

/// How often an idle watcher hears how far the store is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Bytes of history read from disk for a watcher at once.
const LOAD_BYTES: usize = 256 << 10;
/// Messages for one watcher before the others have their turn.
const TURN: usize = 256;

/// The hub as shared between the apply thread, callers and the task.
pub struct Watches {
    inner: Mutex<Inner>,
    wake: Notify,
    buffer: usize,
}

struct Inner {
    hub: Hub,
    senders: BTreeMap<WatchId, mpsc::Sender<WatchMessage>>,
    /// Who may have something to get.
    active: BTreeSet<WatchId>,
    closed: bool,
}

impl Watches {
    /// No watchers; `buffer` messages wait for each.
    pub fn new(hub: Hub, buffer: usize) -> Arc<Self> {
        let inner = Inner { hub, senders: BTreeMap::new(), active: BTreeSet::new(), closed: false };
        Arc::new(Self { inner: Mutex::new(inner), wake: Notify::new(), buffer })
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
        let (id, revision) = inner.hub.register(request.range, request.start)?;
        let (sender, messages) = mpsc::channel(self.buffer);
        inner.senders.insert(id, sender);
        inner.active.insert(id);
        self.wake.notify_one();
        let control = Arc::new(Control { watches: self.clone(), id });
        Ok(Watch::new(messages, control, revision))
    }

    /// New revisions were applied.
    pub fn publish(&self, events: Vec<RevisionEvents>, head: &Head) {
        let mut inner = self.inner.lock();
        let interested = inner.hub.publish(events, head.revision, head.compacted);
        self.activate(&mut inner, interested);
    }

    /// A snapshot replaced the state.
    pub fn reset(&self, head: &Head) {
        let mut inner = self.inner.lock();
        let all = inner.hub.reset(head.revision, head.compacted);
        self.activate(&mut inner, all);
    }

    fn activate(&self, inner: &mut Inner, ids: Vec<WatchId>) {
        if !ids.is_empty() {
            inner.active.extend(ids);
            self.wake.notify_one();
        }
    }

    /// Ends all watches.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.senders.clear();
    }
}

/// What a watch hears of its reader.
struct Control {
    watches: Arc<Watches>,
    id: WatchId,
}

impl WatchControl for Control {
    fn received(&self, _message: &WatchMessage, _left: usize) {}

    fn request_progress(&self) {
        let mut inner = self.watches.inner.lock();
        inner.hub.request_progress(self.id);
        inner.active.insert(self.id);
        self.watches.wake.notify_one();
    }

    fn ended(&self) {
        self.watches.inner.lock().forget(self.id);
    }
}

/// A watcher has room again.
type Room = BoxFuture<'static, (WatchId, Option<OwnedPermit<WatchMessage>>)>;

/// Serves all watchers until `shutdown` says so.
pub async fn serve(watches: Arc<Watches>, rocks: Rocks, mut shutdown: watch::Receiver<bool>) {
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: FuturesUnordered<Room> = FuturesUnordered::new();
    // Full watchers, so that none waits for room twice.
    let mut full = BTreeSet::new();
    loop {
        tokio::select! {
            () = async { drop(shutdown.wait_for(|stop| *stop).await) } => break,
            () = watches.wake.notified() => {}
            _ = progress.tick() => tell_progress(&watches, &full),
            Some((id, permit)) = waiting.next() => {
                full.remove(&id);
                // The permit goes back at once: pumping takes its own.
                drop(permit);
                watches.inner.lock().active.insert(id);
            }
        }
        let active = std::mem::take(&mut watches.inner.lock().active);
        for id in active {
            if full.contains(&id) {
                continue;
            }
            match pump(&watches, &rocks, id) {
                Pumped::Idle => {}
                Pumped::More => {
                    watches.inner.lock().active.insert(id);
                    watches.wake.notify_one();
                }
                Pumped::Full(sender) => {
                    failpoint!("watch_victim");
                    full.insert(id);
                    waiting.push(Box::pin(async move { (id, sender.reserve_owned().await.ok()) }));
                }
            }
        }
    }
    watches.close();
}

enum Pumped {
    Idle,
    More,
    Full(mpsc::Sender<WatchMessage>),
}

/// Sends a watcher what it has to get, up to a turn.
fn pump(watches: &Watches, rocks: &Rocks, id: WatchId) -> Pumped {
    let mut inner = watches.inner.lock();
    for _ in 0..TURN {
        let Inner { hub, senders, .. } = &mut *inner;
        let Some(sender) = senders.get(&id) else { return Pumped::Idle };
        if sender.is_closed() {
            inner.forget(id);
            return Pumped::Idle;
        }
        let Ok(permit) = sender.try_reserve() else { return Pumped::Full(sender.clone()) };
        match hub.next(id) {
            None | Some(Step::Wait) => return Pumped::Idle,
            Some(Step::Send(message)) => {
                failpoint!("watch_send");
                permit.send(message);
            }
            Some(Step::End(message)) => {
                permit.send(message);
                inner.forget(id);
                return Pumped::Idle;
            }
            Some(Step::Load(from)) => {
                drop(permit);
                drop(inner);
                if let Err(error) = load(watches, rocks, id, from) {
                    tracing::error!(%error, "a watch ends because its history can't be read");
                    watches.inner.lock().forget(id);
                    return Pumped::Idle;
                }
                inner = watches.inner.lock();
            }
        }
    }
    Pumped::More
}

/// Reads history for a watcher from the disk.
fn load(watches: &Watches, rocks: &Rocks, id: WatchId, from: Revision) -> Result<(), DiskError> {
    failpoint!("watch_sync");
    let view = rocks.view();
    let head = Head::load(&view)?;
    if from <= head.compacted {
        // The disk is a moment ahead of the hub, which will now say that the history is gone.
        watches.inner.lock().hub.note_compacted(head.compacted);
        return Ok(());
    }
    let events = read::events(&view, from, LOAD_BYTES)?;
    watches.inner.lock().hub.loaded(id, events, head.revision);
    Ok(())
}

fn tell_progress(watches: &Watches, full: &BTreeSet<WatchId>) {
    failpoint!("watch_progress");
    let mut inner = watches.inner.lock();
    let Inner { hub, senders, .. } = &mut *inner;
    hub.progress(|id, message| {
        let sender = senders.get(&id).filter(|_| !full.contains(&id));
        sender.is_some_and(|sender| sender.try_send(message).is_ok())
    });
    let gone: Vec<WatchId> =
        inner.senders.iter().filter(|(_, sender)| sender.is_closed()).map(|(id, _)| *id).collect();
    gone.into_iter().for_each(|id| inner.forget(id));
}

impl Inner {
    fn forget(&mut self, id: WatchId) {
        failpoint!("watch_cancel");
        self.hub.remove(id);
        self.senders.remove(&id);
    }
}
