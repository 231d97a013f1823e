//! The leader of three members is killed while a client writes; how long until the next acknowledged write.

use super::Setting;
use crate::cluster::{Cluster, Shape, within};
use crate::http::Connection;
use crate::kubeconfig::Target;
use crate::objects;
use crate::report::Row;
use crate::statistics::Samples;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use std::time::{Duration, Instant};

/// Writes before the kill, to be sure that the cluster is in its stride.
const WARM_UP: usize = 50;

/// A write that isn't answered within this is given up and tried again on a new connection.
const PATIENCE: Duration = Duration::from_millis(500);

/// Measures the gap that one client sees, and checks that no acknowledged write is missing afterwards.
pub async fn run(setting: &Setting) -> Result<Vec<Row>> {
    let mut samples = Samples::default();
    for _ in 0..setting.runs {
        let (cluster, _) =
            Cluster::ready(&setting.binary, Shape { members: 3, nodes: 1, fake_nodes: 0 }).await?;
        let mut writer = Writer::new(cluster.target.clone());
        samples
            .push_millis(within("wait for the next acknowledged write", once(&cluster, &mut writer)).await?);
        within("look for every acknowledged write", writer.check()).await?;
        cluster.stop().await?;
    }
    Ok(vec![Row::new("leader of 3 members killed → next acknowledged write", "ms", &samples)])
}

async fn once(cluster: &Cluster, writer: &mut Writer) -> Result<Duration> {
    for _ in 0..WARM_UP {
        writer.write().await?;
    }
    let leader = cluster.leader().await?;
    let start = Instant::now();
    let kill = ["kill", leader.as_str()];
    let mut kill = std::pin::pin!(cluster.chaos(&kill));
    // Writing goes on while the command runs. The gap ends with the first write that was begun after it.
    loop {
        tokio::select! {
            biased;
            killed = &mut kill => {
                killed?;
                break;
            }
            written = writer.write() => written?,
        }
    }
    writer.write().await?;
    Ok(start.elapsed())
}

struct Writer {
    target: Target,
    connection: Option<Connection>,
    acknowledged: Vec<String>,
    attempts: usize,
}

impl Writer {
    fn new(target: Target) -> Self {
        Writer { target, connection: None, acknowledged: Vec::new(), attempts: 0 }
    }

    /// Creates an object; tries other names on new connections until one is acknowledged.
    async fn write(&mut self) -> Result<()> {
        loop {
            self.attempts += 1;
            let name = format!("write-{}", self.attempts);
            match tokio::time::timeout(PATIENCE, self.attempt(&name)).await {
                Ok(Ok(true)) => {
                    self.acknowledged.push(name);
                    return Ok(());
                }
                Ok(Ok(false)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(Err(_)) | Err(_) => self.connection = None,
            }
        }
    }

    async fn attempt(&mut self, name: &str) -> Result<bool> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Connection::open(&self.target).await?),
        };
        let body = Bytes::from(objects::config_map(name, 400).to_string());
        let (status, _) = connection.send(Method::POST, &objects::core("configmaps"), body).await?;
        Ok(status.is_success())
    }

    async fn check(&mut self) -> Result<()> {
        let mut connection = Connection::open(&self.target).await?;
        let list = connection.json(Method::GET, &objects::core("configmaps"), None).await?;
        let items = list["items"].as_array().context("a list without items")?;
        let names: std::collections::BTreeSet<&str> =
            items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
        let lost = self.acknowledged.iter().filter(|name| !names.contains(name.as_str())).count();
        if lost > 0 {
            bail!("{lost} of {} acknowledged writes are lost", self.acknowledged.len());
        }
        Ok(())
    }
}
