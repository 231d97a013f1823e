//! Creates and gets per second over N connections with client certificates, and how long one takes.

use super::Setting;
use crate::cluster::{Cluster, Shape, within};
use crate::http::Connection;
use crate::objects;
use crate::process;
use crate::report::Row;
use crate::statistics::{Samples, number};
use anyhow::{Result, bail};
use bytes::Bytes;
use http::Method;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Numbers of connections.
const CONNECTIONS: [usize; 3] = [1, 16, 64];

/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(4);

/// Size of the objects in bytes.
const SIZE: usize = 400;

#[derive(Clone, Copy, Debug)]
enum Load {
    Creates,
    Gets,
}

/// What came of one load.
struct Outcome {
    /// Milliseconds of each request.
    latencies: Samples,
    took: Duration,
    cpu: Duration,
}

/// Measures each load on one cluster without nodes to disturb it.
pub async fn run(setting: &Setting) -> Result<Vec<Row>> {
    let (cluster, _) = Cluster::ready(&setting.binary, Shape { members: 1, nodes: 1, fake_nodes: 0 }).await?;
    let mut rows = Vec::new();
    for load in [Load::Creates, Load::Gets] {
        for connections in CONNECTIONS {
            let outcome = within("put load on the API", drive(&cluster, load, connections)).await?;
            rows.push(row(load, connections, &outcome));
        }
    }
    cluster.stop().await?;
    Ok(rows)
}

fn row(load: Load, connections: usize, outcome: &Outcome) -> Row {
    let count = outcome.latencies.len();
    let rate = count as f64 / outcome.took.as_secs_f64();
    let percentile = |share| number(outcome.latencies.percentile(share).unwrap_or(f64::NAN));
    let result = format!("{}/s, p50 {} ms, p99 {} ms", number(rate), percentile(0.5), percentile(0.99));
    let what = match load {
        Load::Creates => format!("API creates, {connections} connection(s), {SIZE} B, durable"),
        Load::Gets => format!("API gets, {connections} connection(s)"),
    };
    Row::text(what, result).cpu_per_operation(outcome.cpu, count)
}

async fn drive(cluster: &Cluster, load: Load, connections: usize) -> Result<Outcome> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(cluster.connect().await?);
    }
    let seed = objects::config_map("seed", SIZE);
    let path = objects::core("configmaps");
    open[0].send(Method::POST, &path, Bytes::from(seed.to_string())).await?;
    let servers = cluster.servers();
    let (before, start) = (process::cpu(&servers), Instant::now());
    let mut clients = JoinSet::new();
    for (client, connection) in open.into_iter().enumerate() {
        clients.spawn(one_client(connection, load, format!("c{connections}-{client}"), start + LASTS));
    }
    let mut latencies = Samples::default();
    while let Some(client) = clients.join_next().await {
        latencies.extend(client??);
    }
    Ok(Outcome { latencies, took: start.elapsed(), cpu: process::cpu(&servers) - before })
}

async fn one_client(mut connection: Connection, load: Load, name: String, until: Instant) -> Result<Samples> {
    let path = objects::core("configmaps");
    let mut latencies = Samples::default();
    while Instant::now() < until {
        let (method, path, body) = match load {
            Load::Creates => {
                let object = objects::config_map(&format!("{name}-{}", latencies.len()), SIZE);
                (Method::POST, path.clone(), Bytes::from(object.to_string()))
            }
            Load::Gets => (Method::GET, format!("{path}/seed"), Bytes::new()),
        };
        let start = Instant::now();
        let (status, answer) = connection.send(method, &path, body).await?;
        latencies.push_millis(start.elapsed());
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(latencies)
}
