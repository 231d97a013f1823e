//! What a member is told at start. Parsed once; every limit has a value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::kv::MemberId;

/// Names a cluster, so that members of different ones never talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterId(pub u64);

/// Mutual TLS between members. Both configurations must present a certificate and demand one.
#[derive(Clone)]
pub struct PeerTls {
    /// For accepted connections.
    pub server: Arc<rustls::ServerConfig>,
    /// For our own connections.
    pub client: Arc<rustls::ClientConfig>,
    /// The name that every member's certificate carries; `None`: the host of its own peer address.
    pub server_name: Option<String>,
}

/// Sizes and times beyond which requests are refused or state is given back.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest encoded transaction in bytes.
    pub max_request_bytes: usize,
    /// Most writes waiting in this member.
    pub max_waiting_writes: usize,
    /// A write or read gives up after this.
    pub request_timeout: Duration,
    /// Bytes that are proposed but not committed.
    pub max_uncommitted_bytes: u64,
    /// Bytes of log entries in one message between members, and of entries applied at once.
    pub max_message_bytes: u64,
    /// Log entries kept for lagging followers; who needs more gets a snapshot.
    pub log_keep_entries: usize,
    /// Bytes of log kept for lagging followers.
    pub log_keep_bytes: usize,
    /// Bytes of log kept, in memory too, for a member that is on its way to a snapshot; beyond it the member
    /// needs a newer one.
    pub log_keep_for_snapshot_bytes: usize,
    /// Bytes a second that sending a snapshot to one member takes at most.
    pub snapshot_bytes_per_second: u64,
    /// Bytes of recent events kept in memory for watchers; older ones come from the disk.
    pub recent_events_bytes: usize,
    /// Messages buffered for a watcher before it counts as slow.
    pub watch_buffer: usize,
    /// RocksDB's write buffers together, bytes.
    pub write_buffer_bytes: usize,
    /// Pairs written last that stay in memory for the next write to their key, bytes.
    pub recent_pairs_bytes: usize,
    /// RocksDB's block cache, bytes.
    pub block_cache_bytes: usize,
    /// Puts are refused when less than this is free on the filesystem, or than an eighth of it, in bytes.
    pub free_floor_bytes: u64,
    /// Kept aside for a disk that gets full all the same, in bytes; at most an eighth of the filesystem.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: 4 << 20,
            max_waiting_writes: 4096,
            request_timeout: Duration::from_secs(5),
            max_uncommitted_bytes: 32 << 20,
            max_message_bytes: 1 << 20,
            log_keep_entries: 5000,
            log_keep_bytes: 4 << 20,
            log_keep_for_snapshot_bytes: 64 << 20,
            snapshot_bytes_per_second: 64 << 20,
            recent_events_bytes: 2 << 20,
            watch_buffer: 64,
            write_buffer_bytes: 12 << 20,
            recent_pairs_bytes: 8 << 20,
            block_cache_bytes: 8 << 20,
            free_floor_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
        }
    }
}

/// How long history is kept for reads and watches of the past. Whichever limit is reached first counts.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Compact what is older than this.
    pub keep: Duration,
    /// Compact the older half when history takes more than this on disk, in bytes.
    pub max_bytes: u64,
    /// How often the leader looks.
    pub check_every: Duration,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: Duration::from_secs(3600), max_bytes: 1 << 30, check_every: Duration::from_secs(60) }
    }
}

/// How a new member finds the cluster that has added it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Peer addresses of living members, `host:port`; one that answers suffices.
    pub members: Vec<String>,
    /// The peer address under which the cluster has added this member.
    pub peer_address: String,
}

/// Everything a member is told.
#[derive(Clone)]
pub struct Config {
    /// Its directory; one process at a time.
    pub dir: PathBuf,
    /// Its id; `None` takes the one on the disk, or on a new disk the one under which the cluster that it
    /// joins has added its peer address.
    pub id: Option<MemberId>,
    /// Which cluster; `None` takes the one on the disk, the one that it joins, or derives a new one from the
    /// founders.
    pub cluster: Option<ClusterId>,
    /// Who this member becomes if it founds a cluster, where neither `id` nor `cluster` says so. Unlike those
    /// it doesn't matter on later starts: flags that once founded a cluster may have changed since.
    pub founder: Option<(MemberId, ClusterId)>,
    /// The founders of a new cluster with their peer addresses (`host:port`, empty for a member that no
    /// other can reach), itself included. They count when the directory is new; later the membership on the
    /// disk does.
    pub peers: BTreeMap<MemberId, String>,
    /// Join a living cluster instead of founding one. Counts when the directory is new.
    pub join: Option<Join>,
    /// Where to listen for other members; `None` listens on the own peer address.
    pub listen: Option<SocketAddr>,
    /// Encryption between members; `None` only for tests and groups of one.
    pub tls: Option<PeerTls>,
    /// The length of a tick.
    pub tick: Duration,
    /// A follower calls an election after one to two times this many ticks without a leader.
    pub election_ticks: usize,
    /// A leader sends heartbeats every so many ticks.
    pub heartbeat_ticks: usize,
    /// Limits.
    pub limits: Limits,
    /// Retention.
    pub history: History,
}

impl Config {
    /// A group of one, which needs no network. Give it a peer address to let it grow.
    pub fn single(dir: impl Into<PathBuf>, id: MemberId) -> Self {
        Self::group(dir, id, BTreeMap::from([(id, "")]), None)
    }

    /// A new member of a living cluster, which must have added its peer address before.
    pub fn join(dir: impl Into<PathBuf>, join: Join, tls: Option<PeerTls>) -> Self {
        let mut config = Self::group(dir, MemberId(0), BTreeMap::<_, &str>::new(), tls);
        (config.id, config.join) = (None, Some(join));
        config
    }

    /// A member of a group, with times for a fast local network: a dead leader is replaced after
    /// 0.3 to 0.6 seconds.
    pub fn group(
        dir: impl Into<PathBuf>,
        id: MemberId,
        peers: BTreeMap<MemberId, impl ToString>,
        tls: Option<PeerTls>,
    ) -> Self {
        Self {
            dir: dir.into(),
            id: Some(id),
            cluster: None,
            founder: None,
            peers: peers.into_iter().map(|(id, address)| (id, address.to_string())).collect(),
            join: None,
            listen: None,
            tls,
            tick: Duration::from_millis(50),
            election_ticks: 6,
            heartbeat_ticks: 2,
            limits: Limits::default(),
            history: History::default(),
        }
    }

    /// The number of the cluster that the founders make, the same on each of them: derived from their ids
    /// and addresses.
    pub fn founded_cluster(&self) -> ClusterId {
        let fold = |n: u64, bytes: &[u8]| {
            bytes.iter().fold(n, |n, byte| (n ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
        };
        let member =
            |n, (id, address): (&MemberId, &String)| fold(fold(n, &id.0.to_be_bytes()), address.as_bytes());
        ClusterId(self.peers.iter().fold(0xcbf2_9ce4_8422_2325, member))
    }
}
