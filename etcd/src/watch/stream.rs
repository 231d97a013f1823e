//! The watches of one stream, in one task.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{AbortHandle, Abortable, BoxStream, SelectAll};
use futures::{FutureExt, Stream, StreamExt, stream};
use parking_lot::Mutex;
use store::kv::{Event, Kv, KvError, Revision, Watch, WatchMessage};
use tokio::time::{Instant, MissedTickBehavior};

use super::encode;
use super::requests::{Create, View};
use crate::error;
use crate::grpc::{Call, Messages, Sink, Status};
use crate::member::{Member, wire};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{WatchRequest, WatchResponse};

/// Messages of one watch taken at once.
const BATCH: usize = 64;
/// A response is sent when it has this many bytes, though more events may be waiting.
const RESPONSE_BYTES: usize = 64 << 10;
/// Responses of all watches are gathered up to this many bytes before they are handed on. HTTP/2 writes each
/// DATA frame to the socket by itself, so one for each response would cost a system call for each.
const GATHERED_BYTES: usize = 64 << 10;
/// Stands for no watch in particular.
const NO_WATCH: i64 = -1;
/// Watches on one stream.
const MAX_WATCHES: usize = 1 << 20;

/// Serves a stream until the client ends it, the leader is lost (if the client minds) or the server stops.
pub async fn answer(member: &Member, call: Call) {
    let require_leader = call.metadata.require_leader;
    let Ok((messages, sink)) = call.stream() else { return };
    let mut watches = Watches::new(member, sink);
    let result = tokio::select! {
        result = watches.run(requests(messages)) => result,
        () = member.leader_lost(), if require_leader => Err(error::no_leader()),
        () = member.stopped() => Err(error::status(KvError::Closed)),
    };
    watches.sink.finish(result);
}

/// As a stream, which keeps what it has read when it isn't polled to the end.
fn requests(messages: Messages) -> BoxStream<'static, Result<WatchRequest, Status>> {
    stream::try_unfold(messages, |mut messages| async move {
        Ok(messages.next().await?.map(|request| (request, messages)))
    })
    .boxed()
}

/// The messages of one watch, with its id.
struct Tagged {
    id: i64,
    watch: SharedWatch,
}

/// Read by [`Tagged`]; its [`Watcher`] asks it for progress.
type SharedWatch = Arc<Mutex<Watch>>;

impl Stream for Tagged {
    type Item = (i64, Vec<WatchMessage>);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut watch = self.watch.lock();
        let first = match watch.poll_recv(cx) {
            Poll::Ready(Some(message)) => message,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Some(message) = watch.try_recv()
        {
            batch.push(message);
        }
        Poll::Ready(Some((self.id, batch)))
    }
}

/// What is known of a watch.
struct Watcher {
    view: View,
    fragment: bool,
    progress_notify: bool,
    /// Everything at or below is delivered.
    synced: Option<Revision>,
    /// When it last got something.
    last_sent: Instant,
    /// It is to hear how far it is, as soon as it knows.
    notify: bool,
    watch: SharedWatch,
    stop: AbortHandle,
}

struct Watches<'a> {
    member: &'a Member,
    sink: Sink,
    watchers: BTreeMap<i64, Watcher>,
    messages: SelectAll<Abortable<Tagged>>,
    next_id: i64,
    /// Progress requests that wait until all watches have everything up to their revision.
    asked: Vec<Revision>,
    /// Encoded responses that are not handed on yet; empty whenever the task waits for something to do.
    gathered: BytesMut,
}

impl<'a> Watches<'a> {
    fn new(member: &'a Member, sink: Sink) -> Self {
        let (watchers, messages) = (BTreeMap::new(), SelectAll::new());
        Self { member, sink, watchers, messages, next_id: 0, asked: Vec::new(), gathered: BytesMut::new() }
    }

    async fn run(&mut self, mut requests: BoxStream<'_, Result<WatchRequest, Status>>) -> Result<(), Status> {
        let interval = self.member.limits.progress_interval;
        let mut notify = tokio::time::interval_at(Instant::now() + interval, interval);
        notify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.next() => match request {
                    Some(request) => self.handle(request?).await?,
                    None => return Ok(()),
                },
                Some((id, batch)) = self.messages.next() => {
                    self.deliver(id, batch).await?;
                    self.deliver_ready().await?;
                }
                _tick = notify.tick() => self.notify_progress(interval),
            }
            self.answer_progress().await?;
            self.hand_on().await?;
        }
    }

    /// Takes what other watches have got meanwhile, as long as it is gathered.
    async fn deliver_ready(&mut self) -> Result<(), Status> {
        while self.gathered.len() < GATHERED_BYTES
            && let Some(Some((id, batch))) = self.messages.next().now_or_never()
        {
            self.deliver(id, batch).await?;
        }
        Ok(())
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => match Create::parse(request) {
                Some(create) => self.create(create).await,
                None => self.refuse("mvcc: watcher range is empty").await,
            },
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                self.ask_progress();
                Ok(())
            }
            // A request of a kind that we don't know; etcd ignores it too.
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: Create) -> Result<(), Status> {
        if create.id.is_some_and(|id| self.watchers.contains_key(&id)) {
            return self.refuse("mvcc: duplicate watch ID provided on the WatchStream").await;
        }
        if self.watchers.len() >= MAX_WATCHES {
            return self.refuse("too many watches on one stream").await;
        }
        let id = create.id.unwrap_or_else(|| self.free_id());
        match self.member.store.watch(create.request.clone()).await {
            Ok(watch) => {
                let head = WatchResponse { created: true, ..self.head(id, watch.revision) };
                self.send(&head, &[]).await?;
                self.add(id, &create, watch);
                Ok(())
            }
            Err(KvError::Compacted { compacted, .. }) => {
                let now = self.member.store.status().revision;
                self.send(&WatchResponse { created: true, ..self.head(id, now) }, &[]).await?;
                self.send_compacted(id, compacted).await
            }
            Err(error) => Err(error::status(error)),
        }
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn add(&mut self, id: i64, create: &Create, watch: Watch) {
        let start = create.request.start.unwrap_or(Revision(watch.revision.0 + 1));
        let (stop, aborted) = AbortHandle::new_pair();
        let revision = watch.revision;
        let watch = Arc::new(Mutex::new(watch));
        let watcher = Watcher {
            view: create.view,
            fragment: create.fragment,
            progress_notify: create.progress_notify,
            // Before its start it has nothing to say at all: not even that nothing happened.
            synced: (start.0 <= revision.0 + 1).then(|| Revision(start.0 - 1)),
            last_sent: Instant::now(),
            notify: false,
            watch: watch.clone(),
            stop,
        };
        self.watchers.insert(id, watcher);
        self.messages.push(Abortable::new(Tagged { id, watch }, aborted));
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Status> {
        let Some(watcher) = self.watchers.remove(&id) else { return Ok(()) };
        watcher.stop.abort();
        let now = self.member.store.status().revision;
        self.send(&WatchResponse { canceled: true, ..self.head(id, now) }, &[]).await
    }

    async fn refuse(&mut self, why: &str) -> Result<(), Status> {
        let now = self.member.store.status().revision;
        let cancel_reason = why.to_owned();
        let head = WatchResponse { created: true, canceled: true, cancel_reason, ..self.head(NO_WATCH, now) };
        self.send(&head, &[]).await
    }

    async fn send_compacted(&mut self, id: i64, compacted: Revision) -> Result<(), Status> {
        let now = self.member.store.status().revision;
        let compact_revision = wire(compacted);
        let head = WatchResponse { canceled: true, compact_revision, ..self.head(id, now) };
        self.send(&head, &[]).await
    }

    /// Sends what a watch has got, in as few responses as its size allows; a revision is never split, but
    /// for a watcher that asked for fragments.
    async fn deliver(&mut self, id: i64, batch: Vec<WatchMessage>) -> Result<(), Status> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        let (view, fragment) = (watcher.view, watcher.fragment);
        let mut pending = Pending::default();
        for message in batch {
            match message {
                WatchMessage::Events { revision, events } => {
                    let bytes = self.member.encoded.of(&events, view);
                    if fragment && bytes.len() > self.member.limits.max_request_bytes {
                        self.flush(id, &mut pending).await?;
                        self.send_fragments(id, revision, &events, view).await?;
                    } else {
                        pending.add(bytes);
                    }
                    pending.revision = revision;
                }
                WatchMessage::Progress(revision) => {
                    pending.revision = pending.revision.max(revision);
                    pending.progress = true;
                }
                WatchMessage::Compacted(compacted) => {
                    self.flush(id, &mut pending).await?;
                    self.watchers.remove(&id);
                    return self.send_compacted(id, compacted).await;
                }
            }
            if pending.bytes >= RESPONSE_BYTES {
                self.flush(id, &mut pending).await?;
            }
        }
        self.flush(id, &mut pending).await
    }

    async fn flush(&mut self, id: i64, pending: &mut Pending) -> Result<(), Status> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        watcher.synced = watcher.synced.max(Some(pending.revision));
        if pending.bytes == 0 && !(watcher.notify && pending.progress) {
            return Ok(());
        }
        watcher.notify = false;
        watcher.last_sent = Instant::now();
        let head = self.head(id, pending.revision);
        self.send(&head, &pending.events).await?;
        *pending = Pending::default();
        Ok(())
    }

    /// The events of a revision that are too large together, in pieces that say that more follow.
    async fn send_fragments(
        &mut self,
        id: i64,
        revision: Revision,
        events: &[Event],
        view: View,
    ) -> Result<(), Status> {
        let mut piece = Pending::default();
        for event in events.iter().filter(|event| view.shows(event)) {
            let bytes = encode::fields(std::iter::once(event), view);
            if piece.bytes > 0 && piece.bytes + bytes.len() > self.member.limits.max_request_bytes {
                let head = WatchResponse { fragment: true, ..self.head(id, revision) };
                self.send(&head, &piece.events).await?;
                piece = Pending::default();
            }
            piece.add(bytes);
        }
        piece.revision = revision;
        self.flush(id, &mut piece).await
    }

    /// Lets idle watches that asked for it say how far they are.
    fn notify_progress(&mut self, interval: Duration) {
        let now = Instant::now();
        let due = |watcher: &&mut Watcher| watcher.progress_notify && now - watcher.last_sent >= interval;
        for watcher in self.watchers.values_mut().filter(due) {
            watcher.notify = true;
            watcher.watch.lock().request_progress();
        }
    }

    /// The client wants to know how far the stream is, all watches together.
    fn ask_progress(&mut self) {
        self.asked.push(self.member.store.status().revision);
        self.watchers.values().for_each(|watcher| watcher.watch.lock().request_progress());
    }

    /// Answers progress requests that every watch has reached, by how far all are. A watch that starts in the
    /// future has nothing to say before, so it holds the answer up: none is below the start of any watch.
    async fn answer_progress(&mut self) -> Result<(), Status> {
        if self.asked.is_empty() {
            return Ok(());
        }
        let slowest = self.watchers.values().map(|watcher| watcher.synced).min();
        let reached = |asked: &Revision| slowest.is_none_or(|slowest| Some(*asked) <= slowest);
        let answered: Vec<_> = self.asked.iter().copied().filter(reached).collect();
        self.asked.retain(|asked| !answered.contains(asked));
        for revision in answered {
            let revision = slowest.flatten().unwrap_or(revision);
            self.send(&self.head(NO_WATCH, revision), &[]).await?;
        }
        Ok(())
    }

    fn head(&self, watch_id: i64, revision: Revision) -> WatchResponse {
        WatchResponse { header: Some(self.member.header(revision)), watch_id, ..WatchResponse::default() }
    }

    async fn send(&mut self, head: &WatchResponse, events: &[Bytes]) -> Result<(), Status> {
        encode::response(head, events, &mut self.gathered);
        if self.gathered.len() < GATHERED_BYTES { Ok(()) } else { self.hand_on().await }
    }

    async fn hand_on(&mut self) -> Result<(), Status> {
        self.sink.send(self.gathered.split().freeze()).await
    }
}

/// Encoded events that wait to be sent in one response.
#[derive(Default)]
struct Pending {
    events: Vec<Bytes>,
    bytes: usize,
    revision: Revision,
    /// Everything up to the revision is in it.
    progress: bool,
}

impl Pending {
    fn add(&mut self, events: Bytes) {
        self.bytes += events.len();
        if !events.is_empty() {
            self.events.push(events);
        }
    }
}
