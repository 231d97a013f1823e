//! How long after a crash of the control plane its controllers and scheduler act again.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::objects::{deployment, pod, pods};
use super::page::Line;
use super::session::{Creation, Session};
use crate::cluster::Cluster;

/// Fills the store with pods that nobody schedules, kills the member, starts it, and waits until a Deployment
/// made right after runs.
pub async fn run(session: &Session, cluster: &Cluster, objects: usize) -> Result<Line> {
    let namespace = "bench-restart";
    session.namespace(namespace).await?;
    let idle = |number: usize| {
        let mut idle = pod(&format!("p-{number}"), "100m");
        idle["spec"]["schedulerName"] = json!("nobody");
        Creation::new(&pods(namespace), &idle)
    };
    session.create((0..objects).map(idle).collect()).await?;
    cluster.chaos(&["kill", "m1"]).await?;
    let start = Instant::now();
    cluster.chaos(&["resume", "m1"]).await?;
    cluster.connect().await?;
    let serving = start.elapsed();
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let made = vec![Creation::new(&path, &deployment("after", 1))];
    session.create_and_wait(made, &pods(namespace), 1, |seen| seen.is_running()).await?;
    let line = Line::new(format!("control plane killed with {objects} pods in the store"));
    let line = line.with("serves after", format!("{:.2} s", serving.as_secs_f64()));
    let line =
        line.with("a new Deployment's pod runs after", format!("{:.2} s", start.elapsed().as_secs_f64()));
    session.remove_namespace(namespace).await?;
    Ok(line)
}
