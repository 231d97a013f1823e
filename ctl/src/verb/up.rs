//! `amoeba up`: a local cluster, each member and node its own process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
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
use crate::etcdctl::endpoints;
use crate::failure::Failure;
use crate::member;
use crate::print::{self, styled};
use crate::signals::Termination;
use crate::standalone::settings;
use crate::standalone::url::Url;
use crate::text::count;
use crate::up::balancer::{self, Probe};
use crate::up::layout::{ChildId, Layout};
use crate::up::lock::Lock;
use crate::up::pod_network::{Kind, PodNetwork};
use crate::up::ports::{self, local};
use crate::up::reporter::Reporter;
use crate::up::shape::{Requested, Shape};
use crate::up::spawn::ChildSpec;
use crate::up::supervisor::Supervisor;
use crate::up::{UpError, chaos_socket, credentials, ready};

/// When a start that isn't complete is worth a word.
const SLOW_START: Duration = Duration::from_secs(10);
/// Between two attempts to watch the nodes.
const RETRY: Duration = Duration::from_millis(100);

/// Start a local cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "A second `amoeba up` on the same directory brings the same cluster back.\n\
    Failures are found and repaired fast here: a dead node within about two seconds. `server` and `node` have \
    upstream's slower defaults, and flags for all of it.")]
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
    /// Keep the objects in this etcd cluster instead of the members' own store
    #[arg(long, value_name = "URL,…", value_delimiter = ',', help_heading = "etcd")]
    etcd_servers: Vec<Url>,
    /// Who signed the certificates of those etcd servers
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_servers")]
    etcd_cafile: Option<PathBuf>,
    /// Certificate shown to those etcd servers
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_servers")]
    etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_servers")]
    etcd_keyfile: Option<PathBuf>,
    /// Addresses of their own for pods, or the machine's network [default: their own, where root and nft allow]
    #[arg(long, value_name = "KIND")]
    pod_network: Option<Kind>,
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
    let etcd = args.etcd_flags().map_err(UpError::file("find", "a file of --etcd-cafile and its like"))?;
    let asked = Requested {
        members: args.members,
        nodes: args.nodes,
        fake_nodes: args.fake_nodes,
        port: args.port,
        etcd,
    };
    let mut shape = remembered(&layout, asked)?;
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
    let network = PodNetwork::choose(args.pod_network, shape.nodes)?;
    network.reason().into_iter().for_each(|reason| reporter.line(reason));
    let specs = specs(&layout, &shape, &members, &network);
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

impl Args {
    /// What members are told of a stock etcd cluster. Paths become absolute: they are remembered.
    fn etcd_flags(&self) -> std::io::Result<Vec<String>> {
        if self.etcd_servers.is_empty() {
            return Ok(Vec::new());
        }
        let mut flags = vec!["--etcd-servers".to_owned(), settings::join(&self.etcd_servers)];
        let files = [
            ("--etcd-cafile", &self.etcd_cafile),
            ("--etcd-certfile", &self.etcd_certfile),
            ("--etcd-keyfile", &self.etcd_keyfile),
        ];
        for (flag, file) in files.into_iter().filter_map(|(flag, file)| Some((flag, file.as_ref()?))) {
            let file = fs::canonicalize(file)?.to_string_lossy().into_owned();
            flags.extend([flag.to_owned(), file]);
        }
        Ok(flags)
    }
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

fn children(shape: &Shape) -> impl Iterator<Item = ChildId> + use<> {
    let members = (1..=shape.members).map(ChildId::Member);
    let fake = (shape.fake_nodes > 0).then_some(ChildId::Fake);
    members.chain((1..=shape.nodes).map(ChildId::Node)).chain(fake)
}

fn make_directories(layout: &Layout, shape: &Shape) -> Result<(), UpError> {
    children(shape).try_for_each(|child| {
        let dir = layout.child(child);
        fs::create_dir_all(&dir).map_err(UpError::file("make the directory", dir))
    })
}

/// Where each member serves clients of the API and of etcd, and where it talks to the other members.
struct MemberPorts {
    client: BTreeMap<u32, u16>,
    etcd: BTreeMap<u32, u16>,
    peer: BTreeMap<u32, u16>,
}

impl MemberPorts {
    /// A single member serves on the cluster's port itself: no hop between client and server.
    fn choose(shape: &Shape) -> Result<Self, UpError> {
        let members = shape.members as usize;
        let free = ports::free(2 * members)?;
        let (etcd, client) = free.split_at(members);
        let client = if members == 1 { &[shape.port] } else { client };
        let numbered = |ports: &[u16]| (1..).zip(ports.iter().copied()).collect();
        Ok(Self { client: numbered(client), etcd: numbered(etcd), peer: numbered(&shape.peer_ports) })
    }
}

/// Leaves word for `amoeba member` and `amoeba snapshot` where the store's etcd API is.
fn leave_endpoints(layout: &Layout, ports: &MemberPorts) -> Result<(), UpError> {
    let urls: Vec<Url> = ports.etcd.values().map(|port| etcd_url(*port)).collect();
    let failed = UpError::file("leave word of the store's endpoints in", layout.root());
    endpoints::leave_behind(layout.root(), &urls, &layout.pki()).map_err(failed)
}

fn etcd_url(port: u16) -> Url {
    Url { secure: true, host: Ipv4Addr::LOCALHOST.to_string(), port }
}

fn specs(layout: &Layout, shape: &Shape, ports: &MemberPorts, network: &PodNetwork) -> Vec<ChildSpec> {
    let spec = |id: ChildId| {
        let arguments = match id {
            ChildId::Member(number) => member_arguments(layout, shape, number, ports),
            ChildId::Node(number) => {
                let mut arguments = node_arguments(layout, id);
                arguments.extend(network.arguments(number));
                arguments
            }
            ChildId::Fake => fake_arguments(layout, shape),
        };
        ChildSpec { id, arguments, log: layout.log(id) }
    };
    children(shape).map(spec).collect()
}

/// Flags whose values aren't paths.
fn plain<const N: usize>(flags: [&str; N]) -> Vec<OsString> {
    flags.map(OsString::from).to_vec()
}

/// The fast profile of a member: elections, leases and evictions in about a second.
fn member_arguments(layout: &Layout, shape: &Shape, number: u32, ports: &MemberPorts) -> Vec<OsString> {
    let id = ChildId::Member(number);
    let mut arguments = plain(["server", "--child-of-supervisor", "--name", &id.to_string()]);
    arguments.extend(["--data-dir".into(), layout.child(id).into_os_string()]);
    arguments.extend(["--pki-dir".into(), layout.pki().into_os_string()]);
    arguments.extend(plain(["--listen", &local(ports.client[&number]).to_string()]));
    arguments.extend(plain(["--member-id", &number.to_string()]));
    arguments.extend(store_arguments(shape, number, ports));
    arguments.extend(plain(["--tick", "50ms"]));
    arguments.extend(plain(["--leader-elect-lease-duration", "1500ms"]));
    arguments.extend(plain(["--leader-elect-renew-deadline", "1s"]));
    arguments.extend(plain(["--leader-elect-retry-period", "300ms"]));
    arguments.extend(plain(["--node-monitor-grace-period", "1600ms"]));
    arguments.extend(plain(["--node-startup-grace-period", "10s"]));
    arguments.extend(plain(["--node-eviction-rate", "100", "--missing-node-quarantine", "2s"]));
    arguments.extend(plain(["--default-toleration-seconds", "0"]));
    arguments
}

/// Where a member's objects are: in its own store, which has peers, or in an etcd that others run.
fn store_arguments(shape: &Shape, number: u32, ports: &MemberPorts) -> Vec<OsString> {
    if !shape.etcd.is_empty() {
        return shape.etcd.iter().map(OsString::from).collect();
    }
    let mut arguments = plain(["--listen-client-urls", &etcd_url(ports.etcd[&number]).to_string()]);
    for (member, port) in &ports.peer {
        arguments.extend(plain(["--peer", &format!("{member}={}", local(*port))]));
    }
    arguments
}

/// The fast profile of a node: it says that it lives several times within the grace period.
fn node_arguments(layout: &Layout, id: ChildId) -> Vec<OsString> {
    let mut arguments = plain(["node", "--child-of-supervisor", "--name", &id.to_string()]);
    arguments.extend(["--data-dir".into(), layout.child(id).into_os_string()]);
    arguments.extend(["--image-dir".into(), layout.images().into_os_string()]);
    arguments.extend(["--kubeconfig".into(), layout.node_kubeconfig(id).into_os_string()]);
    arguments.extend(["--tls-cert-file".into(), layout.node_certificate(id).into_os_string()]);
    arguments.extend(["--tls-private-key-file".into(), layout.node_key(id).into_os_string()]);
    arguments.extend(["--client-ca-file".into(), layout.pki().join("ca.crt").into_os_string()]);
    arguments.extend(plain(["--listen", "127.0.0.1:0", "--address", "127.0.0.1"]));
    arguments.extend(plain(["--lease-renew-interval", "400ms", "--lease-duration", "2s"]));
    arguments.extend(plain(["--stop-pods-on-shutdown", "--shutdown-grace-period", "8s"]));
    arguments
}

/// Simulated nodes can't be killed one by one, so their signs of life are rare and hold long: at rest 5,000 of
/// them cost 50 small writes a second.
fn fake_arguments(layout: &Layout, shape: &Shape) -> Vec<OsString> {
    let mut arguments = plain(["node", "--child-of-supervisor", "--fake", &shape.fake_nodes.to_string()]);
    arguments.extend(["--data-dir".into(), layout.child(ChildId::Fake).into_os_string()]);
    arguments.extend(["--kubeconfig".into(), layout.node_kubeconfig(ChildId::Fake).into_os_string()]);
    arguments.extend(plain(["--lease-renew-interval", "100s", "--lease-duration", "300s"]));
    arguments
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
        Err(error) => reporter.warn(print::error::chain(&error)),
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
