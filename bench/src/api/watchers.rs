//! Watch fan-out: how fast the changes of one resource reach many watchers, and whether any is cut off.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::page::Line;
use super::wire::Wire;
use super::{Server, collection};
use crate::objects::config_map;
use crate::process;
use crate::statistics::{Samples, number};

/// Numbers of watchers.
const WATCHERS: [usize; 2] = [100, 1000];
/// Connections that write.
const WRITERS: usize = 16;
/// Who hasn't got everything by then is told of as cut.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the time of writing stands in an object.
const SENT: &[u8] = b"\"sent\":\"";

/// What one watcher saw.
struct Seen {
    events: usize,
    /// When the last one came.
    last: Instant,
    /// Milliseconds from writing to here; one watcher measures for all.
    latencies: Samples,
}

/// Measures each number of watchers.
pub async fn run(server: &Server, events: usize) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for watchers in WATCHERS {
        lines.push(fan_out(server, watchers, events).await?);
    }
    Ok(lines)
}

async fn fan_out(server: &Server, watchers: usize, events: usize) -> Result<Line> {
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let mut wire = Wire::open(&server.target).await?;
        let name = format!("watched-{watchers}-{writer}");
        wire.expect("POST", &collection("configmaps"), object(&name).as_bytes()).await?;
        writers.push((wire, name));
    }
    let (_, list) = writers[0].0.send("GET", &format!("{}?limit=1", collection("configmaps")), &[]).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let from =
        list["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?.to_owned();
    let mut watching = JoinSet::new();
    for watcher in 0..watchers {
        let mut wire = Wire::open(&server.target).await?;
        let path = format!("{}?watch=1&resourceVersion={from}", collection("configmaps"));
        wire.watch(&path).await?;
        watching.spawn(watch(wire, events, watcher == 0));
    }
    let (before, start) = (process::cpu(&server.pids), Instant::now());
    let mut writing = JoinSet::new();
    for (number, (wire, name)) in writers.into_iter().enumerate() {
        let share = events / WRITERS + usize::from(number < events % WRITERS);
        writing.spawn(write(wire, name, share));
    }
    while let Some(done) = writing.join_next().await {
        done??;
    }
    let seen: Vec<Seen> = watching.join_all().await;
    let cpu = process::cpu(&server.pids) - before;
    Ok(line(server, watchers, events, &seen, start, cpu))
}

fn line(
    server: &Server,
    watchers: usize,
    events: usize,
    seen: &[Seen],
    start: Instant,
    cpu: Duration,
) -> Line {
    let delivered: usize = seen.iter().map(|seen| seen.events).sum();
    let last = seen.iter().map(|seen| seen.last).max().unwrap_or(start);
    let cut = seen.iter().filter(|seen| seen.events < events).count();
    let mut latencies = Samples::default();
    seen.iter().for_each(|seen| latencies.extend(seen.latencies.clone()));
    let rate = delivered as f64 / last.duration_since(start).as_secs_f64();
    let percentile = |share| number(latencies.percentile(share).unwrap_or(f64::NAN));
    let mut line = Line::new(format!("{watchers} watchers × {events} events"))
        .with("rate", format!("{} deliveries/s", number(rate)))
        .with("p50", format!("{} ms", percentile(0.5)))
        .with("p99", format!("{} ms", percentile(0.99)))
        .with("cut off", cut.to_string());
    if !server.pids.is_empty() && delivered > 0 {
        line = line.with("CPU", format!("{} µs", number(cpu.as_secs_f64() * 1e6 / delivered as f64)));
    }
    line
}

async fn write(mut wire: Wire, name: String, count: usize) -> Result<()> {
    let path = format!("{}/{name}", collection("configmaps"));
    for _ in 0..count {
        wire.expect("PUT", &path, object(&name).as_bytes()).await?;
    }
    Ok(())
}

/// Reads until all events are there, the stream ends, or patience does.
async fn watch(mut wire: Wire, events: usize, measures: bool) -> Seen {
    let mut seen = Seen { events: 0, last: Instant::now(), latencies: Samples::default() };
    let all = async {
        while seen.events < events {
            let more = wire.watch_piece(&mut |piece| seen.take(piece, measures)).await;
            if !matches!(more, Ok(true)) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, all).await;
    seen
}

impl Seen {
    /// A line is an event.
    fn take(&mut self, piece: &[u8], measures: bool) {
        self.events += piece.iter().filter(|byte| **byte == b'\n').count();
        self.last = Instant::now();
        if measures && let Some(sent) = sent(piece) {
            self.latencies.push_millis(now().saturating_sub(sent));
        }
    }
}

/// The time in the first event of a piece, if it is whole.
fn sent(piece: &[u8]) -> Option<Duration> {
    let at = piece.windows(SENT.len()).position(|window| window == SENT)? + SENT.len();
    let digits: Vec<u8> = piece[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    Some(Duration::from_nanos(String::from_utf8(digits).ok()?.parse().ok()?))
}

fn object(name: &str) -> String {
    let mut object = config_map(name, 200);
    object["data"]["sent"] = now().as_nanos().to_string().into();
    object.to_string()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
