//! `amoeba server`: one member of the control plane.
//!
//! Store, API server, controllers and scheduler in one process; the latter two are clients of the API server
//! over its in-process service. Config, build, run, drain: the parts stop in the reverse order of their start.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::cidr::Cidr;
use apiserver::auth::TokenTable;
use apiserver::auth::oidc::Oidc;
use apiserver::pki::{Pki, PkiError};
use apiserver::{ApiServer, Identity};
use client::shutdown::{self, Shutdown};
use controllers::ControllersConfig;
use controllers::node_ranges::NodeRanges;
use scheduler::SchedulerConfig;
use store::kv::MemberId;
use store::{ClusterId, Join, PeerTls};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::app::App;
use crate::control_plane::backing::{self, Backing, OwnStore};
use crate::control_plane::certificates;
use crate::control_plane::identity::IdentityArgs;
use crate::control_plane::load::LoadArgs;
use crate::control_plane::stock_etcd::{StockEtcd, StockEtcdArgs};
use crate::etcdctl::endpoints;
use crate::failure::Failure;
use crate::leader_election::LeaderElectionArgs;
use crate::member::{self, MemberError};
use crate::recovery;
use crate::signals::Termination;
use crate::standalone::url::Url;
use crate::text::parse_duration;
use crate::up::spawn::Report;

/// Run one member of the control plane
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of this member; also in the leases it holds
    #[arg(long, value_name = "NAME", default_value = "m1")]
    name: String,
    /// Number of this member in the Raft group
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    member_id: u64,
    /// A member of the group and where it talks to the others, this one included; without any there is one
    #[arg(long = "peer", value_name = "NUMBER=ADDRESS", value_parser = parse_peer, conflicts_with = "etcd_servers")]
    peers: Vec<(u64, SocketAddr)>,
    /// Where this member talks to the others [default: as --peer says; without either it stays alone]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "etcd_servers")]
    peer_address: Option<SocketAddr>,
    /// Peer addresses of a living cluster that has added this member (`amoeba member add`)
    #[arg(
        long,
        value_name = "ADDRESS,…",
        value_delimiter = ',',
        requires = "peer_address",
        conflicts_with = "peers"
    )]
    join: Vec<SocketAddr>,
    /// After most members are lost for ever: make this one a new cluster of its own, and say what may be lost
    #[arg(long, conflicts_with = "etcd_servers")]
    force_new_cluster: bool,
    /// Where the API is served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Where clients reach this member, if not where it listens
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<SocketAddr>,
    /// A further name or address in the serving certificate
    #[arg(long = "tls-san", value_name = "NAME")]
    tls_san: Vec<String>,
    /// Let the proxy subresources reach pods at loopback addresses: for a cluster that is all on this machine
    #[arg(long)]
    proxy_loopback: bool,
    /// Certificate authorities, shared by all members [default: pki in the data directory]
    #[arg(long, value_name = "DIR")]
    pki_dir: Option<PathBuf>,
    /// Bearer tokens, as SHA-256 digests: lines sha256:HEX,user,uid,"group1,group2"
    /// [default: tokens.csv beside the certificate authorities, if it is there]
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Serve the store to etcd's clients as well, with certificates of pki/etcd-ca.crt only
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        help_heading = "etcd",
        conflicts_with = "etcd_servers"
    )]
    listen_client_urls: Vec<Url>,
    /// Where etcd's clients are told to come [default: where they are served]
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        help_heading = "etcd",
        conflicts_with = "etcd_servers"
    )]
    advertise_client_urls: Vec<Url>,
    #[command(flatten)]
    stock_etcd: StockEtcdArgs,
    /// Raft's clock; elections take 6 to 12 ticks
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    tick: Duration,
    /// Run no controllers: they run elsewhere (amoeba controllers)
    #[arg(long)]
    no_controllers: bool,
    /// Other schedulers use the same nodes: bind no pod without knowing of theirs (they must say so, too)
    #[arg(long)]
    shared_nodes: bool,
    /// Run no scheduler: one runs elsewhere (amoeba scheduler)
    #[arg(long)]
    no_scheduler: bool,
    #[command(flatten)]
    leader_election: LeaderElectionArgs,
    /// A node that says nothing for this long is not ready
    #[arg(long, value_name = "TIME", default_value = "50s", value_parser = parse_duration)]
    node_monitor_grace_period: Duration,
    /// A new node may take this long to say something for the first time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    node_startup_grace_period: Duration,
    /// Addresses of all pods: each node that has no range of its own gets one of these
    #[arg(long, value_name = "RANGE")]
    cluster_cidr: Option<Cidr>,
    /// How many leading bits the addresses of a node's pods have in common
    #[arg(long, value_name = "BITS", default_value_t = 24, requires = "cluster_cidr")]
    node_cidr_mask_size: u32,
    /// Nodes whose pods are given up, per second
    #[arg(long, value_name = "NUMBER", default_value_t = 0.1)]
    node_eviction_rate: f64,
    /// How long a node must be missing before its pods are removed
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = parse_duration)]
    missing_node_quarantine: Duration,
    /// How long pods stay on a node that is not ready or unreachable, unless they say otherwise
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    default_toleration_seconds: i64,
    /// How long events are kept
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    event_ttl: Duration,
    /// What is logged, as in RUST_LOG
    #[arg(long, value_name = "FILTER", default_value = member::DEFAULT_LOG, hide_default_value = true)]
    log: String,
    /// Started by `amoeba up`: ends with it
    #[arg(long, hide = true)]
    child_of_supervisor: bool,
}

/// How long controllers and scheduler may take to give up their leases.
const LOOPS_DEADLINE: Duration = Duration::from_secs(1);

/// `NUMBER=ADDRESS`
pub fn parse_peer(text: &str) -> Result<(u64, SocketAddr), String> {
    let wrong = || format!("\"{text}\" is not of the form 1=127.0.0.1:7001");
    let (number, address) = text.split_once('=').ok_or_else(wrong)?;
    Ok((number.parse().map_err(|_| wrong())?, address.parse().map_err(|_| wrong())?))
}

/// Builds the parts, runs them until a signal, and drains them.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    if args.child_of_supervisor {
        member::end_with_parent()?;
    }
    member::log_to_stderr(&args.log);
    let mut stop = Termination::listen().map_err(|source| Failure::io("listen for signals", source))?;
    let dir = app.data_dir()?;
    let place = args.place().map_err(Failure::Usage)?;
    args.node_ranges().map_err(Failure::Usage)?;
    if args.force_new_cluster {
        recovery::force(&dir.join("store"))?;
    }
    // A member without a quorum may wait long for its store: it can be asked to stop meanwhile. Everything
    // that it has opened so far survives a kill, and so this.
    let member = tokio::select! {
        built = Member::build(&dir, &args, &place) => built?,
        () = stop.next() => return Ok(()),
    };
    member::report(Report::Ready);
    tracing::info!(name = args.name, address = %args.listen, "this member serves");
    let ended = member.run_until(stop.next()).await;
    tracing::info!(name = args.name, "this member ended");
    Ok(ended?)
}

/// Where the objects are to be kept.
enum Place {
    /// In the own store.
    Own,
    /// In an etcd cluster that others run.
    Stock(StockEtcd),
}

impl Args {
    /// The members that start together; one that is alone and says no peer address can't be reached.
    fn founders(&self) -> BTreeMap<MemberId, String> {
        let own = (self.member_id, self.peer_address.map_or_else(String::new, |own| own.to_string()));
        let listed = self.peers.iter().map(|(number, address)| (*number, address.to_string()));
        // What --peer says of this member comes later, and wins.
        std::iter::once(own).chain(listed).map(|(number, address)| (MemberId(number), address)).collect()
    }

    /// Where nodes' ranges come from, if from us.
    fn node_ranges(&self) -> Result<Option<NodeRanges>, String> {
        let services = apiserver::Config::SERVICE_RANGE;
        let ranges = |cluster| NodeRanges::new(cluster, self.node_cidr_mask_size, Some(services));
        self.cluster_cidr.map(ranges).transpose().map_err(|why| why.to_string())
    }

    fn place(&self) -> Result<Place, String> {
        if let Some(url) = self.listen_client_urls.iter().find(|url| !url.secure) {
            return Err(format!(
                "--listen-client-urls {url} must be https: whoever gets in may read every Secret"
            ));
        }
        Ok(self.stock_etcd.cluster()?.map_or(Place::Own, Place::Stock))
    }
}

/// All parts of a member, running.
struct Member {
    backing: Backing,
    api: JoinHandle<Result<(), apiserver::ServeError>>,
    api_stop: watch::Sender<bool>,
    /// Controllers and scheduler. Each has a thread of its own: in one task, whoever has much to do would use up the
    /// turns of the other, and let it miss the renewal of its lease.
    loops: JoinSet<()>,
    loops_stop: shutdown::Trigger,
}

impl Member {
    async fn build(dir: &Path, args: &Args, place: &Place) -> Result<Self, MemberError> {
        client::config::install_crypto();
        // The port first: a clear refusal before anything is opened.
        let listen = |source| MemberError::Listen { address: args.listen, source };
        let listener = TcpListener::bind(args.listen).await.map_err(listen)?;
        let pki_dir = args.pki_dir.clone().unwrap_or_else(|| dir.join("pki"));
        let pki_failed = |source| MemberError::Pki { dir: pki_dir.clone(), source };
        let pki = Arc::new(Pki::load_or_create(&pki_dir).map_err(pki_failed)?);
        let backing = match place {
            Place::Own => Backing::Own(own_store(dir, args, &pki, &pki_dir).await?),
            Place::Stock(etcd) => Backing::Stock(etcd.connect().await?),
        };
        let tokens = args.token_auth_file.clone().unwrap_or_else(|| pki_dir.join("tokens.csv"));
        let tokens = TokenTable::load(&tokens).map_err(MemberError::Tokens)?;
        let api = ApiServer::start(backing.kv(), api_config(args, pki.clone(), tokens)?).await;
        let api = api.map_err(MemberError::ApiServer)?;
        let reached: Vec<IpAddr> =
            [Some(args.listen), args.advertise].into_iter().flatten().map(|a| a.ip()).collect();
        let serving = certificates::serving(&pki, &reached, &args.tls_san).map_err(pki_failed)?;
        let tls = pki.server_tls_config(&serving).map_err(pki_failed)?;
        // A supervisor leaves one for all of its members.
        if !args.child_of_supervisor {
            certificates::leave_admin(&pki, dir, args.advertise.unwrap_or(args.listen))?;
        }
        let (loops_stop, asked) = shutdown::channel();
        let loops = start_loops(&api, args, &pki, &asked)?;
        let (api_stop, api_asked) = watch::channel(false);
        args.load.open_admin(&api, dir, api_asked.clone())?;
        let api = tokio::spawn(async move { api.serve(listener, tls, api_asked).await });
        Ok(Self { backing, api, api_stop, loops, loops_stop })
    }

    /// Runs until `stop`, or until the API server can't go on.
    async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), MemberError> {
        let early = tokio::select! {
            () = stop => None,
            () = self.backing.ended() => None,
            served = &mut self.api => Some(served),
            Some(ended) = self.loops.join_next() => {
                unreachable!("controllers and scheduler end only when asked to: {ended:?}")
            }
        };
        // Loops first: they give up their leases, for which they need the API server and the store.
        self.loops_stop.request();
        let ended = async { while self.loops.join_next().await.is_some() {} };
        if tokio::time::timeout(LOOPS_DEADLINE, ended).await.is_err() {
            // Without a quorum, as when all members stop at once, leases can't be given up: they run out.
            tracing::info!("controllers and scheduler did not give up their leases in time");
        }
        self.api_stop.send_replace(true);
        let served = match early {
            Some(served) => served,
            None => self.api.await,
        };
        self.backing.close().await;
        match served {
            Ok(served) => served.map_err(MemberError::Serve),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// Opens the own store, and its door for etcd's clients if there is to be one.
async fn own_store(dir: &Path, args: &Args, pki: &Pki, pki_dir: &Path) -> Result<OwnStore, MemberError> {
    let pki_failed = |source| MemberError::Pki { dir: pki_dir.to_owned(), source };
    let door = backing::listen(&args.listen_client_urls, &args.advertise_client_urls).await?;
    let store_dir = dir.join("store");
    let config = store_config(&store_dir, args, pki).map_err(pki_failed)?;
    let mut own = OwnStore::open(&store_dir, config, &args.name, &door.advertised).await?;
    if !door.listeners.is_empty() {
        // A supervisor has written it for all of its members at once.
        if !args.child_of_supervisor {
            pki.write_etcd_client(pki_dir).map_err(pki_failed)?;
        }
        let pki_dir = std::path::absolute(pki_dir).unwrap_or_else(|_| pki_dir.to_owned());
        endpoints::leave_behind(dir, &door.advertised, &pki_dir)
            .map_err(|source| MemberError::Endpoints { dir: dir.to_owned(), source })?;
        own.serve_etcd(door, pki).map_err(pki_failed)?;
    }
    Ok(own)
}

fn store_config(dir: &Path, args: &Args, pki: &Pki) -> Result<store::Config, PkiError> {
    let tls = || certificates::peer(pki, &args.name).map(Some);
    let mut config = match (args.join.as_slice(), args.founders()) {
        ([], founders) if founders.values().all(String::is_empty) => {
            founder_config(dir, args, founders, None)
        }
        ([], founders) => founder_config(dir, args, founders, tls()?),
        (living, _) => {
            let own = args.peer_address.expect("--join requires --peer-address");
            let members = living.iter().map(SocketAddr::to_string).collect();
            store::Config::join(dir, Join { members, peer_address: own.to_string() }, tls()?)
        }
    };
    config.tick = args.tick;
    Ok(config)
}

/// The flags say who this member becomes if its directory is new; afterwards the directory does.
fn founder_config(
    dir: &Path,
    args: &Args,
    founders: BTreeMap<MemberId, String>,
    tls: Option<PeerTls>,
) -> store::Config {
    let id = MemberId(args.member_id);
    let mut config = store::Config::group(dir, id, founders, tls);
    // A founder alone needn't agree on a number with anyone, so it takes one that no other has.
    let cluster = match config.peers.len() {
        1 => ClusterId(rand::random()),
        _ => config.founded_cluster(),
    };
    config.founder = Some((id, cluster));
    config.id = None;
    config
}

fn api_config(args: &Args, pki: Arc<Pki>, tokens: TokenTable) -> Result<apiserver::Config, MemberError> {
    let mut config = apiserver::Config::new(pki);
    config.static_tokens = tokens;
    config.account_tokens = args.identity.account_policy();
    let provider = args.identity.provider().map(Oidc::load).transpose().map_err(MemberError::Provider)?;
    config.provider = provider.map(Arc::new);
    config.default_toleration_seconds = args.default_toleration_seconds;
    config.event_ttl = args.event_ttl;
    config.advertise = Some(args.advertise.unwrap_or(args.listen));
    config.proxy_loopback = args.proxy_loopback;
    args.load.configure(&mut config)?;
    Ok(config)
}

fn start_loops(
    api: &Arc<ApiServer>,
    args: &Args,
    pki: &Arc<Pki>,
    asked: &Shutdown,
) -> Result<JoinSet<()>, MemberError> {
    let in_process = |user: &str, agent: &str| {
        client::config::in_process(api.in_process(Identity::new(user, &[])), agent)
            .map_err(|source| MemberError::Client(Box::new(source)))
    };
    // A restarted member must not take itself for the holder of its old lease.
    let identity = format!("{}_{:08x}", args.name, rand::random::<u32>());
    let mut loops = JoinSet::new();
    let shutdown = asked.clone();
    // A loop without work of its own, so that the set isn't empty before the end.
    spawn_loop(&mut loops, move || async move { shutdown.requested().await });
    if !args.no_controllers {
        let client = in_process("system:kube-controller-manager", "kube-controller-manager")?;
        let (config, shutdown) = (controllers_config(args, &identity, pki), asked.clone());
        spawn_loop(&mut loops, move || controllers::run(client, config, shutdown));
    }
    if !args.no_scheduler {
        let mut config = SchedulerConfig::new(&identity);
        config.shares_nodes = args.shared_nodes;
        config.election = args.leader_election.timed(config.election);
        let client = in_process("system:kube-scheduler", "kube-scheduler")?;
        let shutdown = asked.clone();
        spawn_loop(&mut loops, move || scheduler::run(client, config, shutdown));
    }
    Ok(loops)
}

fn spawn_loop<F: Future<Output = ()>>(loops: &mut JoinSet<()>, begin: impl FnOnce() -> F + Send + 'static) {
    let runtime = Handle::current();
    loops.spawn_blocking(move || runtime.block_on(begin()));
}

fn controllers_config(args: &Args, identity: &str, pki: &Arc<Pki>) -> ControllersConfig {
    let mut config = ControllersConfig::upstream(identity);
    config.election = args.leader_election.timed(config.election);
    config.nodes.grace = args.node_monitor_grace_period;
    config.nodes.startup_grace = args.node_startup_grace_period;
    config.nodes.eviction_rate = args.node_eviction_rate;
    config.missing_node_quarantine = args.missing_node_quarantine;
    config.root_ca = Some(pki.ca_pem().to_owned());
    config.node_ranges = args.node_ranges().ok().flatten(); // checked when the member began
    config.signer = Some(Arc::new(certificates::Signer(pki.clone())));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_numbers_and_addresses() {
        assert_eq!(parse_peer("2=127.0.0.1:7001"), Ok((2, SocketAddr::from(([127, 0, 0, 1], 7001)))));
        for text in ["", "2", "x=127.0.0.1:1", "2=nowhere"] {
            assert!(parse_peer(text).is_err(), "{text}");
        }
    }
}
