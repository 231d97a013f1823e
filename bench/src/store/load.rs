//! Closed-loop load: so many clients, each with one request under way, over a few connections.
//!
//! Ten clients share a connection, as etcd's own benchmark has it. One task drives a connection with all its
//! clients; a client's next request follows its answer at once.

use super::http2::{Arrival, Head, Http2, Messages};
use super::messages::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Clients to a connection.
const CLIENTS_PER_CONNECTION: usize = 10;
/// A load that hasn't ended this long after it should have is given up: some request was never answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests of one kind, and what their answers must be.
pub trait Work: Send + 'static {
    /// The method.
    fn head(&self) -> Head;
    /// Encodes the next request; `None` when all is done.
    fn next(&mut self, out: &mut Vec<u8>) -> Option<()>;
    /// Checks an answer.
    fn check(&self, answer: Bytes) -> Result<()>;
}

/// When requests are counted, and when no more are sent.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Answers from here on count.
    pub from: Instant,
    /// No request is sent and no answer counted any more.
    pub until: Instant,
}

impl Window {
    /// From now on, without end: for a fixed amount of work.
    pub fn unlimited() -> Self {
        let now = Instant::now();
        Window { from: now, until: now + Duration::from_secs(3600) }
    }
}

/// How long each counted request took, in nanoseconds (saturated at four seconds).
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// How many requests were counted.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this share (0 to 1) of all requests didn't exceed, in milliseconds.
    pub fn percentile_ms(&mut self, share: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        let rank = ((share * self.0.len() as f64).ceil() as usize).clamp(1, self.0.len());
        f64::from(*self.0.select_nth_unstable(rank - 1).1) / 1e6
    }

    fn record(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }
}

/// Runs `clients` spread over `addresses`; `work` makes the requests of each connection by its number.
pub async fn run<W: Work>(
    addresses: &[SocketAddr],
    clients: usize,
    window: Window,
    work: impl Fn(usize) -> W,
) -> Result<Latencies> {
    let connections = clients.div_ceil(CLIENTS_PER_CONNECTION);
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let share = clients / connections + usize::from(number < clients % connections);
        let connection = Connection::open(addresses[number % addresses.len()], share, work(number)).await?;
        tasks.spawn(connection.run(window));
    }
    let mut all = Latencies::default();
    while let Some(done) = tasks.join_next().await {
        all.0.extend(done??.0);
    }
    Ok(all)
}

/// One client's request under way.
#[derive(Default)]
struct Client {
    stream: u32,
    sent: Option<Instant>,
    request: Vec<u8>,
    answer: Messages,
}

struct Connection<W> {
    http: Http2,
    head: Head,
    work: W,
    clients: Vec<Client>,
    latencies: Latencies,
}

impl<W: Work> Connection<W> {
    async fn open(address: SocketAddr, clients: usize, work: W) -> Result<Self> {
        let clients = std::iter::repeat_with(Client::default).take(clients).collect();
        let (http, head) = (Http2::connect(address).await?, work.head());
        Ok(Connection { http, head, work, clients, latencies: Latencies::default() })
    }

    async fn run(self, window: Window) -> Result<Latencies> {
        let deadline = (window.until + PATIENCE).into();
        tokio::time::timeout_at(deadline, self.run_to_end(window))
            .await
            .context("requests were never answered")?
    }

    async fn run_to_end(mut self, window: Window) -> Result<Latencies> {
        let mut idle: Vec<usize> = (0..self.clients.len()).collect();
        loop {
            self.send(&mut idle, window);
            self.http.flush().await?;
            if self.clients.iter().all(|client| client.sent.is_none()) {
                return Ok(self.latencies);
            }
            self.http.receive().await?;
            while let Some(arrival) = self.http.next()? {
                idle.extend(self.take(arrival, window)?);
            }
        }
    }

    /// Sends the next request of each idle client, as far as the server's window allows.
    fn send(&mut self, idle: &mut Vec<usize>, window: Window) {
        let now = Instant::now();
        while let Some(number) = idle.pop() {
            let client = &mut self.clients[number];
            if client.request.is_empty()
                && (now >= window.until || self.work.next(&mut client.request).is_none())
            {
                continue;
            }
            if !self.http.has_room(client.request.len()) {
                idle.push(number);
                return;
            }
            client.stream = self.http.open(&self.head);
            client.sent = Some(now);
            self.http.message(client.stream, &client.request, true);
            client.request.clear();
        }
    }

    /// Takes what has arrived; the client that is done.
    fn take(&mut self, arrival: Arrival, window: Window) -> Result<Option<usize>> {
        let (Arrival::Data(stream, _) | Arrival::End(stream)) = arrival;
        let of_stream = |client: &Client| client.stream == stream && client.sent.is_some();
        let number = self.clients.iter().position(of_stream).context("an answer that nobody asked for")?;
        let client = &mut self.clients[number];
        let Arrival::End(_) = arrival else {
            if let Arrival::Data(_, piece) = arrival {
                client.answer.push(&piece);
            }
            return Ok(None);
        };
        let Some(answer) = client.answer.next() else {
            bail!("a request failed: it ended without an answer")
        };
        self.work.check(answer)?;
        let (now, sent) = (Instant::now(), client.sent.take().context("an answer before its request")?);
        if now >= window.from && now < window.until {
            self.latencies.record(now - sent);
        }
        Ok(Some(number))
    }
}

/// SplitMix64: keys are spread, and the same in each run.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// Where all keys of the measurements are.
pub const PREFIX: &str = "/registry/bench/default/";

/// The key with this number.
pub fn key(number: u64) -> String {
    format!("{PREFIX}object-{number:010}")
}

/// Puts of one size: random keys out of a space, or each key once.
pub struct Puts {
    keys: Keys,
    value: Bytes,
}

/// Which keys are put or read.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Random ones below the bound.
    Random(Random, u64),
    /// Each of these once.
    Each(std::iter::StepBy<std::ops::Range<u64>>),
}

impl Keys {
    fn next(&mut self) -> Option<u64> {
        match self {
            Keys::Random(random, bound) => Some(random.below(*bound)),
            Keys::Each(numbers) => numbers.next(),
        }
    }
}

impl Puts {
    /// Values of `size` bytes that don't compress to nothing.
    pub fn new(keys: Keys, size: usize) -> Self {
        let mut random = Random(size as u64);
        let value: Vec<u8> = (0..size).map(|_| b"0123456789abcdef"[random.below(16) as usize]).collect();
        Puts { keys, value: value.into() }
    }
}

impl Work for Puts {
    fn head(&self) -> Head {
        Head::new("/etcdserverpb.KV/Put")
    }

    fn next(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let request = PutRequest { key: key(self.keys.next()?).into(), value: self.value.clone() };
        request.encode_raw(out);
        Some(())
    }

    fn check(&self, answer: Bytes) -> Result<()> {
        let header = PutResponse::decode(answer).context("the answer to a put")?.header;
        ensure!(header.is_some_and(|header| header.revision > 1), "a put without a revision");
        Ok(())
    }
}

/// Linearizable reads: of single random keys, or of a whole range.
pub struct Reads {
    keys: Option<Keys>,
    expected: usize,
}

impl Reads {
    /// Of one existing key at a time.
    pub fn points(keys: Keys) -> Self {
        Reads { keys: Some(keys), expected: 1 }
    }

    /// Of everything, which must be `expected` keys.
    pub fn everything(expected: usize) -> Self {
        Reads { keys: None, expected }
    }
}

impl Work for Reads {
    fn head(&self) -> Head {
        Head::new("/etcdserverpb.KV/Range")
    }

    fn next(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let request = match &mut self.keys {
            Some(keys) => RangeRequest { key: key(keys.next()?).into(), range_end: Bytes::new() },
            None => {
                RangeRequest { key: PREFIX.into(), range_end: super::messages::prefix_end(PREFIX.as_bytes()) }
            }
        };
        request.encode_raw(out);
        Some(())
    }

    fn check(&self, answer: Bytes) -> Result<()> {
        let found = RangeResponse::decode(answer).context("the answer to a range")?.kvs.len();
        ensure!(found == self.expected, "a range returned {found} keys instead of {}", self.expected);
        Ok(())
    }
}
