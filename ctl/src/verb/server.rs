//! `amoeba server`: one member of the control plane.
//!
//! Store, API server, controllers and scheduler in one process; the latter two are clients of the API server
//! over its in-process service. Config, build, run, drain: the parts stop in the reverse order of their start.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::auth::TokenTable;
use apiserver::pki::{PEER_SERVER_NAME, Pki};
use apiserver::{ApiServer, Identity};
use client::election::ElectionConfig;
use client::shutdown::{self, Shutdown};
use controllers::ControllersConfig;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use scheduler::SchedulerConfig;
use store::kv::MemberId;
use store::{PeerTls, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::failure::Failure;
use crate::member::{self, MemberError};
use crate::signals::Termination;
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
    #[arg(long = "peer", value_name = "NUMBER=ADDRESS", value_parser = parse_peer)]
    peers: Vec<(u64, SocketAddr)>,
    /// Where the API is served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Where clients reach this member, if not where it listens
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<SocketAddr>,
    /// A further name or address in the serving certificate
    #[arg(long = "tls-san", value_name = "NAME")]
    tls_san: Vec<String>,
    /// Certificate authorities, shared by all members [default: pki in the data directory]
    #[arg(long, value_name = "DIR")]
    pki_dir: Option<PathBuf>,
    /// Bearer tokens, as SHA-256 digests: lines sha256:HEX,user,uid,"group1,group2"
    /// [default: tokens.csv beside the certificate authorities, if it is there]
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Raft's clock; elections take 6 to 12 ticks
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    tick: Duration,
    /// How long controllers and scheduler of a silent member keep others out
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    leader_elect_lease_duration: Duration,
    /// They stop acting when they couldn't renew for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    leader_elect_renew_deadline: Duration,
    /// Between two renewals
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    leader_elect_retry_period: Duration,
    /// A node that says nothing for this long is not ready
    #[arg(long, value_name = "TIME", default_value = "50s", value_parser = parse_duration)]
    node_monitor_grace_period: Duration,
    /// A new node may take this long to say something for the first time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    node_startup_grace_period: Duration,
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

fn parse_peer(text: &str) -> Result<(u64, SocketAddr), String> {
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
    // A member without a quorum may wait long for its store: it can be asked to stop meanwhile. Everything
    // that it has opened so far survives a kill, and so this.
    let member = tokio::select! {
        built = Member::build(&dir, &args) => built?,
        () = stop.next() => return Ok(()),
    };
    member::report(Report::Ready);
    tracing::info!(name = args.name, address = %args.listen, "this member serves");
    let ended = member.run_until(stop.next()).await;
    tracing::info!(name = args.name, "this member ended");
    Ok(ended?)
}

/// All parts of a member, running.
struct Member {
    store: Store,
    api: JoinHandle<Result<(), apiserver::ServeError>>,
    api_stop: watch::Sender<bool>,
    /// Controllers and scheduler: one future on the main thread, as they mostly wait for the API server.
    loops: LocalBoxFuture<'static, ()>,
    loops_stop: shutdown::Trigger,
    leadership: JoinHandle<()>,
}

impl Member {
    async fn build(dir: &Path, args: &Args) -> Result<Self, MemberError> {
        client::config::install_crypto();
        // The port first: a clear refusal before anything is opened.
        let listen = |source| MemberError::Listen { address: args.listen, source };
        let listener = TcpListener::bind(args.listen).await.map_err(listen)?;
        let pki_dir = args.pki_dir.clone().unwrap_or_else(|| dir.join("pki"));
        let pki_failed = |source| MemberError::Pki { dir: pki_dir.clone(), source };
        let pki = Arc::new(Pki::load_or_create(&pki_dir).map_err(pki_failed)?);
        let store_dir = dir.join("store");
        let config = store_config(&store_dir, args, &pki).map_err(pki_failed)?;
        let store =
            Store::open(config).await.map_err(|source| MemberError::Store { dir: store_dir, source })?;
        let leadership = tokio::spawn(report_leadership(store.leadership(), MemberId(args.member_id)));
        let tokens = args.token_auth_file.clone().unwrap_or_else(|| pki_dir.join("tokens.csv"));
        let tokens = TokenTable::load(&tokens).map_err(MemberError::Tokens)?;
        let api = ApiServer::start(Arc::new(store.clone()), api_config(args, pki.clone(), tokens)).await;
        let api = api.map_err(MemberError::ApiServer)?;
        let serving = serving_certificate(args, &pki).map_err(pki_failed)?;
        let tls = pki.server_tls_config(&serving).map_err(pki_failed)?;
        let (loops_stop, asked) = shutdown::channel();
        let loops = start_loops(&api, args, &pki, &asked)?;
        let (api_stop, api_asked) = watch::channel(false);
        let api = tokio::spawn(async move { api.serve(listener, tls, api_asked).await });
        Ok(Self { store, api, api_stop, loops, loops_stop, leadership })
    }

    /// Runs until `stop`, or until the API server can't go on.
    async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), MemberError> {
        let early = tokio::select! {
            () = stop => None,
            served = &mut self.api => Some(served),
            () = &mut self.loops => unreachable!("controllers and scheduler end only when asked to"),
        };
        // Loops first: they give up their leases, for which they need the API server and the store.
        self.loops_stop.request();
        if tokio::time::timeout(LOOPS_DEADLINE, self.loops).await.is_err() {
            // Without a quorum, as when all members stop at once, leases can't be given up: they run out.
            tracing::info!("controllers and scheduler did not give up their leases in time");
        }
        self.api_stop.send_replace(true);
        let served = match early {
            Some(served) => served,
            None => self.api.await,
        };
        self.leadership.abort();
        self.store.close().await;
        match served {
            Ok(served) => served.map_err(MemberError::Serve),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

fn store_config(dir: &Path, args: &Args, pki: &Pki) -> Result<store::Config, apiserver::pki::PkiError> {
    let id = MemberId(args.member_id);
    let mut config = match args.peers.len() {
        0 | 1 => store::Config::single(dir, id),
        _ => {
            let peers: BTreeMap<MemberId, SocketAddr> =
                args.peers.iter().map(|(number, address)| (MemberId(*number), *address)).collect();
            store::Config::group(dir, id, peers, Some(peer_tls(args, pki)?))
        }
    };
    config.tick = args.tick;
    Ok(config)
}

fn peer_tls(args: &Args, pki: &Pki) -> Result<PeerTls, apiserver::pki::PkiError> {
    let issued = pki.issue_peer(&args.name)?;
    Ok(PeerTls {
        server: pki.peer_server_tls(&issued)?,
        client: pki.peer_client_tls(&issued)?,
        server_name: Some(PEER_SERVER_NAME.to_owned()),
    })
}

fn api_config(args: &Args, pki: Arc<Pki>, tokens: TokenTable) -> apiserver::Config {
    let mut config = apiserver::Config::new(pki);
    config.static_tokens = tokens;
    config.default_toleration_seconds = args.default_toleration_seconds;
    config.event_ttl = args.event_ttl;
    config.advertise = Some(args.advertise.unwrap_or(args.listen));
    config
}

/// Names and addresses under which this member is reached.
fn serving_certificate(args: &Args, pki: &Pki) -> Result<apiserver::pki::Issued, apiserver::pki::PkiError> {
    const NAMES: [&str; 5] = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    addresses.extend([Some(args.listen), args.advertise].into_iter().flatten().map(|address| address.ip()));
    for san in &args.tls_san {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    addresses.sort();
    addresses.dedup();
    pki.issue_server(&names, &addresses)
}

fn start_loops(
    api: &Arc<ApiServer>,
    args: &Args,
    pki: &Pki,
    asked: &Shutdown,
) -> Result<LocalBoxFuture<'static, ()>, MemberError> {
    let in_process = |user: &str, agent: &str| {
        client::config::in_process(api.in_process(Identity::new(user, &[])), agent)
            .map_err(|source| MemberError::Client(Box::new(source)))
    };
    // A restarted member must not take itself for the holder of its old lease.
    let identity = format!("{}_{:08x}", args.name, rand::random::<u32>());
    let client = in_process("system:kube-controller-manager", "kube-controller-manager")?;
    let controllers = controllers::run(client, controllers_config(args, &identity, pki), asked.clone());
    let mut config = SchedulerConfig::new(&identity);
    config.election = election(args, config.election);
    let scheduler =
        scheduler::run(in_process("system:kube-scheduler", "kube-scheduler")?, config, asked.clone());
    Ok(futures::future::join(controllers, scheduler).map(|_| ()).boxed_local())
}

fn controllers_config(args: &Args, identity: &str, pki: &Pki) -> ControllersConfig {
    let mut config = ControllersConfig::upstream(identity);
    config.election = election(args, config.election);
    config.nodes.grace = args.node_monitor_grace_period;
    config.nodes.startup_grace = args.node_startup_grace_period;
    config.nodes.eviction_rate = args.node_eviction_rate;
    config.missing_node_quarantine = args.missing_node_quarantine;
    config.root_ca = Some(pki.ca_pem().to_owned());
    config
}

fn election(args: &Args, base: ElectionConfig) -> ElectionConfig {
    ElectionConfig {
        lease: args.leader_elect_lease_duration,
        renew: args.leader_elect_renew_deadline,
        retry: args.leader_elect_retry_period,
        ..base
    }
}

/// Tells the supervisor whenever this member begins or ceases to lead.
async fn report_leadership(mut leader: watch::Receiver<Option<MemberId>>, own: MemberId) {
    let mut leads = false;
    loop {
        let now = *leader.borrow_and_update() == Some(own);
        if now != leads {
            member::report(if now { Report::Leading } else { Report::Following });
            leads = now;
        }
        if leader.changed().await.is_err() {
            return;
        }
    }
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
