//! `amoeba store`: one member of the store alone, without Kubernetes, behind etcd's API.
//!
//! The flags are etcd's, so that a unit file written for etcd starts it. Config, build, run, drain.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use store::kv::{Kv as _, MemberId};
use store::{Join, PeerTls, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;
use crate::failure::Failure;
use crate::member::{self, MemberError};
use crate::recovery;
use crate::signals::Termination;
use crate::standalone::initial_cluster::InitialCluster;
use crate::standalone::settings::{self, Door, Settings};
use crate::standalone::tls;
use crate::standalone::url::Url;
use crate::text::parse_duration;

/// Run the store alone
#[derive(Debug, clap::Args)]
#[command(
    after_help = "When this member serves and its cluster has a leader, one line beginning with `ready` is \
    printed.\nThree members:  amoeba store --name a --data-dir a --initial-cluster \
    a=http://127.0.0.1:2380,b=http://127.0.0.1:2480,c=http://127.0.0.1:2580 …"
)]
pub struct Args {
    /// Name of this member
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub name: String,
    /// Where clients are served
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub listen_client_urls: Vec<Url>,
    /// Where clients are told to come [default: where they are served]
    #[arg(long, value_name = "URL,…", value_delimiter = ',')]
    pub advertise_client_urls: Vec<Url>,
    /// Where other members are listened to
    #[arg(long, value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:2380")]
    pub listen_peer_urls: Vec<Url>,
    /// Where other members are told to come [default: as --initial-cluster says, or where they are listened to]
    #[arg(long, value_name = "URL,…", value_delimiter = ',')]
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Members of a new cluster with their peer URLs [default: this one alone]
    #[arg(long, value_name = "NAME=URL,…")]
    pub initial_cluster: Option<InitialCluster>,
    /// Whether the cluster begins with this start; counts only when the data directory is empty
    #[arg(long, value_name = "STATE", default_value = "new")]
    pub initial_cluster_state: ClusterState,
    /// Goes into the ids of members and cluster, so that different clusters never mix
    #[arg(long, value_name = "TOKEN", default_value = "etcd-cluster")]
    pub initial_cluster_token: String,
    /// After most members are lost for ever: make this one a new cluster of its own, and say what may be lost
    #[arg(long)]
    pub force_new_cluster: bool,
    /// Certificate shown to clients
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub cert_file: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub key_file: Option<PathBuf>,
    /// Only clients whose certificate this authority signed get in
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub trusted_ca_file: Option<PathBuf>,
    /// Ask clients for a certificate; implied by --trusted-ca-file
    #[arg(long, help_heading = "TLS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", hide_default_value = true,
        hide_possible_values = true, action = clap::ArgAction::Set)]
    pub client_cert_auth: bool,
    /// Certificate shown to other members
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub peer_cert_file: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub peer_key_file: Option<PathBuf>,
    /// Only members whose certificate this authority signed get in
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Ask members for a certificate; always so with TLS
    #[arg(long, help_heading = "TLS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", hide_default_value = true,
        hide_possible_values = true, action = clap::ArgAction::Set)]
    pub peer_client_cert_auth: bool,
    /// Serve other addresses than loopback without encryption, or without asking clients for certificates
    #[arg(long, help_heading = "TLS")]
    pub allow_insecure: bool,
    /// Largest request in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1_572_864, help_heading = "Limits")]
    pub max_request_bytes: usize,
    /// Most comparisons, and most operations of one branch, in a transaction
    #[arg(long, value_name = "NUMBER", default_value_t = 128, help_heading = "Limits")]
    pub max_txn_ops: usize,
    /// How history is kept; only `periodic` is offered
    #[arg(long, value_name = "MODE", default_value = "periodic", help_heading = "Limits")]
    pub auto_compaction_mode: CompactionMode,
    /// How long history is kept: 5m, 1h30m, a number of hours, or 0 for ever [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    pub auto_compaction_retention: Option<String>,
    /// How much disk history may take before its older half is compacted [default: 1073741824]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub history_max_bytes: Option<u64>,
    /// Taken for etcd's sake: there is no quota, the disk is the limit
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub quota_backend_bytes: Option<i64>,
    /// Log entries kept for members that lag behind [default: 5000]
    #[arg(long, value_name = "ENTRIES", help_heading = "Limits")]
    pub snapshot_count: Option<usize>,
    /// Milliseconds between the leader's heartbeats
    #[arg(long, value_name = "MS", default_value_t = 100, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(2..=10_000))]
    pub heartbeat_interval: u64,
    /// Milliseconds without a leader after which an election is called, at the earliest
    #[arg(long, value_name = "MS", default_value_t = 300, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(6..=100_000))]
    pub election_timeout: u64,
    /// How often a watcher that asked for it hears how far a quiet watch is
    #[arg(long, value_name = "TIME", default_value = "10m", help_heading = "Limits",
        value_parser = parse_duration, alias = "watch-progress-notify-interval")]
    pub experimental_watch_progress_notify_interval: Duration,
    /// What is logged
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Flags without a meaning here.
    #[command(flatten)]
    pub taken: Taken,
}

/// Flags that unit files of etcd have and that change nothing here: what they switch on is always on, or how
/// things are logged. Taken so that those files work.
#[derive(Debug, clap::Args)]
pub struct Taken {
    /// Always: a change of members that could cost the quorum is refused
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    strict_reconfig_check: Option<Option<bool>>,
    /// Always
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    pre_vote: Option<Option<bool>>,
    /// Always: members compare their data all the time
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    experimental_initial_corrupt_check: Option<Option<bool>>,
    /// There is one log, on standard error
    #[arg(long, hide = true)]
    logger: Option<String>,
    /// There is one log, on standard error
    #[arg(long, hide = true)]
    log_outputs: Option<String>,
}

/// `--initial-cluster-state`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// All members of --initial-cluster start together.
    New,
    /// This member was added to a living cluster.
    Existing,
}

/// `--auto-compaction-mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompactionMode {
    /// By time.
    Periodic,
    /// By number of revisions.
    Revision,
}

/// `--log-level`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens rarely.
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    fn filter(self) -> &'static str {
        match self {
            Self::Debug => "info,store=debug,etcd=debug,amoeba=debug",
            Self::Info => "warn,store=info,etcd=info,amoeba=info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Builds the member, serves until a signal, and drains.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    member::log_to_stderr(args.log_level.filter());
    let settings = Settings::decide(&args).map_err(Failure::Usage)?;
    if args.quota_backend_bytes.is_some_and(|quota| quota > 0) {
        tracing::info!("--quota-backend-bytes has no effect: the store has no quota, the disk is its limit");
    }
    let mut stop = Termination::listen().map_err(|source| Failure::io("listen for signals", source))?;
    let dir = directory(app, &args)?;
    if args.force_new_cluster {
        recovery::force(&dir.join("store"))?;
    }
    // A member without its group may wait long: it can be asked to stop meanwhile.
    let member = tokio::select! {
        built = StoreMember::build(&dir, &args, &settings) => built?,
        () = stop.next() => return Ok(()),
    };
    member.run_until(stop.next()).await
}

/// `--data-dir`, or a place of its own for each name.
fn directory(app: &App, args: &Args) -> Result<PathBuf, Failure> {
    let dir = match &app.target.data_dir {
        Some(dir) => dir.clone(),
        None => app.data_dir()?.join("stores").join(&args.name),
    };
    fs::create_dir_all(&dir)
        .map_err(|source| Failure::io(format!("make the directory {}", dir.display()), source))?;
    Ok(dir)
}

/// A running member.
struct StoreMember {
    store: Store,
    name: String,
    /// Where clients reach it.
    clients: Vec<Url>,
    /// One task a listener; they end when asked to, or when a listener breaks.
    servers: JoinSet<std::io::Result<()>>,
    stop: watch::Sender<bool>,
}

impl StoreMember {
    async fn build(dir: &Path, args: &Args, settings: &Settings) -> Result<Self, Failure> {
        // The ports first: a clear refusal before anything is opened.
        let (peer_listener, peer_address) = listen(&settings.listen_peer).await?;
        let mut listeners = Vec::new();
        for url in &settings.listen_client {
            let (listener, address) = listen(url).await?;
            listeners.push((listener, url.with_port(address.port())));
        }
        let advertised_peer = match &settings.advertise_peer {
            Some(url) => url.clone(),
            None => settings.listen_peer.with_port(peer_address.port()),
        };
        let config = store_config(dir, args, settings, &advertised_peer)?;
        let store_dir = config.dir.clone();
        let store = Store::open_with(config, Some(peer_listener))
            .await
            .map_err(|source| MemberError::Store { dir: store_dir, source })?;
        let bound: Vec<Url> = listeners.iter().map(|(_, url)| url.clone()).collect();
        let clients =
            if settings.advertise_client.is_empty() { bound } else { settings.advertise_client.clone() };
        let (stop, servers) = serve(&store, settings, listeners)?;
        Ok(Self { store, name: settings.name.clone(), clients, servers, stop })
    }

    async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let announcement = announce(&self.store, self.name.clone(), self.clients.clone());
        let broken = tokio::select! {
            () = stop => None,
            ended = self.servers.join_next() => ended,
            () = self.store.removed() => {
                tracing::warn!(name = self.name, "this member was removed from its cluster, and ends");
                None
            }
            never = announcement => match never? {},
        };
        // Open requests are answered while the store still works; then it hands over leadership.
        self.stop.send_replace(true);
        while self.servers.join_next().await.is_some() {}
        self.store.close().await;
        tracing::info!(name = self.name, "this member ended");
        match broken {
            Some(Ok(Err(source))) => Err(Failure::io("go on serving clients", source)),
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            _ => Ok(()),
        }
    }
}

/// Makes this member known to its cluster and says that it is ready. Then it has nothing more to say.
async fn announce(store: &Store, name: String, clients: Vec<Url>) -> Result<Infallible, Failure> {
    if store.leadership().wait_for(Option::is_some).await.is_ok() {
        let urls: Vec<String> = clients.iter().map(Url::to_string).collect();
        store.publish(&name, &urls).await.map_err(MemberError::Publish)?;
        let id = store.status().member.0;
        super::say(format!("ready: {name} ({id:016x}) serves clients on {}", settings::join(&clients)));
    }
    std::future::pending().await
}

/// Binds a URL; for port 0 the address tells which was chosen.
async fn listen(url: &Url) -> Result<(TcpListener, SocketAddr), MemberError> {
    let failed = |source| MemberError::ListenUrl { url: url.to_string(), source };
    let listener = TcpListener::bind((url.host.as_str(), url.port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

type Servers = (watch::Sender<bool>, JoinSet<std::io::Result<()>>);

/// Serves etcd's API on every listener.
fn serve(
    store: &Store,
    settings: &Settings,
    listeners: Vec<(TcpListener, Url)>,
) -> Result<Servers, MemberError> {
    let (stop, asked) = watch::channel(false);
    let mut servers = JoinSet::new();
    for (listener, url) in listeners {
        let mut config = etcd::Config::plain();
        config.peer_tls = settings.listen_peer.secure;
        config.limits.max_request_bytes = settings.max_request_bytes;
        config.limits.max_txn_ops = settings.max_txn_ops;
        config.limits.progress_interval = settings.progress_interval;
        if url.secure {
            config.tls = Some(client_tls(&settings.client_door)?);
        }
        servers.spawn(etcd::serve(store.clone(), config, listener, asked.clone()));
    }
    Ok((stop, servers))
}

fn client_tls(door: &Door) -> Result<Arc<rustls::ServerConfig>, MemberError> {
    let own = door.own.as_ref().expect("settings with https have a certificate");
    Ok(tls::server(own, door.trusted.as_deref(), &[b"h2"])?)
}

/// Each member is known by the host of its own URL, as in etcd.
fn peer_tls(door: &Door) -> Result<Option<PeerTls>, MemberError> {
    let (Some(own), Some(trusted)) = (&door.own, &door.trusted) else { return Ok(None) };
    Ok(Some(PeerTls {
        server: tls::server(own, Some(trusted), &[])?,
        client: tls::client(trusted, Some(own))?,
        server_name: None,
    }))
}

/// What the store is told.
fn store_config(
    dir: &Path,
    args: &Args,
    settings: &Settings,
    advertised: &Url,
) -> Result<store::Config, Failure> {
    let tls = if advertised.secure { peer_tls(&settings.peer_door)? } else { None };
    let dir = dir.join("store");
    let mut config = match args.initial_cluster_state {
        ClusterState::New => founder_config(dir, args, advertised, tls).map_err(Failure::Usage)?,
        ClusterState::Existing => {
            let members = settings::living(args, advertised).map_err(Failure::Usage)?;
            store::Config::join(dir, Join { members, peer_address: advertised.authority() }, tls)
        }
    };
    config.tick = settings.beat.tick;
    config.election_ticks = settings.beat.election_ticks;
    config.limits = settings.limits;
    config.history = settings.history;
    Ok(config)
}

/// The flags say who this member becomes if its directory is new; afterwards the directory does.
fn founder_config(
    dir: PathBuf,
    args: &Args,
    advertised: &Url,
    tls: Option<PeerTls>,
) -> Result<store::Config, String> {
    let founding = settings::founding(args, advertised)?;
    let token = &args.initial_cluster_token;
    let founders = founding.founders(token);
    let own = founders[args.name.as_str()].id;
    let peers: BTreeMap<MemberId, String> =
        founders.values().map(|founder| (founder.id, founder.peer.authority())).collect();
    let mut config = store::Config::group(dir, own, peers, tls);
    config.founder = Some((own, founding.cluster_id(token)));
    config.id = None;
    Ok(config)
}
