//! `bench nodes`: how fast a node starts containers itself, and by way of containerd and runc, from the same
//! image, in the same cluster, measured in turns; how many pods it carries; how fast Services are and follow.
//!
//! A start is counted as a user sees it: from the request that creates a pod bound to the node until a watch says
//! that its container runs. So both sides carry the same API server, store and agent; what the runtimes alone take of
//! it is what the agent counts. No figure is asserted.

mod many;
mod operations;
mod page;
mod pods;
mod services;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use e2e::containerd::Containerd;
use e2e::image;
use http::Method;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::api::page::Line;
use crate::cluster::{Cluster, Shape};
use crate::measured;
use crate::process::{self, Pid};
use crate::statistics::{Samples, number};
use pods::{Class, create_and_wait, remove};

/// Measure how a node starts containers, itself and by way of containerd, and its Services, and print a table
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The binary that is measured
    #[arg(long, value_name = "FILE", default_value = "bin/amoeba")]
    amoeba: PathBuf,
    /// Pairs of single starts
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Pairs of rounds in which many pods start at once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Pods of a round
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=110))]
    pods: u16,
    /// Pods of one node in the end, in its own runtime
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=900))]
    many: u16,
    /// Services of the cluster in the end
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(20..=4000))]
    services: u16,
    /// Also write the page into this directory
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// The node under test.
const NODE: &str = "n1";
/// One member and one node, which is measured.
const SHAPE: Shape = Shape { members: 1, nodes: 1, fake_nodes: 0 };

/// Runs the measurements and prints the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    // A machine of its own: bridges, addresses and rules are nobody else's.
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace: are you root?")?;
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.context("run ip (Debian's iproute2)")?.success() {
        bail!("the loopback interface can't be brought up");
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let binary = measured::binary(&arguments.amoeba)?;
    let load = process::load();
    let dir = tempfile::tempdir()?;
    let archive = image::busybox(dir.path(), "box:1", "exec sleep 3600");
    let mut lines = beside_containerd(&binary, &archive, arguments).await?;
    // The rest is worth its page without this line.
    match many::many(&binary, &archive, arguments.many.into()).await {
        Ok(line) => lines.push(line),
        Err(error) => eprintln!("{} pods on one node: {error:#}", arguments.many),
    }
    println!("{}", page::page(&lines, load, arguments.output.as_deref())?);
    Ok(())
}

async fn beside_containerd(binary: &Path, archive: &Path, arguments: &Arguments) -> Result<Vec<Line>> {
    let containerd = Containerd::start().context("containerd can't be started")?;
    containerd.import(archive);
    let endpoint = containerd.endpoint();
    let flags = ["--pod-network", "bridge", "--container-runtime-endpoint", &endpoint].map(str::to_owned);
    let cluster = prepared(binary, archive, &flags).await?;
    let mut lines = starts(&cluster, arguments.pairs).await?.to_vec();
    lines.push(rounds(&cluster, &containerd, arguments).await?);
    lines.extend(services::services(&cluster, arguments.services.into()).await?);
    cluster.stop().await?;
    Ok(lines)
}

/// A cluster that has the image, and the class of its own runtime.
async fn prepared(binary: &Path, archive: &Path, flags: &[String]) -> Result<Cluster> {
    let (cluster, _) = Cluster::ready_with(binary, SHAPE, flags).await?;
    cluster.load_image(archive).await?;
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
        "metadata": {"name": Class::OWN_NAME}, "handler": "native"});
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    cluster.connect().await?.json(Method::POST, classes, Some(&class)).await?;
    Ok(cluster)
}

/// Both sides of one figure, and how the second stands to the first in each pair.
#[derive(Default)]
struct Pairs {
    own: Samples,
    cri: Samples,
    ratios: Samples,
}

impl Pairs {
    fn push(&mut self, own: f64, cri: f64, ratio: f64) {
        self.own.push(own);
        self.cri.push(cri);
        self.ratios.push(ratio);
    }
}

fn median(samples: &Samples, unit: &str) -> String {
    samples.summary().map_or("none".to_owned(), |summary| format!("{summary} {unit}"))
}

fn percentiles(samples: &Samples, unit: &str) -> String {
    let at = |share| samples.percentile(share).map_or("none".to_owned(), number);
    format!("p50 {} {unit}, p99 {} {unit}", at(0.5), at(0.99))
}

/// One pod at a time, the sides in turns: the whole of it, and the runtime's part.
async fn starts(cluster: &Cluster, pairs: u16) -> Result<[Line; 2]> {
    let (mut whole, mut part) = (Pairs::default(), Pairs::default());
    let mut connection = cluster.connect().await?;
    for pair in 0..=pairs {
        let mut took = [(0.0, 0.0); 2];
        for class in in_turns(pair) {
            let before = operations::starting(&mut connection).await?;
            let whole = create_and_wait(cluster, class, 1).await?.as_secs_f64() * 1e3;
            took[class as usize] = (whole, operations::starting(&mut connection).await? - before);
            remove(cluster, class, 1).await?;
        }
        // The first pair warms up.
        if pair > 0 {
            let [own, cri] = took;
            whole.push(own.0, cri.0, cri.0 / own.0);
            part.push(own.1, cri.1, cri.1 / own.1);
        }
    }
    let line = |what: &str, figures: &Pairs| {
        Line::new(format!("{what}, {pairs} times"))
            .with("own:", percentiles(&figures.own, "ms"))
            .with("containerd:", percentiles(&figures.cri, "ms"))
            .with("containerd ÷ own in each pair", median(&figures.ratios, ""))
    };
    Ok([
        line("one pod starts", &whole),
        line("what the runtime takes of it: network, namespaces, cgroup, root, process", &part),
    ])
}

/// Many pods at once, and what the agent and all that holds the containers take while they run.
async fn rounds(cluster: &Cluster, containerd: &Containerd, arguments: &Arguments) -> Result<Line> {
    let (mut rates, mut agent, mut total) = (Pairs::default(), Pairs::default(), Pairs::default());
    for round in 0..arguments.rounds {
        let mut found = [(0.0, 0.0, 0.0); 2];
        for class in in_turns(round) {
            process::calm().await;
            let took = create_and_wait(cluster, class, arguments.pods.into()).await?;
            let rate = f64::from(arguments.pods) / took.as_secs_f64();
            let (agent, total) = memory(&agent_of(cluster)?, cluster, Some(containerd))?;
            eprintln!("{class:?}: {} pods in {took:.1?}", arguments.pods);
            found[class as usize] = (rate, agent, total);
            remove(cluster, class, arguments.pods.into()).await?;
        }
        let [own, cri] = found;
        rates.push(own.0, cri.0, own.0 / cri.0);
        agent.push(own.1, cri.1, own.1 / cri.1);
        total.push(own.2, cri.2, own.2 / cri.2);
    }
    Ok(Line::new(format!("{} pods start at once, {} times", arguments.pods, arguments.rounds))
        .with("own", median(&rates.own, "pods/s"))
        .with("containerd", median(&rates.cri, "pods/s"))
        .with("own ÷ containerd", median(&rates.ratios, ""))
        .with("agent's RSS with them: own", median(&agent.own, "MiB"))
        .with("containerd", median(&agent.cri, "MiB"))
        .with("PSS of agent, supervisors, containerd and its shims: own", median(&total.own, "MiB"))
        .with("containerd", median(&total.cri, "MiB")))
}

/// Who goes first changes from pair to pair.
fn in_turns(pair: u16) -> [Class; 2] {
    if pair.is_multiple_of(2) { [Class::Own, Class::Cri] } else { [Class::Cri, Class::Own] }
}

fn agent_of(cluster: &Cluster) -> Result<Pid> {
    cluster.agents().first().copied().context("the node's agent isn't there")
}

/// RSS of the node's agent, and PSS of everything that holds containers, in MiB.
fn memory(agent: &Pid, cluster: &Cluster, containerd: Option<&Containerd>) -> Result<(f64, f64)> {
    let of_containerd =
        |pid: &Pid| process::arguments(*pid).first().is_some_and(|name| name.contains("containerd"));
    let directory = containerd.map(|containerd| containerd.path().to_string_lossy().into_owned());
    let holders = directory.iter().flat_map(|directory| process::with_argument(directory));
    let all: BTreeSet<Pid> =
        holders.filter(of_containerd).chain(cluster.supervisors()).chain([*agent]).collect();
    // One that has ended meanwhile takes nothing.
    let total = all.iter().filter_map(|pid| process::memory(*pid).ok()).map(|memory| memory.pss).sum();
    Ok((process::memory(*agent)?.rss, total))
}
