//! How many pods a node carries.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

use super::pods::{Class, create_and_wait, remove};
use super::{NODE, memory, prepared};
use crate::api::page::Line;
use crate::cluster::Cluster;
use crate::process::Pid;
use crate::statistics::number;

/// Addresses for more pods than the nodes of `up` have.
const RANGE: &str = "10.244.4.0/22";

/// So many pods on one node, by its own runtime.
pub async fn many(binary: &Path, archive: &Path, pods: usize) -> Result<Line> {
    let cluster = prepared(binary, archive, &["--pod-network", "bridge"].map(str::to_owned)).await?;
    let mut agent = replace_agent(binary, &cluster, pods).await?;
    // An agent that starts on a disk that is nearly full removes what nobody uses.
    cluster.load_image(archive).await?;
    let pid = agent.id().and_then(|pid| Pid::try_from(pid).ok()).context("the agent has ended")?;
    let bare = crate::process::memory(pid)?.rss;
    crate::process::calm().await;
    let took = create_and_wait(&cluster, Class::Own, pods).await?;
    let (rss, total) = memory(&pid, &cluster, None)?;
    eprintln!("{pods} pods in {took:.1?}");
    remove(&cluster, Class::Own, pods).await?;
    agent.kill().await.context("end the agent")?;
    cluster.stop().await?;
    Ok(Line::new(format!("{pods} pods start at once on one node, once"))
        .with("own", format!("{} pods/s", number(pods as f64 / took.as_secs_f64())))
        .with("agent's RSS before", format!("{} MiB", number(bare)))
        .with("with them", format!("{} MiB", number(rss)))
        .with("PSS of agent and supervisors", format!("{} MiB", number(total))))
}

/// The node with room for more pods than a local cluster's: the same node, by an agent of ours.
async fn replace_agent(binary: &Path, cluster: &Cluster, pods: usize) -> Result<Child> {
    cluster.chaos(&["kill", NODE]).await?;
    cluster.node_is(NODE, "Unknown").await?;
    let dir = cluster.data_dir();
    let agent = Command::new(binary)
        .args(["node", "--name", NODE, "--address", "127.0.0.1", "--pod-cidr", RANGE])
        .args(["--max-pods", &(pods + 10).to_string(), "--eviction-hard", "memory.available<100Mi"])
        .args(["--lease-renew-interval", "400ms", "--lease-duration", "2s"])
        .arg("--kubeconfig")
        .arg(dir.join("nodes").join(NODE).join("kubeconfig"))
        .arg("--image-dir")
        .arg(dir.join("images"))
        .arg("--data-dir")
        .arg(dir.join("many"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("many.log"))?)
        .kill_on_drop(true)
        .spawn()
        .context("start an agent")?;
    cluster.node_is(NODE, "True").await?;
    Ok(agent)
}
