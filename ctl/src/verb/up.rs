//! `amoeba up`: a local cluster, each member and node its own process.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::node::FAKE_PREFIX;
use super::version::VERSION;
use crate::app::App;
use crate::cluster::connect;
use crate::control_plane::stock_etcd::StockEtcdArgs;
use crate::etcdctl::endpoints;
use crate::failure::Failure;
use crate::member::{self, MemberError};
use crate::print::{self, styled};
use crate::scheduler_configuration;
use crate::signals::Termination;
use crate::standalone::url::Url;
use crate::text::count;
use crate::up::balancer::{self, Probe};
use crate::up::kept::Kept;
use crate::up::layout::{ChildId, Layout};
use crate::up::lock::Lock;
use crate::up::pod_network::{Kind, PodNetwork};
use crate::up::ports::{self, local};
use crate::up::profile::{self, MemberPorts};
use crate::up::reporter::Reporter;
use crate::up::shape::{Requested, Shape};
use crate::up::supervisor::Supervisor;
use crate::up::{UpError, chaos_socket, credentials, ready};

/// When a start that isn't complete is worth a word.
const SLOW_START: Duration = Duration::from_secs(10);
/// Between two attempts to watch the nodes.
const RETRY: Duration = Duration::from_millis(100);

/// Start a local cluster
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A second `amoeba up` on the same directory brings the same cluster back, with the flags that it had.\n\
    Failures are found and repaired fast here: a dead node within about two seconds. `server` and `node` have \
    upstream's slower defaults, and flags for all of it."
)]
pub struct Args {
    /// Members of the control plane; 3 survive the loss of one [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = PossibleValuesParser::new(["1", "3", "5"])
        .map(|text| text.parse::<u32>().expect("one of the possible values")))]
    members: Option<u32>,
    /// Nodes [default: 3; with --fake-nodes none]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=100))]
    nodes: Option<u32>,
    /// Simulated nodes in one process, called fake-1, fake-2, …: pods are said to run there, and nothing does
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=20_000))]
    fake_nodes: Option<u32>,
    /// Port of the API on 127.0.0.1 [default: 6443]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    stock_etcd: StockEtcdArgs,
    /// Addresses of their own for pods, or the machine's network [default: their own, where root and nft allow]
    #[arg(long, value_name = "KIND")]
    pod_network: Option<Kind>,
    /// Socket of a container runtime, such as containerd, that gets all pods but those whose RuntimeClass has the
    /// handler `native`; it makes their network. `none`: no such runtime any more
    #[arg(long, value_name = "unix://PATH", value_parser = parse_endpoint)]
    container_runtime_endpoint: Option<Kept>,
    /// A KubeSchedulerConfiguration for the scheduler: several profiles, rules with other weights. `none`: upstream's
    /// rules again
    #[arg(long, value_name = "FILE", value_parser = Kept::file)]
    scheduler_config: Option<Kept>,
    /// Started by `amoeba demo`: ends with it
    #[arg(long, hide = true)]
    child_of_supervisor: bool,
}

/// Prepares the directory, starts the children, and stays until it is asked to stop.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    if args.child_of_supervisor {
        member::end_with_parent()?;
    }
    let reporter = Reporter::new();
    let outcome = up(app, args, &reporter).await;
    reporter.settle();
    outcome
}

async fn up(app: &App, args: Args, reporter: &Reporter) -> Result<(), Failure> {
    let stop = Termination::listen().map_err(|source| Failure::io("listen for signals", source))?;
    let layout = directory(app.data_dir()?)?;
    let _lock = Lock::take(&layout.lock()).map_err(UpError::from)?;
    let etcd =
        args.stock_etcd.flags().map_err(UpError::file("find", "a file of --etcd-cafile and its like"))?;
    let asked = Requested {
        members: args.members,
        nodes: args.nodes,
        fake_nodes: args.fake_nodes,
        port: args.port,
        etcd,
        scheduler_config: args.scheduler_config.clone(),
        pod_network: args.pod_network,
        container_runtime: args.container_runtime_endpoint,
    };
    let mut shape = remembered(&layout, asked)?;
    check_scheduler_config(&shape, args.scheduler_config.is_some())?;
    if shape.peer_ports.len() != shape.members as usize {
        shape.peer_ports = ports::lasting(shape.members as usize)?;
    }
    ports::ensure_free(shape.port)?;
    make_directories(&layout, &shape)?;
    credentials::prepare(&layout, &shape)?;
    fs::write(layout.shape(), shape.to_text()).map_err(UpError::file("write", layout.shape()))?;
    let socket =
        chaos_socket::listen(&layout.socket()).map_err(UpError::file("listen on", layout.socket()))?;
    let members = MemberPorts::choose(&shape)?;
    if shape.etcd.is_empty() {
        leave_endpoints(&layout, &members)?;
    }
    let balancer = balance(app, &layout, &shape, &members).await?;
    reporter.doing(format!("starting {}", count(shape.members as usize, "member")));
    let network = PodNetwork::choose(shape.pod_network, shape.nodes)?;
    network.reason().into_iter().for_each(|reason| reporter.line(reason));
    let specs = profile::specs(&layout, &shape, &members, &network);
    let supervisor = Supervisor::new(layout.clone(), specs, reporter);
    let announce = announce(app, &layout, &shape, reporter, supervisor.serving());
    let ended = tokio::select! {
        ended = supervisor.run(socket, stop) => ended,
        () = announce => unreachable!("the announcement never ends"),
        () = balancer => unreachable!("the balancer never ends"),
    };
    reporter.settle();
    ended?;
    reporter.line(format!("stopped; `amoeba up` brings the cluster in {} back", layout.root().display()));
    Ok(())
}

/// The directory, absolute: children are given paths, and shims are found by them.
fn directory(dir: PathBuf) -> Result<Layout, UpError> {
    fs::create_dir_all(&dir).map_err(UpError::file("make the directory", &dir))?;
    let dir = fs::canonicalize(&dir).map_err(UpError::file("find", &dir))?;
    Ok(Layout::new(dir))
}

fn remembered(layout: &Layout, asked: Requested) -> Result<Shape, UpError> {
    let path = layout.shape();
    let existing = match fs::read_to_string(&path) {
        Ok(text) => Some(Shape::parse(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(UpError::file("read", path)(error)),
    };
    Ok(Shape::decide(existing, asked)?)
}

/// A wrong file is told here rather than by each member. Who named it now needn't be told who did.
fn check_scheduler_config(shape: &Shape, named_now: bool) -> Result<(), Failure> {
    let Some(path) = &shape.scheduler_config else { return Ok(()) };
    match scheduler_configuration::read(Path::new(path)) {
        Ok(_) => Ok(()),
        Err(error) if named_now => Err(MemberError::from(error).into()),
        Err(source) => Err(UpError::KeptConfiguration { path: path.clone(), source }.into()),
    }
}

/// The socket of a runtime, or `none`.
fn parse_endpoint(text: &str) -> Result<Kept, String> {
    Kept::parse(text, super::node::parse_endpoint)
}

fn make_directories(layout: &Layout, shape: &Shape) -> Result<(), UpError> {
    profile::children(shape).try_for_each(|child| {
        let dir = layout.child(child);
        fs::create_dir_all(&dir).map_err(UpError::file("make the directory", dir))
    })
}

/// Leaves word for `amoeba member` and `amoeba snapshot` where the store's etcd API is.
fn leave_endpoints(layout: &Layout, ports: &MemberPorts) -> Result<(), UpError> {
    let urls: Vec<Url> = ports.etcd.values().map(|port| profile::etcd_url(*port)).collect();
    let failed = UpError::file("leave word of the store's endpoints in", layout.root());
    endpoints::leave_behind(layout.root(), &urls, &layout.pki()).map_err(failed)
}

/// The balancer of a cluster with several members, as a future that never ends.
async fn balance(
    app: &App,
    layout: &Layout,
    shape: &Shape,
    ports: &MemberPorts,
) -> Result<futures::future::BoxFuture<'static, ()>, Failure> {
    if shape.members == 1 {
        return Ok(std::future::pending().boxed());
    }
    let listener =
        TcpListener::bind(local(shape.port)).await.map_err(|error| ports::bind_error(shape.port, error))?;
    let addresses: BTreeMap<ChildId, SocketAddr> =
        ports.client.iter().map(|(number, port)| (ChildId::Member(*number), local(*port))).collect();
    let probe = probe(app, layout, &addresses).await?;
    Ok(balancer::run(listener, addresses, probe).boxed())
}

/// Asks a member's `/readyz` with our own credentials over a connection that stays open.
async fn probe(
    app: &App,
    layout: &Layout,
    addresses: &BTreeMap<ChildId, SocketAddr>,
) -> Result<Probe, Failure> {
    let mut clients = BTreeMap::new();
    for (id, address) in addresses {
        let member = local_app(app, layout, Some(format!("https://{address}")));
        clients.insert(*id, Arc::new(connect::connect(&member).await?));
    }
    Ok(Arc::new(move |id| {
        let client = clients[&id].clone();
        async move { client.answers("/readyz").await }.boxed()
    }))
}

/// The flags by which this process reaches its own cluster.
fn local_app(app: &App, layout: &Layout, server: Option<String>) -> App {
    let mut local = app.clone();
    local.target = Default::default();
    local.target.kubeconfig = Some(layout.admin_kubeconfig());
    local.target.server = server;
    local
}

/// Says when all nodes are Ready, and what to do next. Then it has nothing more to say.
async fn announce(
    app: &App,
    layout: &Layout,
    shape: &Shape,
    reporter: &Reporter,
    serving: watch::Receiver<bool>,
) {
    let mut becoming_ready = pin!(all_ready(app, layout, shape, reporter, serving));
    let outcome = tokio::select! {
        outcome = &mut becoming_ready => outcome,
        () = tokio::time::sleep(SLOW_START) => {
            let logs = layout.root().join("{members,nodes}/*/*.log");
            reporter.warn(format!("this takes long; the logs {} may say why", logs.display()));
            becoming_ready.await
        }
    };
    reporter.settle();
    match outcome {
        Ok(()) => welcome(layout, shape, reporter),
        Err(error) => reporter.warn(api::error::chain(&error)),
    }
    std::future::pending().await
}

async fn all_ready(
    app: &App,
    layout: &Layout,
    shape: &Shape,
    reporter: &Reporter,
    mut serving: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let start = Timestamp::now() - Duration::from_millis(1);
    if serving.wait_for(|serving| *serving).await.is_err() {
        // The supervisor is gone, and this process with it.
        return Ok(());
    }
    reporter.doing(format!("the API serves; waiting for {}", count(all_nodes(shape), "node")));
    let nodes = node_names(shape);
    loop {
        match wait_for_nodes(app, layout, &nodes, start, reporter).await {
            // A member was killed while we waited. Refusals come at once: give it a moment to come back.
            Err(Failure::Request(error)) => {
                tracing::debug!(%error, "waiting for the nodes was interrupted");
                tokio::time::sleep(RETRY).await;
            }
            other => return other,
        }
    }
}

fn all_nodes(shape: &Shape) -> usize {
    (shape.nodes + shape.fake_nodes) as usize
}

fn node_names(shape: &Shape) -> std::collections::BTreeSet<String> {
    let real = (1..=shape.nodes).map(|number| ChildId::Node(number).to_string());
    real.chain((1..=shape.fake_nodes).map(|number| format!("{FAKE_PREFIX}-{number}"))).collect()
}

async fn wait_for_nodes(
    app: &App,
    layout: &Layout,
    names: &std::collections::BTreeSet<String>,
    start: Timestamp,
    reporter: &Reporter,
) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let cluster = connect::connect(&local_app(app, layout, None)).await?;
    let total = names.len();
    let progress = |ready: usize| reporter.doing(format!("{ready} of {total} nodes are Ready"));
    Ok(ready::nodes(&cluster, names, start, progress).await?)
}

fn welcome(layout: &Layout, shape: &Shape, reporter: &Reporter) {
    let members = count(shape.members as usize, "member");
    let nodes = match (shape.nodes, shape.fake_nodes) {
        (nodes, 0) => count(nodes as usize, "node"),
        (0, fake) => count(fake as usize, "simulated node"),
        (nodes, fake) => {
            format!("{} and {}", count(nodes as usize, "node"), count(fake as usize, "simulated node"))
        }
    };
    reporter.line(format!(
        "{} {members} and {nodes} on https://127.0.0.1:{} after {} (amoeba {VERSION})",
        styled(print::GOOD, "Ready:"),
        shape.port,
        reporter.elapsed()
    ));
    let kubeconfig = layout.admin_kubeconfig();
    reporter.line(format!("  export KUBECONFIG={}", kubeconfig.display()));
    reporter.line("  amoeba get nodes        amoeba apply -f manifests/web.yaml        amoeba get pods -w");
    if shape.nodes > 1 {
        reporter.line(
            "  amoeba chaos kill n1    amoeba events -A -w                      Ctrl-C stops everything",
        );
    }
}
