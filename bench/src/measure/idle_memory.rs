//! Memory of one control plane (store, API server, controllers, scheduler in one process) that has nothing
//! to do but the heartbeat of one node.

use super::Setting;
use crate::cluster::{Cluster, Shape};
use crate::process;
use crate::report::Row;
use crate::statistics::Samples;
use anyhow::{Context, Result};
use std::time::Duration;

/// How long the cluster idles before it is looked at.
const IDLE: Duration = Duration::from_secs(10);

/// Measures the server process.
pub async fn run(setting: &Setting) -> Result<Vec<Row>> {
    let (mut rss, mut pss) = (Samples::default(), Samples::default());
    let (mut whole, mut cpu) = (Samples::default(), Samples::default());
    for _ in 0..setting.runs.min(3) {
        let (cluster, _) =
            Cluster::ready(&setting.binary, Shape { members: 1, nodes: 1, fake_nodes: 0 }).await?;
        let server = *cluster.servers().first().context("no server process below amoeba up")?;
        let before = process::cpu(&[server]);
        tokio::time::sleep(IDLE).await;
        let memory = process::memory(server)?;
        rss.push(memory.rss);
        pss.push(memory.pss);
        whole.push(
            cluster
                .processes()
                .into_iter()
                .filter_map(|pid| process::memory(pid).ok())
                .map(|one| one.pss)
                .sum(),
        );
        cpu.push((process::cpu(&[server]) - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0);
        cluster.stop().await?;
    }
    Ok(vec![
        Row::new("idle control plane, RSS after 10 s", "MiB", &rss),
        Row::new("idle control plane, PSS after 10 s", "MiB", &pss),
        Row::new("idle cluster, all processes (supervisor, member, node), PSS", "MiB", &whole),
        Row::new("idle control plane, CPU", "% of a core", &cpu),
    ])
}
