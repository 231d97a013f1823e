//! `bench scheduler`: how fast pods find their nodes, and workloads their end, through any API server.
//!
//! Everything goes through the API as users do it: pods are created over HTTP by several clients, and a watch
//! tells when the last one is bound, so a rate is that of the whole way with durable writes. The nodes are
//! simulated by `amoeba node --fake`. With a kubeconfig another server and its scheduler are measured. No
//! figure is asserted.

mod fill;
mod objects;
mod page;
mod restart;
mod seen;
mod session;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::process::{Child, Command};
use tokio::runtime;

use crate::cluster::{Cluster, Shape};
use crate::kubeconfig::Target;
use crate::measured::MeasuredArgs;
use crate::process::Pid;
use page::Line;
use session::Session;

/// Measure scheduler and controllers on simulated nodes and print a table
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Simulated nodes; 0 with a kubeconfig uses the nodes that are there
    #[arg(long, default_value_t = 5000)]
    nodes: usize,
    /// Pods of the plain measurement; the others take shares of it
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Jobs
    #[arg(long, default_value_t = 5000)]
    jobs: usize,
    /// Objects before the restart
    #[arg(long, default_value_t = 50_000)]
    objects: usize,
    /// Connections that create
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Seconds after which a measurement is given up
    #[arg(long, default_value_t = 600)]
    deadline: u64,
    /// Measure only these (separated by commas)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Pods that fit anywhere.
    Basic,
    /// The same, which exist already when they may be scheduled.
    Backlog,
    /// Required anti-affinity by host, over all namespaces.
    AntiAffinity,
    /// A hard spread over zones.
    Spread,
    /// Pods that must drive others away.
    Preemption,
    /// Pods that start together or not at all.
    Gangs,
    /// Jobs of one pod, until all are seen to be complete.
    Jobs,
    /// 50 Deployments of 20 replicas, until all pods run.
    Deployments,
    /// The control plane is killed and started again.
    Restart,
}

/// Runs the measurements and prints the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.clients == 0 || arguments.pods < 100 {
        bail!("--clients must be at least 1, and --pods at least 100");
    }
    // One thread: the generator must not spread over the cores that the server needs.
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let binary = arguments.measured.binary()?;
    let (Some(kubeconfig), Some(server)) = (&arguments.measured.kubeconfig, arguments.measured.server()?)
    else {
        return measure_own(arguments, &binary).await;
    };
    let _nodes = simulate(arguments, &binary, kubeconfig)?;
    let session = session(arguments, server.target, server.pids);
    let nodes = session.nodes_ready(arguments.nodes).await?;
    let lines = measure_parts(arguments, &session, None, nodes).await?;
    print(arguments, nodes, &lines)
}

async fn measure_own(arguments: &Arguments, binary: &Path) -> Result<()> {
    if arguments.nodes == 0 {
        bail!("--nodes 0 needs --kubeconfig: a cluster of our own has no other nodes");
    }
    let shape = Shape { members: 1, nodes: 0, fake_nodes: arguments.nodes };
    eprintln!("starting {} simulated nodes …", arguments.nodes);
    let cluster = Cluster::start(binary, shape).await?;
    cluster.connect().await?;
    let session = session(arguments, cluster.target().clone(), cluster.servers());
    let nodes = session.nodes_ready(arguments.nodes).await?;
    let lines = measure_parts(arguments, &session, Some(&cluster), nodes).await;
    cluster.stop().await?;
    print(arguments, nodes, &lines?)
}

fn session(arguments: &Arguments, target: Target, pids: Vec<Pid>) -> Session {
    let deadline = Duration::from_secs(arguments.deadline);
    Session { target, pids, clients: arguments.clients, deadline }
}

fn print(arguments: &Arguments, nodes: usize, lines: &[Line]) -> Result<()> {
    println!("{}", page::page(&arguments.measured.name, nodes, lines, arguments.measured.output.as_deref())?);
    Ok(())
}

/// The simulated nodes of somebody else's server; they end when this is dropped.
fn simulate(arguments: &Arguments, binary: &Path, kubeconfig: &Path) -> Result<Option<Child>> {
    if arguments.nodes == 0 {
        return Ok(None);
    }
    let mut command = Command::new(binary);
    command.args(["node", "--fake", &arguments.nodes.to_string(), "--kubeconfig"]).arg(kubeconfig);
    command.args(["--lease-renew-interval", "20s"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.kill_on_drop(true).spawn().context("start the simulated nodes").map(Some)
}

async fn measure_parts(
    arguments: &Arguments,
    session: &Session,
    cluster: Option<&Cluster>,
    nodes: usize,
) -> Result<Vec<Line>> {
    let parts = if arguments.only.is_empty() { Part::value_variants() } else { &arguments.only };
    let mut lines = Vec::new();
    for part in parts {
        eprintln!("measuring {part:?} …");
        let line = measure_part(arguments, session, cluster, *part, nodes).await;
        // One that can't be measured (a server without gangs, say) is told, and the others go on.
        let line =
            line.unwrap_or_else(|error| Line::new(format!("{part:?}")).with("failed:", format!("{error:#}")));
        eprintln!("{line}");
        lines.push(line);
    }
    Ok(lines)
}

async fn measure_part(
    arguments: &Arguments,
    session: &Session,
    cluster: Option<&Cluster>,
    part: Part,
    nodes: usize,
) -> Result<Line> {
    let pods = arguments.pods;
    match part {
        Part::Basic => fill::basic(session, pods).await,
        Part::Backlog => fill::backlog(session, pods).await,
        Part::AntiAffinity => fill::anti_affinity(session, (pods / 2).min(nodes * 4 / 5)).await,
        Part::Spread => fill::spread(session, pods / 2).await,
        Part::Preemption => fill::preemption(session, nodes, pods / 10).await,
        Part::Gangs => fill::gangs(session, pods / 5).await,
        Part::Jobs => fill::jobs(session, arguments.jobs).await,
        Part::Deployments => fill::deployments(session).await,
        Part::Restart => {
            let cluster = cluster.context("only a control plane of our own can be killed")?;
            restart::run(session, cluster, arguments.objects).await
        }
    }
}
