//! A member's parts: built in their order, drained in the reverse.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::auth::TokenTable;
use apiserver::auth::oidc::Oidc;
use apiserver::members::Group;
use apiserver::pki::{MASTERS_GROUP, Pki, PkiError};
use apiserver::{ApiServer, Identity};
use client::shutdown::{self, Shutdown};
use controllers::ControllersConfig;
use scheduler::SchedulerConfig;
use store::kv::MemberId;
use store::{ClusterId, Join, PeerTls};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{Args, Place};
use crate::control_plane::backing::{self, Backing, OwnStore};
use crate::control_plane::certificates;
use crate::control_plane::joining::{self, Acquaintance};
use crate::etcdctl::endpoints;
use crate::member::MemberError;
use crate::scheduler_configuration;

/// How long controllers and scheduler may take to give up their leases.
const LOOPS_DEADLINE: Duration = Duration::from_secs(1);

/// All parts of a member, running.
pub(super) struct Member {
    backing: Backing,
    api: JoinHandle<Result<(), apiserver::ServeError>>,
    api_stop: watch::Sender<bool>,
    /// Controllers and scheduler. Each has a thread of its own: in one task, whoever has much to do would use up the
    /// turns of the other, and let it miss the renewal of its lease.
    loops: JoinSet<()>,
    loops_stop: shutdown::Trigger,
}

impl Member {
    pub(super) async fn build(dir: &Path, args: &Args, place: &Place) -> Result<Self, MemberError> {
        client::config::install_crypto();
        // The port first: a clear refusal before anything is opened.
        let listen = |source| MemberError::Listen { address: args.listen, source };
        let listener = TcpListener::bind(args.listen).await.map_err(listen)?;
        let pki_dir = args.pki_dir(dir);
        let pki_failed = |source| MemberError::Pki { dir: pki_dir.clone(), source };
        let pki = Arc::new(Pki::load_or_create(&pki_dir).map_err(pki_failed)?);
        let backing = match place {
            Place::Own => Backing::Own(own_store(dir, args, &pki, &pki_dir).await?),
            Place::Stock(etcd) => Backing::Stock(etcd.connect().await?),
        };
        let tokens = args.token_auth_file.clone().unwrap_or_else(|| pki_dir.join("tokens.csv"));
        let tokens = TokenTable::load(&tokens).map_err(MemberError::Tokens)?;
        let mut config = api_config(args, pki.clone(), tokens)?;
        config.members = backing.group();
        let api = ApiServer::start(backing.kv(), config).await;
        let api = api.map_err(MemberError::ApiServer)?;
        let reached: Vec<IpAddr> =
            [Some(args.listen), args.advertise].into_iter().flatten().map(|a| a.ip()).collect();
        let tls = certificates::serving(&pki, &reached, &args.tls_san).map_err(pki_failed)?;
        // A supervisor leaves one for all of its members.
        if !args.child_of_supervisor {
            certificates::leave_admin(&pki, dir, args.advertise.unwrap_or(args.listen))?;
        }
        let (loops_stop, asked) = shutdown::channel();
        let mut loops = start_loops(&api, args, &pki, &asked)?;
        if let (Some(Group(store)), Some(own)) = (backing.group(), args.peer_address) {
            let client = in_process(&api, Identity::new("amoeba:member", &[MASTERS_GROUP]), "member")?;
            let (dir, shutdown) = (dir.to_owned(), asked.clone());
            loops.spawn(async move {
                tokio::select! {
                    () = joining::settle(store, own.to_string(), client, dir) => shutdown.requested().await,
                    () = shutdown.requested() => {}
                }
            });
        }
        let (api_stop, api_asked) = watch::channel(false);
        args.load.open_admin(&api, dir, api_asked.clone())?;
        let api = tokio::spawn(async move { api.serve(listener, tls, api_asked).await });
        Ok(Self { backing, api, api_stop, loops, loops_stop })
    }

    /// Runs until `stop`, or until the API server can't go on.
    pub(super) async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), MemberError> {
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
async fn own_store(dir: &Path, args: &Args, pki: &Arc<Pki>, pki_dir: &Path) -> Result<OwnStore, MemberError> {
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

fn store_config(dir: &Path, args: &Args, pki: &Arc<Pki>) -> Result<store::Config, PkiError> {
    let tls = || certificates::peer(pki, &args.name).map(Some);
    let mut config = match (args.join.as_slice(), args.founders()) {
        ([], founders) if founders.values().all(String::is_empty) => {
            founder_config(dir, args, founders, None)
        }
        ([], founders) => founder_config(dir, args, founders, tls()?),
        (living, _) => {
            let own = args.peer_address.expect("--join requires --peer-address");
            let address = |one: &Acquaintance| match one {
                Acquaintance::Member(address) => address.to_string(),
                Acquaintance::Server(_) => {
                    unreachable!("who has joined by a server knows the members' addresses")
                }
            };
            let members = living.iter().map(address).collect();
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
    let in_process = |user: &str, agent: &str| in_process(api, Identity::new(user, &[]), agent);
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
        if let Some(path) = &args.scheduler_config {
            config = config.configured(scheduler_configuration::read_to_run(path)?);
            if !std::mem::replace(&mut config.elects, true) {
                tracing::warn!("leaderElection.leaderElect: false has no effect: members take turns");
            }
        }
        let client = in_process("system:kube-scheduler", "kube-scheduler")?;
        let shutdown = asked.clone();
        spawn_loop(&mut loops, move || scheduler::run(client, config, shutdown));
    }
    Ok(loops)
}

/// A client of the API server without a connection.
fn in_process(api: &Arc<ApiServer>, who: Identity, agent: &str) -> Result<kube::Client, MemberError> {
    let client = client::config::in_process(api.in_process(who), agent);
    client.map_err(|source| MemberError::Client(Box::new(source)))
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
