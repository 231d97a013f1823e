//! `bench api`: one load generator for any Kubernetes API server.
//!
//! With a kubeconfig it measures that server, otherwise an `amoeba up` of its own. What it creates lies in a
//! namespace of its own, which it deletes at the end. No figure is asserted.

mod deletions;
mod lists;
mod load;
mod memory;
pub mod page;
mod watchers;
pub mod wire;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;
use tokio::runtime;

use crate::cluster::{Cluster, Shape};
use crate::measured::{MeasuredArgs, Server};
use page::Line;
use wire::Wire;

/// Where everything is created.
const NAMESPACE: &str = "amoeba-bench";

/// Measure an API server and print a table
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Seconds of each load
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Pods in the lists
    #[arg(long, default_value_t = 10_000)]
    listed_pods: usize,
    /// Pods for the memory
    #[arg(long, default_value_t = 100_000)]
    stored_pods: usize,
    /// ConfigMaps in the collection that is deleted
    #[arg(long, default_value_t = 100_000)]
    deleted: usize,
    /// Changes that each watcher is to see
    #[arg(long, default_value_t = 1000)]
    events: usize,
    /// Measure only these (separated by commas)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Creates,
    Gets,
    Updates,
    Lists,
    Watches,
    Memory,
    Deletions,
}

/// Runs the measurements and prints the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.seconds.is_nan() || arguments.seconds <= 0.0 {
        bail!("--seconds must be more than 0");
    }
    // One thread: the generator must not spread over the cores that the server needs.
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    if let Some(server) = arguments.measured.server()? {
        return measure_server(arguments, &server).await;
    }
    let (cluster, _) =
        Cluster::ready(&arguments.measured.binary()?, Shape { members: 1, nodes: 1, fake_nodes: 0 }).await?;
    let server = Server { target: cluster.target().clone(), pids: cluster.servers() };
    let measured = measure_server(arguments, &server).await;
    cluster.stop().await?;
    measured
}

async fn measure_server(arguments: &Arguments, server: &Server) -> Result<()> {
    prepare(&mut Wire::open(&server.target).await?).await?;
    let parts = if arguments.only.is_empty() { Part::value_variants() } else { &arguments.only };
    let mut lines = Vec::new();
    for part in parts {
        eprintln!("measuring {part:?} …");
        for line in
            measure_part(arguments, server, *part).await.with_context(|| format!("measure {part:?}"))?
        {
            eprintln!("{line}");
            lines.push(line);
        }
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    // A server may have closed the first connection, on which nothing was asked for minutes.
    let mut control = Wire::open(&server.target).await?;
    control.send("DELETE", &path, b"{\"propagationPolicy\":\"Background\"}").await?;
    let page = page::page(&arguments.measured.name, &lines, arguments.measured.output.as_deref())?;
    println!("{page}");
    Ok(())
}

async fn measure_part(arguments: &Arguments, server: &Server, part: Part) -> Result<Vec<Line>> {
    match part {
        Part::Creates => load::run(server, load::Load::Creates, arguments.seconds).await,
        Part::Gets => load::run(server, load::Load::Gets, arguments.seconds).await,
        Part::Updates => load::run(server, load::Load::Updates, arguments.seconds).await,
        Part::Lists => lists::run(server, arguments.listed_pods).await,
        Part::Watches => watchers::run(server, arguments.events).await,
        Part::Memory => memory::run(server, arguments.stored_pods).await,
        Part::Deletions => deletions::run(server, arguments.deleted).await,
    }
}

/// A fresh namespace; the ServiceAccount that pods need may come a moment later.
async fn prepare(control: &mut Wire) -> Result<()> {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string();
    let (status, answer) = control.send("POST", "/api/v1/namespaces", namespace.as_bytes()).await?;
    if status != 201 {
        bail!(
            "the namespace {NAMESPACE} can't be made (delete it first if it is there): {status}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
    while control.send("GET", &account, &[]).await?.0 != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The path of a collection of the core group in our namespace.
fn collection(plural: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{plural}")
}
