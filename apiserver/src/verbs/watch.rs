//! `watch`: a stream of changes from a revision on.
//!
//! A watcher is a cursor into the resource's shared history and pulls only when its connection takes more,
//! so it owns no queue that could grow. One that asks for the more distant past first reads the store's
//! own history until it has caught up, and so does one that falls behind what is shared. Only what the store has
//! forgotten, too, is told to be gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::status::Status;
use bytes::Bytes;
use rand::RngExt;
use serde_json::Value;
use store::kv::{Event, EventKind, KvError, Revision, WatchMessage};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::body::Body;
use crate::error::{Failure, Outcome};
use crate::metrics::OpenWatch;
use crate::negotiate::Form;
use crate::registry::resource::Resource;
use crate::response;
use crate::storage::cache::{Cache, ResourceCache};
use crate::storage::change::{Change, EventType, frame};
use crate::storage::object::Stored;
use crate::storage::selection::Selection;
use crate::storage::{Storage, decode};
use crate::verbs::options::{Version, WatchStart, watch_start};
use crate::verbs::view::View;
use crate::verbs::{Answer, Call, past};

/// Changes taken from the shared history at a time.
const BATCH: usize = 128;
/// Bytes of frames that go out in one chunk: what fits into a TLS record.
const GATHERED: usize = 16 << 10;
/// Objects of the initial state encoded into one chunk.
const INITIAL_CHUNK: usize = 64;

/// Answers with a stream of events.
pub async fn watch(call: Call<'_>) -> Answer {
    let view = View::of(&call)?;
    let query = &call.info.query;
    past::refuse(query)?;
    let selection = Selection::parse(call.resource.clone(), call.info.namespace.as_deref(), query)?;
    let start = watch_start(query)?;
    let watcher = Watcher::begin(&call, view, selection, start).await?;
    let events = futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((chunk, watcher))
    });
    Ok(response::stream(Body::stream(events)))
}

struct Watcher {
    storage: Arc<Storage>,
    cache: Arc<Cache>,
    history: Arc<ResourceCache>,
    resource: Arc<Resource>,
    selection: Selection,
    view: View,
    phase: Phase,
    /// Everything up to this revision has been seen.
    cursor: Revision,
    /// Frames of the last step; never more than one step's.
    ready: VecDeque<Bytes>,
    /// Whether a table has told its columns.
    headed: bool,
    changed: Receiver<Revision>,
    draining: Receiver<bool>,
    bookmarks: Option<Interval>,
    deadline: Instant,
    /// Counts the watch as long as it is open.
    _counted: OpenWatch,
}

enum Phase {
    /// Sends the state that the watch begins with, then perhaps the bookmark that ends it.
    Initial { objects: std::vec::IntoIter<Arc<Stored>>, bookmark: bool },
    /// Catches up from the store's history.
    Replay(store::kv::Watch),
    /// Follows the shared history.
    Live,
    /// Says nothing more.
    Ended,
}

impl Watcher {
    async fn begin(call: &Call<'_>, view: View, selection: Selection, start: WatchStart) -> Outcome<Self> {
        let storage = call.storage();
        match start.version {
            Version::Newest => storage.refresh().await?,
            Version::NotOlderThan(revision) | Version::Exact(revision) => storage.reach(revision).await?,
            Version::Any => {}
        }
        let history = storage.cache.resource(&selection.prefix());
        let mut watcher = Self {
            storage: storage.clone(),
            cache: storage.cache.clone(),
            changed: history.subscribe(),
            history,
            resource: call.resource.clone(),
            selection,
            view,
            phase: Phase::Live,
            cursor: storage.cache.revision(),
            ready: VecDeque::new(),
            headed: false,
            draining: call.server.draining.subscribe(),
            bookmarks: bookmarks(call),
            deadline: deadline(call),
            _counted: call.server.metrics.watch(call.info),
        };
        watcher.enter(start).await?;
        Ok(watcher)
    }

    async fn enter(&mut self, start: WatchStart) -> Outcome<()> {
        if start.initial_events {
            let snapshot = self.cache.snapshot(&self.selection.prefix(), &self.selection.range);
            let mut objects = snapshot.objects;
            objects.retain(|stored| self.selection.selects(stored));
            self.cursor = snapshot.revision;
            self.phase = Phase::Initial { objects: objects.into_iter(), bookmark: start.initial_bookmark };
        } else if let Version::NotOlderThan(revision) = start.version {
            self.cursor = revision;
            if revision < self.history.floor() {
                self.replay().await?;
            }
        }
        Ok(())
    }

    /// Goes on in the store's history; if that is gone too, the stream tells so and ends.
    async fn replay(&mut self) -> Outcome<()> {
        match self.storage.replay(self.selection.range.clone(), self.cursor).await {
            Ok(watch) => self.phase = Phase::Replay(watch),
            Err(Failure::Store(KvError::Compacted { compacted, .. })) => self.expire(compacted),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn expire(&mut self, compacted: Revision) {
        let status = Status::expired(format!("too old resource version: {} ({compacted})", self.cursor));
        self.ready.push_back(frame("ERROR", status.to_json().to_string().as_bytes()));
        self.phase = Phase::Ended;
    }

    /// The next chunk; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(first) = self.ready.pop_front() {
                return Some(self.gather(first));
            }
            match &mut self.phase {
                Phase::Ended => return None,
                Phase::Initial { .. } => self.send_initial().await,
                Phase::Replay(_) => self.replay_step().await,
                Phase::Live => self.live_step().await,
            }
        }
    }

    /// Frames that are ready together go out together: one chunk, one TLS record, one write. Copying a few hundred
    /// bytes costs less than all that for each of them.
    fn gather(&mut self, first: Bytes) -> Bytes {
        let fits = |size: usize, next: &Bytes| size + next.len() <= GATHERED;
        if !self.ready.front().is_some_and(|next| fits(first.len(), next)) {
            return first;
        }
        let mut chunk = Vec::with_capacity(GATHERED);
        chunk.extend_from_slice(&first);
        while let Some(next) = self.ready.front().filter(|next| fits(chunk.len(), next)) {
            chunk.extend_from_slice(next);
            self.ready.pop_front();
        }
        chunk.into()
    }

    async fn send_initial(&mut self) {
        let Phase::Initial { objects, bookmark } = &mut self.phase else { return };
        let bookmark = *bookmark;
        let some: Vec<Arc<Stored>> = objects.take(INITIAL_CHUNK).collect();
        if some.is_empty() {
            self.phase = Phase::Live;
            if bookmark {
                self.push_bookmark(true);
            }
            return;
        }
        let mut chunk = Vec::new();
        for stored in some {
            chunk.extend_from_slice(&self.initial_frame(&stored).await);
        }
        self.ready.push_back(chunk.into());
    }

    async fn initial_frame(&mut self, stored: &Arc<Stored>) -> Bytes {
        // A change that never was: it lends its encoding.
        self.frame_of(&Change::new(stored.revision, Some(stored.clone()), None), EventType::Added).await
    }

    async fn replay_step(&mut self) {
        if self.cursor >= self.history.floor() {
            self.phase = Phase::Live;
            return;
        }
        let Phase::Replay(watch) = &mut self.phase else { return };
        let message = tokio::select! {
            message = watch.recv() => message,
            () = ended(&mut self.draining, self.deadline) => None,
        };
        match message {
            Some(WatchMessage::Events { revision, events }) => {
                for event in events.iter() {
                    self.push(&change_of(event)).await;
                }
                self.cursor = revision;
            }
            Some(WatchMessage::Progress(revision)) => self.cursor = self.cursor.max(revision),
            Some(WatchMessage::Compacted(compacted)) => self.expire(compacted),
            None => self.phase = Phase::Ended,
        }
    }

    async fn live_step(&mut self) {
        self.changed.borrow_and_update();
        if self.take_changes().await {
            return;
        }
        tokio::select! {
            biased;
            () = ended(&mut self.draining, self.deadline) => self.end(),
            changed = self.changed.changed() => {
                if changed.is_err() {
                    self.phase = Phase::Ended;
                }
            }
            () = tick(&mut self.bookmarks) => self.bookmark_now(),
        }
    }

    /// Takes what has happened since the cursor; false if nothing.
    async fn take_changes(&mut self) -> bool {
        let Ok(changes) = self.history.after(self.cursor, BATCH) else {
            if let Err(failure) = self.replay().await {
                tracing::debug!(?failure, "a watcher that fell behind is cut");
                self.phase = Phase::Ended;
            }
            return true;
        };
        for change in &changes {
            self.push(change).await;
            self.cursor = change.revision;
        }
        !changes.is_empty()
    }

    async fn push(&mut self, change: &Change) {
        let Some(event) = change.seen_by(|stored| self.selection.selects(stored)) else { return };
        let frame = self.frame_of(change, event).await;
        self.ready.push_back(frame);
    }

    async fn frame_of(&mut self, change: &Change, event: EventType) -> Bytes {
        let Some(stored) = change.object(event) else { return Bytes::new() };
        let Ok(seen) = self.view.seen(&self.resource, stored.clone()).await else { return Bytes::new() };
        if self.view.form == Form::Plain {
            return if Arc::ptr_eq(&seen, stored) {
                change.frame(event)
            } else {
                change.frame_as(event, &seen)
            };
        }
        let Ok(mut value) = decode(&seen) else { return Bytes::new() };
        api::object::set_resource_version(&mut value, &change.revision.to_string());
        let headers = !std::mem::replace(&mut self.headed, true);
        let object = self.view.transform(&self.resource, &value, headers);
        frame(event.as_str(), object.to_string().as_bytes())
    }

    /// Everything up to the cache's revision has been sent once the history has nothing more up to it.
    fn bookmark_now(&mut self) {
        let revision = self.cache.revision();
        if self.history.after(self.cursor, 1).is_ok_and(|changes| changes.is_empty()) {
            self.cursor = self.cursor.max(revision);
            self.push_bookmark(false);
        }
    }

    fn push_bookmark(&mut self, initial_end: bool) {
        let object: Value = self.view.bookmark(&self.resource, self.cursor, initial_end);
        self.ready.push_back(frame("BOOKMARK", object.to_string().as_bytes()));
    }

    fn end(&mut self) {
        if self.bookmarks.is_some() {
            self.bookmark_now();
        }
        self.phase = Phase::Ended;
    }
}

/// A change as the store itself tells it.
fn change_of(event: &Event) -> Change {
    let now = (event.kind == EventKind::Put).then(|| Arc::new(Stored::new(&event.kv)));
    let before = event.prev.as_ref().map(|kv| Arc::new(Stored::new(kv)));
    Change::new(event.kv.mod_revision, now, before)
}

fn bookmarks(call: &Call<'_>) -> Option<Interval> {
    call.info.query.flag("allowWatchBookmarks").then(|| {
        let period = call.server.config.limits.bookmark;
        let mut interval = tokio::time::interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    })
}

/// As long as the client asks for, else a random while, so that not all watches end at once.
fn deadline(call: &Call<'_>) -> Instant {
    let asked = call.info.query.get("timeoutSeconds").and_then(|text| text.parse().ok()).filter(|s| *s > 0);
    let least = call.server.config.limits.watch_min;
    let length = asked.map_or_else(|| least.mul_f64(rand::rng().random_range(1.0..2.0)), Duration::from_secs);
    Instant::now() + length.min(Duration::from_secs(24 * 3600))
}

async fn ended(draining: &mut Receiver<bool>, deadline: Instant) {
    tokio::select! {
        _ = draining.wait_for(|draining| *draining) => {}
        () = tokio::time::sleep_until(deadline) => {}
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
