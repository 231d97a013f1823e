//! What the etcd face of a member is told at start. Every limit has a value.

use std::sync::Arc;
use std::time::Duration;

/// How a member serves etcd's clients.
#[derive(Clone)]
pub struct Config {
    /// Identity and client authentication; `None` serves in clear text.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether members talk to each other by TLS: the scheme of the peer URLs that clients are told.
    pub peer_tls: bool,
    /// Sizes and times.
    pub limits: Limits,
}

impl Config {
    /// Clear text with the default limits.
    pub fn plain() -> Self {
        Self { tls: None, peer_tls: false, limits: Limits::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::plain()
    }
}

/// Sizes and times beyond which calls are refused or connections end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest write in bytes (etcd's `--max-request-bytes`).
    pub max_request_bytes: usize,
    /// Most comparisons, and most operations of one branch, in a transaction (etcd's `--max-txn-ops`).
    pub max_txn_ops: usize,
    /// Connections at once; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// Calls at once on a connection; a client waits before it starts more.
    pub max_concurrent_streams: u32,
    /// Bytes a client may send on a stream before we have read them.
    pub stream_window: u32,
    /// Bytes a client may send on a connection before we have read them.
    pub connection_window: u32,
    /// How long a TLS handshake and HTTP/2 preface may take.
    pub handshake_timeout: Duration,
    /// An idle connection is asked for a sign of life this often.
    pub keep_alive_interval: Duration,
    /// A connection that gives none for this long ends.
    pub keep_alive_timeout: Duration,
    /// How long open calls may take to end when the server stops.
    pub drain_timeout: Duration,
    /// How often a watch with `progress_notify` and no events hears how far it is.
    pub progress_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: 1536 << 10,
            max_txn_ops: 128,
            max_connections: 16_384,
            max_concurrent_streams: 16_384,
            stream_window: 256 << 10,
            connection_window: 4 << 20,
            handshake_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(3),
            progress_interval: Duration::from_secs(600),
        }
    }
}
