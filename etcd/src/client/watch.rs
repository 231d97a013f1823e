//! A watch over etcd: one stream each, made anew from the next revision when it breaks.

use std::sync::Arc;
use std::time::Duration;

use store::kv::{
    Consistency, Event, Kv, KvError, RangeRequest, Revision, Watch, WatchControl, WatchMessage, WatchRequest,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use super::channel::{CallError, answers, ended};
use super::failure::{Attempt, Subject};
use super::{EtcdKv, HasHeader, REQUEST_TIMEOUT, convert};
use crate::grpc::{Messages, Sink, encode};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_request::RequestUnion;

/// Messages for one reader. When they are full, we stop reading the stream, and etcd stops sending.
const BUFFER: usize = 64;
/// Pause before a broken stream is made anew: about an election's length.
const RETRY: Duration = Duration::from_millis(200);
/// A quiet watch hears this often how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Starts a watch.
///
/// # Errors
/// If the history is gone, or etcd can't be reached.
pub async fn start(etcd: EtcdKv, request: WatchRequest) -> Result<Watch, KvError> {
    if let Some(start) = request.start {
        check_history(&etcd, &request, start).await?;
    }
    let stream = Stream::open(&etcd, &request, request.start).await;
    let stream = stream.map_err(|error| etcd.error(error, Attempt::Read, Subject::default()))?;
    let revision = stream.created;
    let (sender, messages) = mpsc::channel(BUFFER);
    let control = Arc::new(Control::default());
    let next = request.start.unwrap_or(Revision(revision.0 + 1));
    let follower = Follower { etcd, request, next, sender, control: control.clone(), told: revision };
    // Ends when the reader drops its end.
    tokio::spawn(follower.run(stream));
    Ok(Watch::new(messages, control, revision))
}

/// etcd tells that the history is gone only after the watch was made; the contract wants to know before. A
/// read just before the start fails if and only if the start is compacted.
async fn check_history(etcd: &EtcdKv, request: &WatchRequest, start: Revision) -> Result<(), KvError> {
    let before = Revision(start.0.saturating_sub(1));
    if before == Revision(0) || before > etcd.status().revision {
        return Ok(());
    }
    let read = RangeRequest {
        revision: Some(before),
        limit: 1,
        keys_only: true,
        consistency: Consistency::Serializable,
        ..RangeRequest::new(request.range.clone())
    };
    match etcd.range(read).await {
        Err(KvError::Compacted { compacted, .. }) => {
            Err(KvError::Compacted { requested: start, compacted: compacted.max(start) })
        }
        Err(KvError::FutureRevision { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the reader asks for.
#[derive(Default)]
struct Control {
    progress: Notify,
}

impl WatchControl for Control {
    fn received(&self, _message: &WatchMessage, _left: usize) {}

    fn request_progress(&self) {
        self.progress.notify_one();
    }

    fn ended(&self) {}
}

/// An open stream with one watch on it.
struct Stream {
    sink: Sink,
    messages: Messages,
    /// The newest revision when the watch was made.
    created: Revision,
}

impl Stream {
    async fn open(etcd: &EtcdKv, request: &WatchRequest, start: Option<Revision>) -> Result<Self, CallError> {
        let (key, range_end) = convert::key_range(&request.range);
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: start.map_or(0, convert::wire),
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            ..pb::WatchCreateRequest::default()
        };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let opening = async {
            let (sink, response) = etcd.inner.channel.stream("etcdserverpb.Watch/Watch", &create).await?;
            let mut messages = answers(response).await?;
            let first = next(&mut messages).await?;
            if !first.created || first.canceled {
                return Err(CallError::Lost(format!("the watch is refused: {}", first.cancel_reason)));
            }
            etcd.inner.learn(first.header());
            Ok(Self { sink, messages, created: convert::header_revision(first.header()) })
        };
        let opened = tokio::time::timeout(REQUEST_TIMEOUT, opening).await;
        opened.unwrap_or_else(|_| Err(CallError::Lost("no watch within the time limit".into())))
    }
}

impl HasHeader for pb::WatchResponse {
    fn header(&self) -> Option<&pb::ResponseHeader> {
        self.header.as_ref()
    }
}

async fn next(messages: &mut Messages) -> Result<pb::WatchResponse, CallError> {
    match messages.next().await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err(ended(messages).await),
        Err(status) => Err(CallError::Failed(status)),
    }
}

/// Feeds the reader.
struct Follower {
    etcd: EtcdKv,
    request: WatchRequest,
    /// The first revision that the reader hasn't got.
    next: Revision,
    sender: mpsc::Sender<WatchMessage>,
    control: Arc<Control>,
    /// The last revision that the reader knows about.
    told: Revision,
}

/// How a stream, or the whole watch, ended.
enum End {
    /// Make another.
    Broken(CallError),
    /// The reader is gone, or has heard the last message.
    Over,
}

impl From<CallError> for End {
    fn from(error: CallError) -> Self {
        End::Broken(error)
    }
}

impl Follower {
    async fn run(mut self, mut stream: Stream) {
        loop {
            let Err(end) = self.follow(&mut stream).await;
            let End::Broken(error) = end else { return };
            tracing::debug!(%error, next = self.next.0, "a watch is made anew");
            match self.reopen().await {
                Some(fresh) => stream = fresh,
                None => return,
            }
        }
    }

    /// Tries until it succeeds or the reader is gone.
    async fn reopen(&mut self) -> Option<Stream> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = self.sender.closed() => return None,
            }
            match Stream::open(&self.etcd, &self.request, Some(self.next)).await {
                Ok(stream) => return Some(stream),
                Err(error) => tracing::debug!(%error, "etcd takes no watch yet"),
            }
        }
    }

    /// Passes on what a stream brings, to its end.
    async fn follow(&mut self, stream: &mut Stream) -> Result<std::convert::Infallible, End> {
        let Stream { sink, messages, .. } = stream;
        let mut quiet = tokio::time::interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut partial = Vec::new();
        let control = self.control.clone();
        loop {
            // A message that is half read must be read to its end: the future is kept over requests.
            let mut reading = std::pin::pin!(next(messages));
            let response = loop {
                tokio::select! {
                    response = &mut reading => break response?,
                    () = self.sender.closed() => return Err(End::Over),
                    () = control.progress.notified() => self.ask_progress(sink).await?,
                    _tick = quiet.tick() => self.ask_progress(sink).await?,
                }
            };
            quiet.reset();
            self.etcd.inner.learn(response.header());
            self.handle(response, &mut partial).await?;
        }
    }

    async fn ask_progress(&self, sink: &mut Sink) -> Result<(), End> {
        if !self.etcd.inner.ordered_progress {
            return Ok(());
        }
        let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        let request = pb::WatchRequest { request_union: Some(request) };
        let sent = sink.send(encode(&request)).await;
        sent.map_err(|status| End::Broken(CallError::Failed(status)))
    }

    async fn handle(&mut self, response: pb::WatchResponse, partial: &mut Vec<Event>) -> Result<(), End> {
        if response.compact_revision > 0 {
            let compacted = convert::revision(response.compact_revision);
            self.etcd.inner.learn_compacted(compacted);
            self.send(WatchMessage::Compacted(compacted)).await?;
            return Err(End::Over);
        }
        if response.canceled {
            return Err(CallError::Lost(format!("the watch is canceled: {}", response.cancel_reason)).into());
        }
        let newest = convert::header_revision(response.header());
        let more = response.fragment;
        if response.events.is_empty() {
            return self.progress(newest).await;
        }
        partial.extend(response.events.into_iter().map(convert::event));
        if more {
            return Ok(());
        }
        self.deliver(std::mem::take(partial)).await
    }

    /// Events of one or more revisions, in order, each whole.
    async fn deliver(&mut self, events: Vec<Event>) -> Result<(), End> {
        for group in events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
            let revision = group[0].kv.mod_revision;
            if revision < self.next {
                // A new stream may repeat what the old one brought.
                continue;
            }
            self.send(WatchMessage::Events { revision, events: group.into() }).await?;
            (self.next, self.told) = (Revision(revision.0 + 1), revision);
        }
        Ok(())
    }

    async fn progress(&mut self, revision: Revision) -> Result<(), End> {
        let floor = self.request.start.map_or(Revision(0), |start| start);
        if revision < floor || revision < self.told {
            return Ok(());
        }
        self.send(WatchMessage::Progress(revision)).await?;
        self.told = revision;
        self.next = self.next.max(Revision(revision.0 + 1));
        Ok(())
    }

    async fn send(&self, message: WatchMessage) -> Result<(), End> {
        self.sender.send(message).await.map_err(|_| End::Over)
    }
}
