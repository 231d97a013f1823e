//! Pods per second from the first create to the last Running, on one node with real processes.

use super::Setting;
use crate::cluster::{Cluster, Shape, within};
use crate::http::Connection;
use crate::objects;
use crate::process;
use crate::report::Row;
use crate::statistics::Samples;
use anyhow::Result;
use http::Method;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many pods; a node takes 110.
const PODS: usize = 100;

/// How many clients create them.
const CLIENTS: usize = 8;

/// Measures creation, binding, start and report of [`PODS`] pods.
pub async fn run(setting: &Setting) -> Result<Vec<Row>> {
    let (mut rates, mut cpu) = (Samples::default(), Duration::ZERO);
    for _ in 0..setting.runs {
        let (cluster, _) =
            Cluster::ready(&setting.binary, Shape { members: 1, nodes: 1, fake_nodes: 0 }).await?;
        let before = process::cpu(&cluster.processes());
        let took = within("wait for all pods to run", start_pods(&cluster)).await?;
        cpu += process::cpu(&cluster.processes()).saturating_sub(before);
        rates.push(PODS as f64 / took.as_secs_f64());
        cluster.stop().await?;
    }
    let what = format!("pods created → Running on one node, {PODS} at once");
    Ok(vec![Row::new(what, "pods/s", &rates).cpu_per_operation(cpu, PODS * setting.runs)])
}

async fn start_pods(cluster: &Cluster) -> Result<Duration> {
    let path = objects::core("pods");
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(cluster.connect().await?);
    }
    let start = Instant::now();
    let mut creators = JoinSet::new();
    for (client, connection) in connections.into_iter().enumerate() {
        creators.spawn(create(connection, client));
    }
    let running = cluster
        .watch_until(&path, |pods| pods.values().filter(|pod| objects::is_running(pod)).count() >= PODS);
    let created = async {
        while let Some(created) = creators.join_next().await {
            created??;
        }
        Ok(())
    };
    tokio::try_join!(running, created)?;
    Ok(start.elapsed())
}

async fn create(mut connection: Connection, client: usize) -> Result<()> {
    for number in (client..PODS).step_by(CLIENTS) {
        let pod = objects::pod(&format!("pod-{number}"));
        connection.json(Method::POST, &objects::core("pods"), Some(&pod)).await?;
    }
    Ok(())
}
