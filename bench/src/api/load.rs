//! Creates, gets and updates of ConfigMaps in closed loops over 1, 16 and 64 connections.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::page::Line;
use super::wire::Wire;
use super::{Server, collection};
use crate::objects::config_map;
use crate::process;
use crate::statistics::{Samples, number};

/// Numbers of connections.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Size of an object's data in bytes.
const SIZE: usize = 400;
/// Before what is counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A new object each time.
    Creates,
    /// The same object again and again.
    Gets,
    /// A new state of the client's own object, whatever its version.
    Updates,
}

impl Load {
    const fn name(self) -> &'static str {
        match self {
            Self::Creates => "creates",
            Self::Gets => "gets",
            Self::Updates => "updates",
        }
    }
}

/// Measures the load at each number of connections.
pub async fn run(server: &Server, load: Load, seconds: f64) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for connections in CONNECTIONS {
        lines.push(drive(server, load, connections, Duration::from_secs_f64(seconds)).await?);
    }
    Ok(lines)
}

async fn drive(server: &Server, load: Load, connections: usize, lasts: Duration) -> Result<Line> {
    let mut clients = JoinSet::new();
    let mut wires = Vec::new();
    for client in 0..connections {
        let mut wire = Wire::open(&server.target).await?;
        let name = format!("{}-{connections}-{client}", load.name());
        if load != Load::Creates {
            wire.expect("POST", &collection("configmaps"), object(&name, 0).as_bytes()).await?;
        }
        wires.push((wire, name));
    }
    let began = Instant::now() + WARM_UP;
    for (wire, name) in wires {
        clients.spawn(one_client(wire, load, name, began, began + lasts));
    }
    tokio::time::sleep_until(began.into()).await;
    let before = process::cpu(&server.pids);
    let mut latencies = Samples::default();
    while let Some(client) = clients.join_next().await {
        latencies.extend(client??);
    }
    let (cpu, count) = (process::cpu(&server.pids) - before, latencies.len());
    let percentile = |share| number(latencies.percentile(share).unwrap_or(f64::NAN));
    let mut line = Line::new(format!("ConfigMap {}, {connections} connections", load.name()))
        .with("rate", format!("{}/s", number(count as f64 / lasts.as_secs_f64())))
        .with("p50", format!("{} ms", percentile(0.5)))
        .with("p99", format!("{} ms", percentile(0.99)));
    if !server.pids.is_empty() && count > 0 {
        line = line.with("CPU", format!("{} µs", number(cpu.as_secs_f64() * 1e6 / count as f64)));
    }
    Ok(line)
}

/// Milliseconds of each request between `began` and `ends`.
async fn one_client(
    mut wire: Wire,
    load: Load,
    name: String,
    began: Instant,
    ends: Instant,
) -> Result<Samples> {
    let (path, own) = (collection("configmaps"), format!("{}/{name}", collection("configmaps")));
    let mut latencies = Samples::default();
    for number in 1_u64.. {
        let start = Instant::now();
        if start >= ends {
            break;
        }
        match load {
            Load::Creates => {
                wire.expect("POST", &path, object(&format!("{name}-{number}"), 0).as_bytes()).await?
            }
            Load::Gets => wire.expect("GET", &own, &[]).await?,
            Load::Updates => wire.expect("PUT", &own, object(&name, number).as_bytes()).await?,
        };
        if start >= began {
            latencies.push_millis(start.elapsed());
        }
    }
    Ok(latencies)
}

fn object(name: &str, number: u64) -> String {
    let mut object = config_map(name, SIZE);
    object["data"]["number"] = number.to_string().into();
    object.to_string()
}
