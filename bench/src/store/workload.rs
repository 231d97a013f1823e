//! What is measured of one side in one run, each on a group in a fresh directory.

use super::load::{self, Keys, Latencies, Puts, Random, Reads, Window, Work};
use super::server::{Group, Setting, Side};
use super::watchers;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Keys that exist before puts and reads are measured, and are put and read: updates are what a cluster's
/// store does most.
const KEY_SPACE: u64 = 20_000;
/// Keys of a whole range.
const RANGE_KEYS: u64 = 10_000;
/// Clients that fill a store.
const FILLERS: usize = 256;
/// Before counting, so that caches, connections and the garbage collector are in their stride.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between filling a store and looking at its memory: what runs in the background ends.
const SETTLE: Duration = Duration::from_secs(5);

/// One measurement's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Puts of `value` bytes over random keys.
    Put {
        /// Members of the group.
        members: usize,
        /// Clients.
        clients: usize,
        /// Bytes of a value.
        value: usize,
    },
    /// Linearizable reads of single keys.
    Read {
        /// Members of the group.
        members: usize,
        /// Clients.
        clients: usize,
    },
    /// Linearizable ranges of 10,000 keys.
    Range,
    /// Events to so many watchers.
    Watch {
        /// Watchers.
        watchers: usize,
        /// Streams that they share, each on a connection of its own.
        streams: usize,
    },
    /// Memory with so many keys.
    Memory {
        /// Keys, each put once.
        keys: u64,
    },
}

/// What a measurement says about one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Puts, reads, ranges or events a second.
    Rate,
    /// Half of all requests were answered within, ms.
    P50,
    /// 99 % of all requests were answered within, ms.
    P99,
    /// CPU time of all members for one operation, µs.
    Cpu,
    /// How often a thread went to sleep for one operation.
    Switches,
    /// Resident memory, MiB.
    Rss,
}

/// One run's figures.
pub type Figures = Vec<(Metric, f64)>;

impl Workload {
    /// Measures `side` once, counting for `duration`.
    pub async fn run(self, side: Side, setting: &Setting, duration: Duration) -> Result<Figures> {
        match self {
            Workload::Put { members, clients, value } => {
                let group = Group::start(side, members, setting).await?;
                fill(&group, KEY_SPACE).await?;
                let work = |number| Puts::new(Keys::Random(Random(number as u64), KEY_SPACE), value);
                let mut figures = rate(&group, clients, duration, work).await?;
                figures.push((Metric::Rss, group.memory()?.rss));
                Ok(figures)
            }
            Workload::Read { members, clients } => {
                let group = Group::start(side, members, setting).await?;
                fill(&group, KEY_SPACE).await?;
                let work = |number| Reads::points(Keys::Random(Random(number as u64), KEY_SPACE));
                rate(&group, clients, duration, work).await
            }
            Workload::Range => {
                let group = Group::start(side, 1, setting).await?;
                fill(&group, RANGE_KEYS).await?;
                rate(&group, 1, duration, |_| Reads::everything(RANGE_KEYS as usize)).await
            }
            Workload::Watch { watchers, streams } => {
                watch(side, (watchers, streams), setting, duration).await
            }
            Workload::Memory { keys } => memory(side, keys, setting).await,
        }
    }

    /// What it is called in the table.
    pub fn name(self) -> String {
        let members = |count: usize| format!("{count} member{}", if count == 1 { "" } else { "s" });
        match self {
            Workload::Put { members: m, clients: 1, value } => {
                format!("put {value} B, 1 client, {}", members(m))
            }
            Workload::Put { members: m, clients, value } => {
                format!("put {value} B, {clients} clients, {}", members(m))
            }
            Workload::Read { members: m, clients } => {
                format!("linearizable read, {clients} clients, {}", members(m))
            }
            Workload::Range => "range of 10,000 keys, 1 client, 1 member".into(),
            Workload::Watch { watchers, streams } => {
                format!("events to {watchers} watchers on {streams} connections, 8 writers, 1 member")
            }
            Workload::Memory { keys } => {
                format!("{} keys of 256 B, 1 member", crate::statistics::number(keys as f64))
            }
        }
    }
}

async fn rate<W: Work>(
    group: &Group,
    clients: usize,
    duration: Duration,
    work: impl Fn(usize) -> W,
) -> Result<Figures> {
    let from = Instant::now() + WARM_UP;
    let window = Window { from, until: from + duration };
    let load = load::run(&group.addresses, clients, window, work);
    let (latencies, used) = tokio::join!(load, used(group, window));
    Ok(figures(&mut latencies?, used, duration))
}

/// CPU time and switches within the window.
async fn used(group: &Group, window: Window) -> (Duration, u64) {
    tokio::time::sleep_until(window.from.into()).await;
    let (cpu, switches) = (group.cpu(), group.switches());
    tokio::time::sleep_until(window.until.into()).await;
    (group.cpu().saturating_sub(cpu), group.switches().saturating_sub(switches))
}

fn figures(latencies: &mut Latencies, (cpu, switches): (Duration, u64), duration: Duration) -> Figures {
    let operations = latencies.count() as f64;
    vec![
        (Metric::Rate, operations / duration.as_secs_f64()),
        (Metric::P50, latencies.percentile_ms(0.5)),
        (Metric::P99, latencies.percentile_ms(0.99)),
        (Metric::Cpu, cpu.as_secs_f64() * 1e6 / operations),
        (Metric::Switches, switches as f64 / operations),
    ]
}

/// Puts each key once.
async fn fill(group: &Group, keys: u64) -> Result<()> {
    let connections = FILLERS.div_ceil(10);
    let work = |number| Puts::new(Keys::Each((number as u64..keys).step_by(connections)), 256);
    load::run(&group.addresses, FILLERS, Window::unlimited(), work).await.map(drop)
}

async fn watch(
    side: Side,
    (watchers, streams): (usize, usize),
    setting: &Setting,
    duration: Duration,
) -> Result<Figures> {
    let group = Group::start(side, 1, setting).await?;
    let before = group.cpu();
    let delivered = watchers::run(&group, watchers, streams, duration).await?;
    let cpu = group.cpu().saturating_sub(before);
    let events = delivered.events as f64;
    Ok(vec![
        (Metric::Rate, events / delivered.took.as_secs_f64()),
        (Metric::Cpu, cpu.as_secs_f64() * 1e6 / events),
        (Metric::Rss, group.memory()?.rss),
    ])
}

async fn memory(side: Side, keys: u64, setting: &Setting) -> Result<Figures> {
    let group = Group::start(side, 1, setting).await?;
    let start = Instant::now();
    fill(&group, keys).await?;
    let took = start.elapsed();
    tokio::time::sleep(SETTLE).await;
    let cpu = group.cpu().as_secs_f64() * 1e6 / keys as f64;
    Ok(vec![
        (Metric::Rate, keys as f64 / took.as_secs_f64()),
        (Metric::Cpu, cpu),
        (Metric::Rss, group.memory()?.rss),
    ])
}
