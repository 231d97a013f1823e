//! What an API server is told at its start. Parsed once; nothing below reads the environment.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use api::cidr::Cidr;

use crate::audit::AuditConfig;
use crate::auth::oidc::Oidc;
use crate::auth::{AccountPolicy, TokenTable};
use crate::members::Group;
use crate::pki::Pki;

/// What an API server is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sizes and times that protect the server.
    pub limits: Limits,
    /// How long a pod tolerates a node that is not ready or unreachable, unless it says otherwise (300 upstream).
    pub default_toleration_seconds: i64,
    /// How long an Event is kept.
    pub event_ttl: Duration,
    /// The cluster's certificate authority.
    pub pki: Arc<Pki>,
    /// Bearer tokens that are known without a lookup, as digests, and whose they are.
    pub static_tokens: TokenTable,
    /// What service-account tokens say of this cluster.
    pub account_tokens: AccountPolicy,
    /// Where requests are recorded, if they are.
    pub audit: Option<AuditConfig>,
    /// An OpenID Connect provider whose tokens are believed.
    pub provider: Option<Arc<Oidc>>,
    /// Where the cluster IPs of Services come from.
    pub service_range: Cidr,
    /// Where the node ports of Services come from.
    pub node_ports: RangeInclusive<u16>,
    /// Where this server is reached; the Endpoints of Service `default/kubernetes` name it.
    pub advertise: Option<std::net::SocketAddr>,
    /// Whether pods with addresses of the loopback may be reached through the `proxy` subresources: only where all
    /// nodes are this machine is it theirs, and not the server's own.
    pub proxy_loopback: bool,
    /// Whose store the server is on, if it is our own.
    pub members: Option<Group>,
}

impl Config {
    /// Where the cluster IPs of Services come from unless something else is said: as kubeadm has it.
    pub const SERVICE_RANGE: Cidr = Cidr::v4([10, 96, 0, 0], 12);

    /// The configuration of a cluster that was asked nothing.
    pub fn new(pki: Arc<Pki>) -> Self {
        Self {
            limits: Limits::default(),
            default_toleration_seconds: 300,
            event_ttl: Duration::from_secs(3600),
            pki,
            static_tokens: TokenTable::default(),
            account_tokens: AccountPolicy::default(),
            provider: None,
            audit: None,
            service_range: Self::SERVICE_RANGE,
            node_ports: 30_000..=32_767,
            advertise: None,
            proxy_loopback: false,
            members: None,
        }
    }
}

/// Every size, count and time that bounds what a client can make the server do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request body in bytes; beyond it 413.
    pub body_bytes: usize,
    /// Largest stored object in bytes; beyond it 413.
    pub object_bytes: usize,
    /// Requests served at once, shared by the priority levels (upstream: 400 reads and 200 writes).
    pub seats: u32,
    /// How long a request may wait for a seat (upstream: a quarter of a request's time).
    pub queue_wait: Duration,
    /// Requests that one user may have open at once.
    pub requests_per_user: usize,
    /// Watches and logs that one user may have open at once.
    pub watches_per_user: usize,
    /// How long a client may take to send a body.
    pub body: Duration,
    /// How long a client may take none of what is sent to it, before it is cut off.
    pub stall: Duration,
    /// How long a request other than a watch may take.
    pub request: Duration,
    /// How long a client may take to complete the TLS handshake.
    pub tls_handshake: Duration,
    /// How long a client may take to send a request's headers.
    pub headers: Duration,
    /// Largest header block in bytes.
    pub header_bytes: usize,
    /// Open connections; the next ones wait in the listener's backlog.
    pub connections: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// How long open requests may go on after a shutdown was asked for.
    pub drain: Duration,
    /// Shortest life of a watch that doesn't say how long; the actual one is random up to twice this.
    pub watch_min: Duration,
    /// Time between bookmarks on a watch that asked for them.
    pub bookmark: Duration,
    /// Changes kept in memory per resource, for watches that start in the recent past.
    pub watch_history_events: usize,
    /// Bytes of changes kept in memory per resource.
    pub watch_history_bytes: usize,
    /// How long a read may wait for this member to reach a revision the client has already seen.
    pub freshness: Duration,
    /// How often a patch is tried again after somebody else's write.
    pub patch_tries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 3 << 20,
            object_bytes: 3 << 19,
            seats: 600,
            queue_wait: Duration::from_secs(15),
            requests_per_user: 1000,
            watches_per_user: 5000,
            body: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            request: Duration::from_secs(60),
            tls_handshake: Duration::from_secs(10),
            headers: Duration::from_secs(32),
            header_bytes: 1 << 20,
            connections: 20_000,
            streams_per_connection: 250,
            drain: Duration::from_secs(5),
            watch_min: Duration::from_secs(30 * 60),
            bookmark: Duration::from_secs(60),
            watch_history_events: 4096,
            watch_history_bytes: 16 << 20,
            freshness: Duration::from_secs(3),
            patch_tries: 5,
        }
    }
}
