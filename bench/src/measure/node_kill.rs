//! A node is killed with everything on it; how long until all replicas run on the others.

use super::Setting;
use crate::cluster::{Cluster, Shape, within};
use crate::objects;
use crate::report::Row;
use crate::statistics::Samples;
use anyhow::{Context, Result};
use http::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Replicas, spread over three nodes.
const REPLICAS: usize = 6;

/// Measures from the kill to the last replacement Running.
pub async fn run(setting: &Setting) -> Result<Vec<Row>> {
    let mut samples = Samples::default();
    for _ in 0..setting.runs {
        let (cluster, _) =
            Cluster::ready(&setting.binary, Shape { members: 1, nodes: 3, fake_nodes: 0 }).await?;
        samples.push_millis(once(&cluster).await?);
        cluster.stop().await?;
    }
    let what = format!("node killed → its share of {REPLICAS} replicas Running elsewhere");
    Ok(vec![Row::new(what, "ms", &samples)])
}

async fn once(cluster: &Cluster) -> Result<Duration> {
    let deployment = objects::deployment("web", REPLICAS);
    let path = format!("/apis/apps/v1/namespaces/{}/deployments", objects::NAMESPACE);
    cluster.connect().await?.json(Method::POST, &path, Some(&deployment)).await?;
    let mut victim = None;
    within(
        "wait for the replicas to run",
        running(cluster, |pods| {
            victim = pods.first().and_then(|pod| pod["spec"]["nodeName"].as_str()).map(str::to_owned);
            pods.len() >= REPLICAS
        }),
    )
    .await?;
    let victim = victim.context("a running pod has a node")?;
    let start = Instant::now();
    cluster.chaos(&["kill", &victim]).await?;
    let elsewhere = |pods: &[&Value]| {
        pods.iter().filter(|pod| pod["spec"]["nodeName"] != victim.as_str()).count() >= REPLICAS
    };
    within("wait for the replacements to run", running(cluster, elsewhere)).await?;
    Ok(start.elapsed())
}

async fn running(cluster: &Cluster, mut enough: impl FnMut(&[&Value]) -> bool) -> Result<()> {
    let enough = |pods: &BTreeMap<String, Value>| {
        let running: Vec<&Value> = pods.values().filter(|pod| objects::is_running(pod)).collect();
        enough(&running)
    };
    cluster.watch_until(&objects::core("pods"), enough).await
}
