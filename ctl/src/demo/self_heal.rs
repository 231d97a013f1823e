//! `amoeba demo self-heal`: what `make demo` runs.
//!
//! Three members and three nodes, a Deployment of six replicas; a node is killed with its pods, then the
//! Raft leader during writes. Everything is observed from outside, through the API, as any user could. The
//! demo succeeds only if every promise held.

use std::time::Duration;

use super::cluster::DemoCluster;
use super::heal::{self, Pods};
use super::leader;
use super::timeline::{Check, Timeline, chapter, summary};
use super::visitor::Visitor;
use crate::cluster::path;
use crate::failure::Failure;
use crate::manifest;
use crate::signals::Termination;
use crate::up::ready::builtin;

/// The same file that a user applies.
const MANIFEST: &str = include_str!("../../../manifests/web.yaml");
const MEMBERS: u32 = 3;
const NODES: u32 = 3;
/// A rollout of a handful of processes takes well below this.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(30);
/// A cluster of six processes starts well below this, even on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Runs the demo; Ctrl-C ends it early and cleans up as well.
pub async fn run() -> Result<(), Failure> {
    let mut stop = Termination::listen().map_err(|source| Failure::io("listen for signals", source))?;
    chapter(&format!("A cluster of {MEMBERS} members and {NODES} nodes, each its own process"));
    let timeline = Timeline::start();
    let demo = DemoCluster::start(MEMBERS, NODES).await?;
    timeline.line(format!("all nodes are Ready (everything is in {})", demo.directory().display()));
    let started = Check::within("cluster started", START_LIMIT, timeline.elapsed());
    let played = tokio::select! {
        played = play(&demo) => played,
        () = stop.next() => Err(Failure::NotHeld("interrupted".into())),
    };
    let clean = stopped(demo).await;
    let mut checks = vec![started];
    checks.extend(played?);
    checks.push(clean);
    if summary(&checks) { Ok(()) } else { Err(Failure::NotHeld("not every promise held".into())) }
}

async fn stopped(demo: DemoCluster) -> Check {
    chapter("The end");
    let timeline = Timeline::start();
    let in_order = demo.stop().await;
    timeline.line("nodes and members have stopped, their directory is removed");
    Check::that(
        "everything stops when asked",
        in_order,
        if in_order { "in order" } else { "had to be killed" },
    )
}

async fn play(demo: &DemoCluster) -> Result<Vec<Check>, Failure> {
    let mut pods = Pods::default();
    let (replicas, rollout) = roll_out(demo, &mut pods).await?;
    let mut checks = vec![rollout];
    chapter("Requests come through a Service from now on");
    let visitor = Visitor::start(demo, Timeline::start()).await?;
    checks.extend(heal::kill_node(demo, &mut pods, replicas).await?);
    if let Some(visitor) = visitor {
        checks.push(visitor.end().await);
    }
    checks.extend(leader::kill_leader(demo).await?);
    Ok(checks)
}

async fn roll_out(demo: &DemoCluster, pods: &mut Pods) -> Result<(usize, Check), Failure> {
    chapter("A Deployment is applied: manifests/web.yaml");
    let cluster = demo.client().await?;
    let timeline = Timeline::start();
    let mut replicas = 0;
    for document in manifest::parse("manifests/web.yaml", MANIFEST)? {
        let deployments = builtin("apps", "Deployment", "deployments", true);
        let collection = path::collection(&deployments, Some(cluster.namespace()));
        let created = cluster.create(&collection, &document.object).await?;
        replicas += usize::try_from(created["spec"]["replicas"].as_u64().unwrap_or(0)).unwrap_or(0);
        timeline
            .line(format!("deployment.apps/{} created: {replicas} replicas", api::object::name(&created)));
    }
    heal::follow_pods(&cluster, pods, timeline, |pods| pods.serving(None) >= replicas).await?;
    timeline.line(format!("{replicas} of {replicas} replicas are Running and Ready"));
    Ok((replicas, Check::within("rollout complete", ROLLOUT_LIMIT, timeline.elapsed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_manifest_is_one_deployment_of_six() {
        let documents = manifest::parse("web.yaml", MANIFEST).expect("well formed");
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].text_field("kind"), "Deployment");
        assert_eq!(documents[0].object["spec"]["replicas"], 6);
    }
}
