//! `amoeba server`: one member of the control plane.
//!
//! Store, API server, controllers and scheduler in one process; the latter two are clients of the API server
//! over its in-process service. Config, build, run, drain: the parts stop in the reverse order of their start.

mod member;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::cidr::Cidr;
use controllers::node_ranges::NodeRanges;
use store::kv::MemberId;

use self::member::Member;
use crate::app::App;
use crate::control_plane::identity::IdentityArgs;
use crate::control_plane::joining::{Acquaintance, JoiningArgs, parse_acquaintance};
use crate::control_plane::load::LoadArgs;
use crate::control_plane::stock_etcd::{StockEtcd, StockEtcdArgs};
use crate::failure::Failure;
use crate::leader_election::LeaderElectionArgs;
use crate::member::{DEFAULT_LOG, end_with_parent, log_to_stderr, report};
use crate::recovery;
use crate::signals::Termination;
use crate::standalone::url::Url;
use crate::text::{parse_duration, parse_socket_address};
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
    #[arg(long, value_name = "ADDRESS", conflicts_with = "etcd_servers", value_parser = parse_socket_address)]
    peer_address: Option<SocketAddr>,
    /// The cluster to join: its API servers, by a token of the control plane; or peer addresses of its members, if they
    /// have added this one (`amoeba member add`). Once joined, neither is needed again
    #[arg(
        long,
        value_name = "URL|ADDRESS,…",
        value_delimiter = ',',
        value_parser = parse_acquaintance,
        requires = "peer_address",
        conflicts_with = "peers"
    )]
    join: Vec<Acquaintance>,
    #[command(flatten)]
    joining: JoiningArgs,
    /// After most members are lost for ever: make this one a new cluster of its own, and say what may be lost
    #[arg(long, conflicts_with = "etcd_servers")]
    force_new_cluster: bool,
    /// Where the API is served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443", value_parser = parse_socket_address)]
    listen: SocketAddr,
    /// Where clients reach this member, if not where it listens
    #[arg(long, value_name = "ADDRESS", value_parser = parse_socket_address)]
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
    /// A KubeSchedulerConfiguration for the scheduler: several profiles, rules with other weights
    #[arg(long, value_name = "FILE", conflicts_with = "no_scheduler")]
    scheduler_config: Option<PathBuf>,
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
    #[arg(long, value_name = "FILTER", default_value = DEFAULT_LOG, hide_default_value = true)]
    log: String,
    /// Started by `amoeba up`: ends with it
    #[arg(long, hide = true)]
    child_of_supervisor: bool,
}

/// `NUMBER=ADDRESS`
pub fn parse_peer(text: &str) -> Result<(u64, SocketAddr), String> {
    let wrong = || format!("\"{text}\" is not of the form 1=127.0.0.1:7001");
    let (number, address) = text.split_once('=').ok_or_else(wrong)?;
    Ok((number.parse().map_err(|_| wrong())?, address.parse().map_err(|_| wrong())?))
}

/// Builds the parts, runs them until a signal, and drains them.
pub async fn run(app: &App, mut args: Args) -> Result<(), Failure> {
    if args.child_of_supervisor {
        end_with_parent()?;
    }
    log_to_stderr(&args.log);
    let mut stop = Termination::listen().map_err(|source| Failure::io("listen for signals", source))?;
    let dir = app.data_dir()?;
    // Who has joined already is told by its own directory whom it speaks to.
    let joined = args.joining.join(&args.join, args.peer_address, &dir, &args.pki_dir(&dir)).await?;
    if let Some(members) = joined {
        args.join = members.into_iter().map(Acquaintance::Member).collect();
    }
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
    report(Report::Ready);
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

    fn pki_dir(&self, dir: &Path) -> PathBuf {
        self.pki_dir.clone().unwrap_or_else(|| dir.join("pki"))
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
