//! One connection: HTTP/2 and the calls on it, in one task.
//!
//! Short calls (reads of a key, writes) run inside the connection's own task: when a batch of writes is
//! applied, one wake-up collects the answers of all calls of the connection, and one write to the socket
//! sends them. Calls that may take long or stay (watches, big reads, locks) get a task of their own, which
//! ends with the connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::{self, Connection, SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::caller::Callers;
use crate::config::Limits;
use crate::grpc::Call;
use crate::member::Member;
use crate::service::{self, Path};

/// Headers of a request, in bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Streams that a client started and reset before we saw them. More looks like the attack that resets
/// streams faster than a server can answer (CVE-2023-44487); a client that cancels all it has at once
/// stays below.
const MAX_PENDING_RESETS: usize = 1024;
/// Memory for small DATA frames that aren't read yet: as many calls as may wait, with a frame each.
const DATA_FRAME_BUDGET: usize = 16 << 20;
/// What a message may have beyond the largest write: keys, headers, encoding. As etcd allows.
const MESSAGE_OVERHEAD: usize = 512 << 10;

type Short = Pin<Box<dyn Future<Output = ()> + Send>>;
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves `io` until the client leaves, breaks the protocol, falls silent, or the server stops.
///
/// # Errors
/// Says how the connection ended if it didn't end in good order.
pub async fn serve<T>(member: Arc<Member>, io: T, user: String) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake =
        tokio::time::timeout(member.limits.handshake_timeout, builder(&member.limits).handshake(io));
    let http = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    let http = http.map_err(io::Error::other)?;
    let mut calls = Calls::new(member, user);
    let ended = calls.run(http).await;
    calls.tidy_up().await;
    ended
}

fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .data_frame_budget(DATA_FRAME_BUDGET);
    builder
}

/// What happens on a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "made for each call and taken apart at once: a box would cost more"
)]
enum Event {
    Accepted(Option<Result<Accepted, h2::Error>>),
    KeepAlive,
    Stop,
}

/// The calls of a connection.
struct Calls {
    member: Arc<Member>,
    callers: Callers,
    short: FuturesUnordered<Short>,
    /// Aborted when dropped, that is soon after the connection.
    long: JoinSet<()>,
    message_bytes: usize,
}

impl Calls {
    fn new(member: Arc<Member>, user: String) -> Self {
        let message_bytes = member.limits.max_request_bytes + MESSAGE_OVERHEAD;
        let (callers, short, long) = (Callers::new(user), FuturesUnordered::new(), JoinSet::new());
        Self { member, callers, short, long, message_bytes }
    }

    async fn run<T>(&mut self, mut http: Connection<T, Bytes>) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut alive = KeepAlive::new(&self.member.limits, http.ping_pong());
        let mut stop = self.member.stop.clone();
        let mut stopped = pin!(async move {
            // An error means that the sender is gone, which stops the server too.
            let _stopped = stop.wait_for(|stop| *stop).await;
        });
        let mut stopping = None;
        loop {
            let event = poll_fn(|cx| {
                if stopping.is_none() && stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Stop);
                }
                self.poll(&mut http, &mut alive, cx)
            });
            match event.await {
                Event::Accepted(Some(Ok(accepted))) => self.accept(accepted),
                Event::Accepted(Some(Err(error))) => return Err(io::Error::other(error)),
                Event::Accepted(None) => return Ok(()),
                Event::KeepAlive => alive.check(stopping)?,
                Event::Stop => {
                    http.graceful_shutdown();
                    stopping = Some(Instant::now() + self.member.limits.drain_timeout);
                    alive.hurry();
                }
            }
        }
    }

    /// The connection is gone, which long calls notice by themselves: a waiting lock takes back its claim.
    async fn tidy_up(&mut self) {
        let ended = async { while self.long.join_next().await.is_some() {} };
        // What takes longer is aborted with `self`.
        let _in_time = tokio::time::timeout(self.member.limits.drain_timeout, ended).await;
    }

    /// First the answers that are ready, then the socket: so one write sends them all.
    fn poll<T>(
        &mut self,
        http: &mut Connection<T, Bytes>,
        alive: &mut KeepAlive,
        cx: &mut Context<'_>,
    ) -> Poll<Event>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        while let Poll::Ready(Some(())) = self.short.poll_next_unpin(cx) {}
        while let Poll::Ready(Some(ended)) = self.long.poll_join_next(cx) {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a call of an etcd client ended by a panic");
            }
        }
        if let Poll::Ready(accepted) = http.poll_accept(cx) {
            return Poll::Ready(Event::Accepted(accepted));
        }
        alive.poll(cx).map(|()| Event::KeepAlive)
    }

    fn accept(&mut self, (request, respond): Accepted) {
        let caller = self.callers.of(request.headers());
        let call = Call::new(request, respond, caller, self.message_bytes);
        let member = self.member.clone();
        match service::path(&call) {
            Path::Short(method) => self.short.push(Box::pin(service::short(member, method, call))),
            Path::Long => drop(self.long.spawn(service::long(member, call))),
        }
    }
}

/// Asks a silent client for a sign of life.
struct KeepAlive {
    ticks: Interval,
    timeout: std::time::Duration,
    pings: Option<h2::PingPong>,
    /// When the ping was sent that isn't answered yet.
    waiting: Option<Instant>,
}

impl KeepAlive {
    fn new(limits: &Limits, pings: Option<h2::PingPong>) -> Self {
        let first = Instant::now() + limits.keep_alive_interval;
        let mut ticks = tokio::time::interval_at(first, limits.keep_alive_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, timeout: limits.keep_alive_timeout, pings, waiting: None }
    }

    /// Ready when it is time to [`KeepAlive::check`].
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pings) = &mut self.pings
            && self.waiting.is_some()
            && let Poll::Ready(Ok(_pong)) = pings.poll_pong(cx)
        {
            self.waiting = None;
        }
        self.ticks.poll_tick(cx).map(drop)
    }

    /// Sends a ping, or ends the connection if the last one has no answer or draining takes too long.
    fn check(&mut self, drain_until: Option<Instant>) -> io::Result<()> {
        let now = Instant::now();
        let silent = self.waiting.is_some_and(|sent| now - sent >= self.timeout);
        if silent || drain_until.is_some_and(|until| now >= until) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.waiting.is_none()
            && let Some(pings) = &mut self.pings
            && pings.send_ping(h2::Ping::opaque()).is_ok()
        {
            self.waiting = Some(now);
            self.ticks.reset_after(self.timeout);
        }
        Ok(())
    }

    /// Looks more often, because draining has a deadline.
    fn hurry(&mut self) {
        self.ticks = tokio::time::interval(std::time::Duration::from_millis(100));
    }
}
