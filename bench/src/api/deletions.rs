//! The deletion of a large collection by one request: how long it takes, what memory it needs, and what others
//! notice of it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;

use super::lists::create_many;
use super::memory::resident;
use super::page::Line;
use super::wire::Wire;
use super::{Server, collection};
use crate::objects::config_map;
use crate::process::Pid;
use crate::statistics::{Samples, number};

/// Size of an object's data in bytes.
const SIZE: usize = 400;
/// The object that others read and write meanwhile.
const BESIDE: &str = "beside";
/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(200);

/// Makes the objects and deletes them, beside a reader and a writer of another object.
pub async fn run(server: &Server, count: usize) -> Result<Vec<Line>> {
    create_many(server, "configmaps", count, |number| config_map(&format!("gone-{number}"), SIZE)).await?;
    let mut wire = Wire::open(&server.target).await?;
    let beside = config_map(BESIDE, SIZE).to_string();
    wire.expect("POST", &collection("configmaps"), beside.as_bytes()).await?;
    let before = resident(&server.pids)?;
    let over = Arc::new(AtomicBool::new(false));
    let reader =
        tokio::spawn(meanwhile(Wire::open(&server.target).await?, "GET", String::new(), over.clone()));
    let writer = tokio::spawn(meanwhile(Wire::open(&server.target).await?, "PUT", beside, over.clone()));
    let looks = tokio::spawn(peak(server.pids.clone(), over.clone()));
    let start = Instant::now();
    let requests = delete_all(&mut wire).await?;
    let took = start.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut line = Line::new(format!("Deletion of a collection of {count} ConfigMaps, {requests} requests"))
        .with("time", format!("{} s", number(took.as_secs_f64())))
        .with("rate", format!("{}/s", number(count as f64 / took.as_secs_f64())));
    for (what, other) in [("gets meanwhile p50, p99", reader), ("updates meanwhile p50, p99", writer)] {
        line = line.with(what, latency(other).await?);
    }
    let peak = looks.await??;
    if !server.pids.is_empty() {
        line = line
            .with("RSS before", format!("{} MiB", number(before)))
            .with("at its peak", format!("{} MiB", number(peak)));
    }
    Ok(vec![line])
}

async fn latency(of: JoinHandle<Result<Samples>>) -> Result<String> {
    let samples = of.await??;
    let percentile = |share| number(samples.percentile(share).unwrap_or(f64::NAN));
    Ok(format!("{} and {} ms", percentile(0.5), percentile(0.99)))
}

/// Deletes all but the object beside; gives how many requests that took. More objects than a server deletes within one
/// request's time take several.
async fn delete_all(wire: &mut Wire) -> Result<usize> {
    let path = format!("{}?fieldSelector=metadata.name!={BESIDE}", collection("configmaps"));
    for requests in 1.. {
        let (status, answer) = wire.send("DELETE", &path, &[]).await?;
        ensure!(matches!(status, 200 | 504), "{status}: {}", String::from_utf8_lossy(&answer));
        if status == 200 {
            return Ok(requests);
        }
    }
    unreachable!("there are more numbers than requests")
}

/// Milliseconds of each request for the object beside until it is over.
async fn meanwhile(
    mut wire: Wire,
    method: &'static str,
    body: String,
    over: Arc<AtomicBool>,
) -> Result<Samples> {
    let path = format!("{}/{BESIDE}", collection("configmaps"));
    let mut latencies = Samples::default();
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        wire.expect(method, &path, body.as_bytes()).await?;
        latencies.push_millis(start.elapsed());
    }
    Ok(latencies)
}

/// The most memory that is seen, in MiB.
async fn peak(pids: Vec<Pid>, over: Arc<AtomicBool>) -> Result<f64> {
    let mut most: f64 = 0.0;
    while !over.load(Ordering::Relaxed) {
        most = most.max(resident(&pids)?);
        tokio::time::sleep(LOOK).await;
    }
    Ok(most)
}
