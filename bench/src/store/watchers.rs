//! Watch fan-out: many watchers of one prefix while a few clients write under it.
//!
//! Each watcher must get every event: the run ends when all have, and the time until then is what counts.

use super::http2::{Arrival, Head, Http2, Messages};
use super::load::{self, Keys, PREFIX, Puts, Random, Window};
use super::messages::{WatchCreateRequest, WatchRequest, WatchResponse, prefix_end};
use super::server::Group;
use anyhow::{Context, Result, bail, ensure};
use prost::Message as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Clients that write.
const WRITERS: usize = 8;
/// Bytes of each value.
const VALUE: usize = 256;
/// Keys that are written.
const KEYS: u64 = 1000;
/// Events that aren't delivered this long after the last write are lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was delivered.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// Events, over all watchers.
    pub events: u64,
    /// From the first write to the last delivery.
    pub took: Duration,
}

/// Lets `watchers`, spread over `streams` connections, watch while events are written for `duration`.
pub async fn run(group: &Group, watchers: usize, streams: usize, duration: Duration) -> Result<Delivered> {
    let (expected, expect) = watch::channel(None);
    let (created, mut creations) = mpsc::channel(watchers);
    let mut tasks = JoinSet::new();
    for stream in 0..streams {
        let share = watchers / streams + usize::from(stream < watchers % streams);
        let address = group.addresses[stream % group.addresses.len()];
        tasks.spawn(Stream::open(address, share).await?.run(created.clone(), expect.clone()));
    }
    drop(created);
    for _ in 0..watchers {
        creations.recv().await.context("a watch was refused")?;
    }
    let start = Instant::now();
    let window = Window { from: start, until: start + duration };
    // Answers after the window count as well: each is an event to be delivered.
    let puts = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let work = |number| Counted(Puts::new(Keys::Random(Random(number as u64), KEYS), VALUE), puts.clone());
    load::run(&group.addresses, WRITERS, window, work).await?;
    let puts = puts.load(std::sync::atomic::Ordering::Relaxed);
    expected.send_replace(Some(puts));
    let last = tokio::time::timeout(PATIENCE, finish(&mut tasks)).await.context("events were lost")??;
    Ok(Delivered { events: puts * watchers as u64, took: last - start })
}

async fn finish(tasks: &mut JoinSet<Result<Instant>>) -> Result<Instant> {
    let mut last = Instant::now();
    while let Some(ended) = tasks.join_next().await {
        last = last.max(ended??);
    }
    Ok(last)
}

/// Puts that count their answers.
struct Counted(Puts, std::sync::Arc<std::sync::atomic::AtomicU64>);

impl load::Work for Counted {
    fn head(&self) -> Head {
        self.0.head()
    }

    fn next(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.0.next(out)
    }

    fn check(&self, answer: bytes::Bytes) -> Result<()> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.check(answer)
    }
}

struct Stream {
    http: Http2,
    stream: u32,
    messages: Messages,
    watchers: usize,
    /// Events of each watcher so far.
    events: BTreeMap<i64, u64>,
}

impl Stream {
    async fn open(address: SocketAddr, watchers: usize) -> Result<Self> {
        let mut http = Http2::connect(address).await?;
        let stream = http.open(&Head::new("/etcdserverpb.Watch/Watch"));
        let create = WatchCreateRequest { key: PREFIX.into(), range_end: prefix_end(PREFIX.as_bytes()) };
        let request = WatchRequest { create_request: Some(create) }.encode_to_vec();
        for _ in 0..watchers {
            http.message(stream, &request, false);
        }
        ensure!(http.has_room(0), "more watchers on a stream than the server's first window takes");
        http.flush().await?;
        Ok(Stream { http, stream, messages: Messages::default(), watchers, events: BTreeMap::new() })
    }

    /// Counts events until each watcher has as many as expected; when that was.
    async fn run(
        mut self,
        created: mpsc::Sender<()>,
        mut expected: watch::Receiver<Option<u64>>,
    ) -> Result<Instant> {
        loop {
            let wanted = *expected.borrow_and_update();
            if self.has_all(wanted) {
                return Ok(Instant::now());
            }
            self.http.flush().await?;
            tokio::select! {
                received = self.http.receive() => received?,
                changed = expected.changed(), if wanted.is_none() => changed?,
            }
            while let Some(arrival) = self.http.next()? {
                match arrival {
                    Arrival::Data(stream, piece) if stream == self.stream => self.messages.push(&piece),
                    other => bail!("a watch stream ended or mixed: {other:?}"),
                }
            }
            self.count(&created).await?;
        }
    }

    fn has_all(&self, wanted: Option<u64>) -> bool {
        self.events.len() == self.watchers
            && wanted.is_some_and(|wanted| self.events.values().all(|n| *n == wanted))
    }

    async fn count(&mut self, created: &mpsc::Sender<()>) -> Result<()> {
        while let Some(message) = self.messages.next() {
            let message = WatchResponse::decode(message).context("a watch response")?;
            ensure!(!message.canceled, "watch {} was cancelled", message.watch_id);
            if message.created {
                created.send(()).await?;
            }
            *self.events.entry(message.watch_id).or_default() += message.events.len() as u64;
        }
        Ok(())
    }
}
