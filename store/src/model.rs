//! [`Model`]: the contract of [`Kv`] in the most obvious way, in memory, for tests.
//!
//! Every version of every key is kept for ever in a `BTreeMap` behind one mutex; a read at a revision
//! looks for the last version at or below it. It is the oracle of the real store's property tests and
//! the store of the apiserver's tests. It knows no Raft, no disk and no size limit. Leases and progress
//! follow tokio's clock, so tests can pause and advance it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::journal::{Journal, JournalEntry};
use crate::kv::{
    FIRST_REVISION, KeyRange, Kv, KvError, Lease, LeaseId, LeaseInfo, MemberId, RangeRequest, RangeResponse,
    Revision, Status, Txn, TxnResponse, Watch, WatchControl, WatchMessage, WatchRequest,
};
use crate::validate;

mod state;

pub(crate) use state::State;

/// Messages buffered for one watcher; its own task waits when they are full.
const WATCH_BUFFER: usize = 64;
/// How often an idle watcher hears how far the store is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// An in-memory [`Kv`]. Clones share one state. Needs a tokio runtime for watches and leases.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// The newest revision; wakes the watchers.
    newest: watch::Sender<Revision>,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// An empty store at the first revision.
    pub fn new() -> Self {
        let (newest, _) = watch::channel(FIRST_REVISION);
        Self { inner: Arc::new(Inner { state: Mutex::default(), newest }) }
    }
}

#[async_trait]
impl Kv for Model {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let state = self.inner.state.lock();
        state.check_revision(&request)?;
        Ok(state.range(&request))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        validate::check_txn(&txn)?;
        self.inner.change(|state| state.txn(&txn))
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError> {
        let state = self.inner.state.lock();
        let revision = state.revision;
        let next = request.start.unwrap_or(Revision(revision.0 + 1));
        if next <= state.compacted {
            return Err(KvError::Compacted { requested: next, compacted: state.compacted });
        }
        let (sender, messages) = mpsc::channel(WATCH_BUFFER);
        let newest = self.inner.newest.subscribe();
        let asked = Arc::new(Asked::default());
        let follower = Follower {
            inner: Arc::downgrade(&self.inner),
            range: request.range,
            next,
            floor: request.start.unwrap_or(revision),
            told: revision,
            sender,
            asked: asked.clone(),
        };
        // The task ends when the receiver is dropped or when the last clone of the model is gone.
        tokio::spawn(follower.run(newest));
        Ok(Watch::new(messages, asked, revision))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.inner.state.lock().compact(revision)
    }

    async fn lease_grant(&self, id: Option<LeaseId>, ttl_seconds: u64) -> Result<Lease, KvError> {
        validate::check_lease(id, ttl_seconds)?;
        let lease = self.inner.state.lock().grant(id, ttl_seconds)?;
        // Ends with the lease or with the model.
        tokio::spawn(expire(Arc::downgrade(&self.inner), lease.id));
        Ok(lease)
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, KvError> {
        let mut state = self.inner.state.lock();
        let lease = state.leases.get_mut(&id).ok_or(KvError::LeaseNotFound(id))?;
        lease.deadline = Instant::now() + Duration::from_secs(lease.ttl_seconds);
        Ok(Lease { id, ttl_seconds: lease.ttl_seconds })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), KvError> {
        self.inner.change(|state| state.revoke(id))
    }

    async fn lease_info(&self, id: LeaseId) -> Result<LeaseInfo, KvError> {
        let state = self.inner.state.lock();
        let lease = state.leases.get(&id).ok_or(KvError::LeaseNotFound(id))?;
        let remaining = lease.deadline.saturating_duration_since(Instant::now());
        let keys = lease.keys.iter().cloned().collect();
        Ok(LeaseInfo { id, granted_ttl_seconds: lease.ttl_seconds, remaining, keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        Ok(self.inner.state.lock().leases.keys().copied().collect())
    }

    fn status(&self) -> Status {
        let state = self.inner.state.lock();
        Status {
            member: MemberId(1),
            leader: Some(MemberId(1)),
            term: 1,
            applied_index: state.revision.0,
            revision: state.revision,
            compacted: state.compacted,
            voters: vec![MemberId(1)],
            learners: Vec::new(),
        }
    }

    fn journal(&self) -> Option<&dyn Journal> {
        Some(self)
    }
}

/// The model's clock: it writes one revision a second, from here on.
const BEGAN_MS: u64 = 1_700_000_000_000;

fn wall_ms(revision: Revision) -> u64 {
    BEGAN_MS + revision.0 * 1000
}

#[async_trait]
impl Journal for Model {
    async fn of_key(&self, key: Bytes, limit: usize) -> Result<Vec<JournalEntry>, KvError> {
        let state = self.inner.state.lock();
        let entries = state.journal(Revision(0), state.revision).rev();
        Ok(entries.filter(|entry| entry.changes.iter().any(|change| change.key == key)).take(limit).collect())
    }

    async fn between(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, KvError> {
        Ok(self.inner.state.lock().journal(from, to).take(limit).collect())
    }

    async fn at_time(&self, wall_ms: u64) -> Result<Option<Revision>, KvError> {
        let state = self.inner.state.lock();
        let found = Revision(wall_ms.saturating_sub(BEGAN_MS) / 1000).min(state.revision);
        Ok((found > state.compacted || state.compacted == Revision(0)).then_some(found))
    }
}

impl Inner {
    /// Runs `write` under the lock and wakes the watchers if there is a new revision.
    fn change<T>(&self, write: impl FnOnce(&mut State) -> Result<T, KvError>) -> Result<T, KvError> {
        let mut state = self.state.lock();
        let result = write(&mut state);
        let revision = state.revision;
        self.newest.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
        result
    }
}

/// A reader asked for progress.
#[derive(Default)]
struct Asked(Notify);

impl WatchControl for Asked {
    fn received(&self, _message: &WatchMessage, _left: usize) {}

    fn request_progress(&self) {
        self.0.notify_one();
    }

    fn ended(&self) {}
}

/// One watcher: delivers what it finds from `next` on, and waits for more.
struct Follower {
    inner: Weak<Inner>,
    range: KeyRange,
    next: Revision,
    /// No progress is told below this.
    floor: Revision,
    told: Revision,
    sender: mpsc::Sender<WatchMessage>,
    asked: Arc<Asked>,
}

impl Follower {
    async fn run(mut self, mut newest: watch::Receiver<Revision>) {
        let mut progress = tokio::time::interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        let mut asked = false;
        loop {
            let Some((message, seen)) = self.look() else { return };
            let synced = message.is_none();
            if let Some(message) = message {
                let ends = matches!(message, WatchMessage::Compacted(_));
                if self.sender.send(message).await.is_err() || ends {
                    return;
                }
                continue;
            }
            if synced && asked && seen >= self.floor {
                asked = false;
                self.told = seen;
                if self.sender.send(WatchMessage::Progress(seen)).await.is_err() {
                    return;
                }
            }
            let next = self.next;
            tokio::select! {
                alive = async { newest.wait_for(|revision| *revision >= next).await.is_ok() } => if !alive { return },
                () = self.sender.closed() => return,
                () = self.asked.0.notified() => asked = true,
                _ = progress.tick(), if seen > self.told && seen >= self.floor => asked = true,
            }
        }
    }

    /// The next message, if there is one, and the newest revision; `None` if the model is gone.
    fn look(&mut self) -> Option<(Option<WatchMessage>, Revision)> {
        let inner = self.inner.upgrade()?;
        let state = inner.state.lock();
        let message = state.next_message(&self.range, self.next);
        match message {
            Some(WatchMessage::Events { revision, .. }) => {
                (self.next, self.told) = (Revision(revision.0 + 1), revision);
            }
            Some(WatchMessage::Progress(_) | WatchMessage::Compacted(_)) => {}
            None => self.next = self.next.max(Revision(state.revision.0 + 1)),
        }
        Some((message, state.revision))
    }
}

/// Waits until the lease isn't kept alive any more, then revokes it.
async fn expire(inner: Weak<Inner>, id: LeaseId) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let Some(deadline) = strong.state.lock().leases.get(&id).map(|lease| lease.deadline) else { return };
        if deadline <= Instant::now() {
            // It was there a moment ago under the same lock order; if someone else revoked it, all is done.
            let _already_gone = strong.change(|state| state.revoke(id));
            return;
        }
        drop(strong);
        tokio::time::sleep_until(deadline).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Op;

    fn put(key: &'static str, value: &'static str, lease: Option<LeaseId>) -> Txn {
        let op = Op::Put { key: Bytes::from_static(key.as_bytes()), value: value.into(), lease };
        Txn { success: vec![op], ..Txn::default() }
    }

    async fn value_at(model: &Model, key: &'static str, revision: Option<Revision>) -> Option<Bytes> {
        let mut request = RangeRequest::new(KeyRange::key(key));
        request.revision = revision;
        model.range(request).await.unwrap().kvs.pop().map(|kv| kv.value)
    }

    #[tokio::test(start_paused = true)]
    async fn reads_the_past_until_it_is_compacted() {
        let model = Model::new();
        for value in ["1", "2", "3"] {
            model.txn(put("k", value, None)).await.unwrap();
        }
        assert_eq!(value_at(&model, "k", Some(Revision(3))).await.unwrap(), "2");
        model.compact(Revision(4)).await.unwrap();
        let mut request = RangeRequest::new(KeyRange::key("k"));
        request.revision = Some(Revision(2));
        assert!(matches!(model.range(request).await, Err(KvError::Compacted { .. })));
        assert_eq!(value_at(&model, "k", None).await.unwrap(), "3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_replays_then_follows_then_tells_progress() {
        let model = Model::new();
        model.txn(put("a", "1", None)).await.unwrap();
        let request = WatchRequest { range: KeyRange::key("a"), start: Some(Revision(1)) };
        let mut watch = model.watch(request).await.unwrap();
        model.txn(put("a", "2", None)).await.unwrap();
        for expected in [Revision(2), Revision(3)] {
            let message = watch.recv().await.unwrap();
            assert!(matches!(message, WatchMessage::Events { revision, .. } if revision == expected));
        }
        model.txn(put("b", "1", None)).await.unwrap();
        let message = watch.recv().await.unwrap();
        assert!(matches!(message, WatchMessage::Progress(Revision(4))), "{message:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_kept_alive_takes_its_keys_along() {
        let model = Model::new();
        let lease = model.lease_grant(None, 5).await.unwrap();
        model.txn(put("a", "1", Some(lease.id))).await.unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        model.lease_keep_alive(lease.id).await.unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(value_at(&model, "a", None).await.is_some());
        let request = WatchRequest { range: KeyRange::key("a"), start: None };
        let mut watch = model.watch(request).await.unwrap();
        let gone = loop {
            match watch.recv().await.unwrap() {
                WatchMessage::Events { revision, .. } => break revision,
                WatchMessage::Progress(_) | WatchMessage::Compacted(_) => {}
            }
        };
        assert_eq!(gone, Revision(3));
        assert!(model.lease_keep_alive(lease.id).await.is_err());
    }
}
