//! Messages between members: TCP with mutual TLS, framed and checksummed.
//!
//! - [`frame`]: the wire format.
//! - [`connection`]: opening, accepting and greeting.
//! - [`links`]: the tasks that send, which come and go with the membership.
//! - [`sender`]: one task a peer that connects, sends and connects again.
//! - [`receiver`]: the listener and one task a connection.
//! - [`join`]: how a new member finds out who it is.
//!
//! Raft tolerates loss, so nothing here waits for a slow peer: a full queue drops the message and tells
//! Raft that the peer is unreachable. Snapshots travel on connections of their own, so that heartbeats
//! never wait behind one, and their outcome is always reported.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{Config, PeerTls};
use crate::driver::Handle;
use crate::kv::MemberId;

pub mod connection;
pub mod frame;
pub mod join;
pub mod links;
pub mod receiver;
pub mod sender;

pub use links::{Link, Outbox, outbox};

/// What all peer tasks share.
#[derive(Clone)]
pub struct PeerContext {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: u64,
    id: MemberId,
    tls: Option<PeerTls>,
    handle: Handle,
    snapshots: PathBuf,
    /// Bytes a second that a snapshot takes at most.
    snapshot_rate: u64,
}

impl PeerContext {
    /// For member `id` of `cluster`.
    pub fn new(cluster: u64, id: MemberId, config: &Config, handle: Handle, snapshots: PathBuf) -> Self {
        let (tls, snapshot_rate) = (config.tls.clone(), config.limits.snapshot_bytes_per_second);
        Self { shared: Arc::new(Shared { cluster, id, tls, handle, snapshots, snapshot_rate }) }
    }
}

/// Starts the tasks that send over what `links` brings, and the listener's.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    context: &PeerContext,
    links: mpsc::Receiver<Link>,
    listener: Option<TcpListener>,
    stop: &watch::Receiver<bool>,
) {
    tasks.spawn(links::run(context.clone(), links, stop.clone()));
    if let Some(listener) = listener {
        tasks.spawn(receiver::run(context.clone(), listener, stop.clone()));
    }
}

/// Waits until the store shuts down.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the store is gone, which is as good.
    let _gone = stop.wait_for(|stop| *stop).await.is_err();
}
