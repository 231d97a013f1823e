//! How long after a crash of the control plane its controllers and scheduler act again.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::objects::{deployment, pod, pods};
use super::page::Line;
use super::session::{Creation, Session};
use crate::cluster::Cluster;
use crate::process;

/// Caches are filled and queues are empty when the servers use less than a tenth of a core for so long.
const REST: Duration = Duration::from_secs(1);
/// After this it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

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
    let line = at_rest(line, cluster, start).await?;
    session.remove_namespace(namespace).await?;
    Ok(line)
}

/// Adds when the restarted servers came to rest, what that took, and what they hold in memory then.
async fn at_rest(line: Line, cluster: &Cluster, start: Instant) -> Result<Line> {
    let servers = cluster.servers();
    let mut used = process::cpu(&servers);
    loop {
        tokio::time::sleep(REST).await;
        let now = process::cpu(&servers);
        let idle = now.saturating_sub(used) < REST / 10;
        used = now;
        if idle || start.elapsed() > PATIENCE {
            break;
        }
    }
    let after = start.elapsed().saturating_sub(REST);
    let mut memory = 0.0;
    for server in &servers {
        memory += process::memory(*server)?.rss;
    }
    let line = line.with("at rest after", format!("{:.1} s", after.as_secs_f64()));
    let line = line.with("CPU until then", format!("{:.1} s", used.as_secs_f64()));
    Ok(line.with("resident memory", format!("{memory:.0} MiB")))
}
