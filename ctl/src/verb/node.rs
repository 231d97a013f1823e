//! `amoeba node`: the node agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use client::config::Options;
use client::shutdown;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::wait::await_condition;
use kubelet::hollow::{self, HollowConfig, HollowError};
use kubelet::pod::sysctls::Allowed;
use kubelet::{
    CapacityOverrides, Heartbeat, KubeletConfig, PodNetworking, RuntimeKind, ServingCertificate, ServingTls,
};
use network::ClusterNetwork;
use network::pod::addresses::{NotARange, Range};

use super::eviction::EvictionArgs;
use crate::app::App;
use crate::cluster::kubeconfig;
use crate::failure::Failure;
use crate::member::{self, MemberError};
use crate::node_membership::{JoinArgs, Membership};
use crate::signals::Termination;
use crate::text::{parse_duration, parse_socket_address};
use crate::up::spawn::Report;

/// Run the node agent
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the node [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    #[command(flatten)]
    join: JoinArgs,
    /// The node's address, under which others reach it [default: the one that leads to the cluster that it joins,
    /// else 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Where the agent's own API is served; port 0 picks one [default: port 10250 of the node's address]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_socket_address)]
    listen: Option<SocketAddr>,
    /// Where images are kept; nodes of one machine may share it [default: `images` in the data directory]
    #[arg(long, value_name = "DIR")]
    image_dir: Option<PathBuf>,
    /// Socket of a container runtime, such as containerd, that gets all pods but those whose RuntimeClass has the
    /// handler `native`; without it all pods are the agent's own
    #[arg(long, value_name = "unix://PATH", value_parser = parse_endpoint, conflicts_with = "fake")]
    container_runtime_endpoint: Option<PathBuf>,
    /// Authorities of that runtime's streaming server, if it speaks HTTPS [default: those of the machine]
    #[arg(long, value_name = "FILE", requires = "container_runtime_endpoint")]
    container_runtime_streaming_ca: Option<PathBuf>,
    /// A folder of manifests of pods that run whatever the API server says, such as its own; the API shows a mirror of
    /// each
    #[arg(long, value_name = "DIR", conflicts_with = "fake")]
    pod_manifest_path: Option<PathBuf>,
    /// How long that runtime may be silent, as while it is upgraded, before the node isn't ready
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    container_runtime_patience: Duration,
    /// Certificate of the agent's API; without it, and without joining, the API isn't served and logs can't be read
    #[arg(long, value_name = "FILE", requires_all = ["tls_private_key_file", "client_ca_file"])]
    tls_cert_file: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: Option<PathBuf>,
    /// Who may call the agent's API: clients of this authority
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// A label of the node
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Between two signs of life
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    lease_renew_interval: Duration,
    /// How long a sign of life holds
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = parse_duration)]
    lease_duration: Duration,
    /// CPU that the node claims to have, instead of what is measured
    #[arg(long, value_name = "QUANTITY")]
    cpu: Option<String>,
    /// Memory that the node claims to have, instead of what is measured
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<String>,
    /// How many pods fit
    #[arg(long, value_name = "NUMBER")]
    max_pods: Option<u32>,
    /// Addresses for this node's pods, such as 10.244.1.0/24, or `auto` for what the control plane gives this node
    /// (`amoeba server --cluster-cidr`); without it they have the host's network
    #[arg(long, value_name = "RANGE|auto", help_heading = "Network", conflicts_with = "fake")]
    pod_cidr: Option<PodCidr>,
    /// Addresses of all pods of the cluster
    #[arg(long, value_name = "RANGE", help_heading = "Network", default_value = "10.244.0.0/16")]
    cluster_cidr: Range,
    /// Addresses of Services, as the API server gives them out
    #[arg(long, value_name = "RANGE", help_heading = "Network", default_value = "10.96.0.0/12")]
    service_cidr: Range,
    /// The address of the cluster's DNS
    #[arg(long, value_name = "ADDRESS", help_heading = "Network", default_value = "10.96.0.10")]
    cluster_dns: Ipv4Addr,
    /// The cluster's domain
    #[arg(long, value_name = "DOMAIN", help_heading = "Network", default_value = "cluster.local")]
    cluster_domain: String,
    /// End the pods when the agent is asked to end; otherwise they go on and are adopted by the next start
    #[arg(long)]
    stop_pods_on_shutdown: bool,
    /// The longest that ending the pods may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    shutdown_grace_period: Duration,
    /// When the agent is asked to end, the node goes down: pods end by priority and are reported as failed, and the
    /// node as not ready
    #[arg(long, conflicts_with = "stop_pods_on_shutdown")]
    graceful_node_shutdown: bool,
    /// The part of --shutdown-grace-period that is kept for critical pods, which end last
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    shutdown_grace_period_critical_pods: Duration,
    /// Kernel settings that pods may have beside those that concern nobody else, such as net.core.somaxconn or
    /// kernel.msg*; only such as are the pod's own
    #[arg(long, value_name = "SYSCTL,…", value_delimiter = ',', conflicts_with = "fake")]
    allowed_unsafe_sysctls: Vec<String>,
    /// The most processes and threads that a pod from an image may have; without it as many as the machine
    #[arg(long, value_name = "NUMBER", conflicts_with = "fake", value_parser = clap::value_parser!(u64).range(1..))]
    pod_max_pids: Option<u64>,
    #[command(flatten)]
    eviction: EvictionArgs,
    /// Simulate so many nodes in this process, called NAME-1, NAME-2, …: pods are said to run, and nothing does
    #[arg(long, value_name = "NUMBER", help_heading = "Simulated nodes", conflicts_with = "tls_cert_file",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    fake: Option<u32>,
    /// How long simulated pods run that aren't restarted for ever, unless their annotation amoeba.dev/run-time
    /// says otherwise
    #[arg(long, value_name = "TIME", help_heading = "Simulated nodes", default_value = "1s",
        value_parser = parse_duration, requires = "fake")]
    fake_run_time: Duration,
    /// Zones over which the simulated nodes are dealt; 0 for none
    #[arg(
        long,
        value_name = "NUMBER",
        help_heading = "Simulated nodes",
        default_value_t = 3,
        requires = "fake"
    )]
    fake_zones: u32,
    /// What is logged, as in RUST_LOG
    #[arg(long, value_name = "FILTER", default_value = member::DEFAULT_LOG, hide_default_value = true)]
    log: String,
    /// Started by `amoeba up`: ends with it
    #[arg(long, hide = true)]
    child_of_supervisor: bool,
}

/// A range of addresses, or none for `auto`.
#[derive(Clone, Debug)]
struct PodCidr(Option<Range>);

impl FromStr for PodCidr {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        if text == "auto" { Ok(Self(None)) } else { text.parse().map(|range| Self(Some(range))) }
    }
}

/// Where a node's API is served unless somebody says otherwise.
const KUBELET_PORT: u16 = 10250;

/// What simulated nodes are called if nobody says otherwise.
pub const FAKE_PREFIX: &str = "fake";

impl Args {
    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            renew_interval: self.lease_renew_interval,
            lease_duration: self.lease_duration,
            ..Heartbeat::default()
        }
    }

    fn network(&self) -> Option<PodNetworking> {
        let cluster = ClusterNetwork {
            pods: self.cluster_cidr,
            services: self.service_cidr,
            dns: self.cluster_dns,
            domain: self.cluster_domain.clone(),
        };
        self.pod_cidr.as_ref().map(|cidr| PodNetworking { range: cidr.0, cluster })
    }

    fn capacity(&self) -> CapacityOverrides {
        CapacityOverrides {
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            pods: self.max_pods,
            ..CapacityOverrides::default()
        }
    }
}

/// What isn't a name the API server would never take: the agent would try for ever.
fn parse_name(text: &str) -> Result<String, String> {
    api::name::dns1123_subdomain(text)?;
    Ok(text.to_owned())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("\"{text}\" is not of the form KEY=VALUE"))?;
    api::name::qualified_name(key)?;
    api::name::label_value(value)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A socket of this machine, with or without upstream's scheme.
pub fn parse_endpoint(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err(format!("\"{text}\" is not a socket: write unix:// and its absolute path")),
    }
}

/// Runs the agent until a signal.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    if args.child_of_supervisor {
        member::end_with_parent()?;
    }
    member::log_to_stderr(&args.log);
    let mut stop = Termination::listen().map_err(|source| Failure::io("listen for signals", source))?;
    if let Some(count) = args.fake {
        let client = client(app, "kubelet").await?;
        return Ok(simulate(client, hollow_config(args, count), stop).await.map_err(MemberError::Hollow)?);
    }
    let name = args.name.clone().map_or_else(host_name, Ok)?;
    let (client, membership) = match args.join.membership(app, &name, "kubelet").await? {
        Some((client, membership)) => (client, Some(membership)),
        None => (cluster_of(app).await?, None),
    };
    let config = config(app, args, name, membership)?;
    let ready = announce(client.clone(), config.node_name.to_string());
    let (trigger, asked) = shutdown::channel();
    let mut agent = std::pin::pin!(kubelet::run(client, config, asked));
    let ended = tokio::select! {
        ended = &mut agent => ended,
        () = ready => unreachable!("the announcement never ends"),
        () = stop.next() => {
            trigger.request();
            agent.await
        }
    };
    Ok(ended.map_err(MemberError::Node)?)
}

/// Runs simulated nodes until a signal.
async fn simulate(
    client: kube::Client,
    config: HollowConfig,
    mut stop: Termination,
) -> Result<(), HollowError> {
    let (trigger, asked) = shutdown::channel();
    let mut nodes = std::pin::pin!(hollow::run(client, config, asked, || member::report(Report::Ready)));
    tokio::select! {
        ended = &mut nodes => ended,
        () = stop.next() => {
            trigger.request();
            nodes.await
        }
    }
}

fn hollow_config(args: Args, count: u32) -> HollowConfig {
    HollowConfig {
        prefix: args.name.clone().unwrap_or_else(|| FAKE_PREFIX.to_owned()),
        count: count as usize,
        zones: args.fake_zones as usize,
        heartbeat: args.heartbeat(),
        run_time: args.fake_run_time,
        capacity: args.capacity(),
        labels: args.labels.into_iter().collect(),
    }
}

/// Tells the supervisor when the node is Ready: by what the API server says of it since this start.
async fn announce(client: kube::Client, name: String) {
    let nodes: Api<Node> = Api::all(client);
    // Heartbeats are written in whole seconds.
    let start = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    let ready = |node: Option<&Node>| node.is_some_and(|node| is_ready_since(node, start));
    // A watch that failed for good leaves the word unsaid; the agent itself reports what is wrong.
    if await_condition(nodes, &name, ready).await.is_ok() {
        member::report(Report::Ready);
    }
    std::future::pending().await
}

fn is_ready_since(node: &Node, start: Timestamp) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|condition| condition.last_heartbeat_time.as_ref().is_some_and(|time| time.0 >= start))
}

/// The cluster that a kubeconfig names. Where there is none the machine may want to join one.
async fn cluster_of(app: &App) -> Result<kube::Client, Failure> {
    kubeconfig::find(app, &|path| path.exists()).map_err(|why| {
        let remedy =
            "`amoeba token create --print-join-command`, on the cluster, says how a machine joins it";
        Failure::Usage(format!("{why}; {remedy}"))
    })?;
    client(app, "kubelet").await
}

/// A client by the first kubeconfig that applies, as for every verb.
pub async fn client(app: &App, agent: &str) -> Result<kube::Client, Failure> {
    let paths =
        kubeconfig::find(app, &|path| path.exists()).map_err(crate::cluster::connect::ConnectError::from)?;
    let options = Options { context: app.target.context.clone(), ..Options::new(agent) };
    let client = client::config::from_kubeconfig(&paths[0], &options).await;
    Ok(client.map_err(|source| MemberError::Client(Box::new(source)))?)
}

fn config(
    app: &App,
    args: Args,
    name: String,
    membership: Option<Membership>,
) -> Result<KubeletConfig, Failure> {
    let found = membership.as_ref().and_then(|membership| membership.own_address);
    let address = args.address.or(found).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let tls = match (&args.tls_cert_file, &args.tls_private_key_file, &args.client_ca_file) {
        (Some(cert), Some(key), Some(client_ca)) => Some(ServingTls {
            certificate: ServingCertificate::Files { cert: cert.clone(), key: key.clone() },
            client_ca: client_ca.clone(),
        }),
        _ => membership.as_ref().map(|membership| ServingTls {
            certificate: ServingCertificate::Requested,
            client_ca: membership.ca_file.clone(),
        }),
    };
    let data_dir = app.data_dir()?;
    Ok(KubeletConfig {
        image_dir: args.image_dir.clone().unwrap_or_else(|| data_dir.join("images")),
        listen: args.listen.unwrap_or(SocketAddr::new(address, KUBELET_PORT)),
        runtime: RuntimeKind::Native { shim_command: Vec::new() },
        cri_socket: args.container_runtime_endpoint.clone(),
        cri_streaming_ca: args.container_runtime_streaming_ca.clone(),
        runtime_patience: args.container_runtime_patience,
        heartbeat: args.heartbeat(),
        tls,
        renewal: membership.map(|membership| membership.renewal),
        capacity: args.capacity(),
        network: args.network(),
        labels: args.labels.into_iter().collect::<BTreeMap<_, _>>(),
        stop_pods_on_shutdown: args.stop_pods_on_shutdown,
        shutdown_grace: args.shutdown_grace_period,
        node_shutdown: args.graceful_node_shutdown.then_some(args.shutdown_grace_period_critical_pods),
        eviction: args.eviction.config()?,
        static_pods: args.pod_manifest_path,
        pod_max_pids: args.pod_max_pids,
        allowed_sysctls: Allowed::parse(&args.allowed_unsafe_sysctls)
            .map_err(|why| Failure::Usage(format!("--allowed-unsafe-sysctls: {why}")))?,
        ..KubeletConfig::new(name, data_dir, address)
    })
}

/// Node names are lower case, as upstream makes them of host names.
fn host_name() -> Result<String, Failure> {
    let name =
        nix::unistd::gethostname().map_err(|errno| Failure::io("read the host's name", errno.into()))?;
    let name = name.to_string_lossy();
    parse_name(&name.to_lowercase()).map_err(|why| {
        Failure::Usage(format!("the host's name {name:?} can't be a node's: {why}; give another with --name"))
    })
}
