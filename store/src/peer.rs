//! Messages between members: TCP with mutual TLS, framed and checksummed.
//!
//! - [`frame`]: the wire format.
//! - [`connection`]: opening, accepting and greeting.
//! - [`sender`]: one task a peer that connects, sends and connects again.
//! - [`receiver`]: the listener and one task a connection.
//!
//! Raft tolerates loss, so nothing here waits for a slow peer: a full queue drops the message and tells
//! Raft that the peer is unreachable. Snapshots travel on connections of their own, so that heartbeats
//! never wait behind one, and their outcome is always reported.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use raft::eraftpb::{Message, MessageType};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, PeerTls};
use crate::driver::Handle;
use crate::kv::MemberId;
use crate::raft::replica::Input;

pub mod connection;
pub mod frame;
pub mod receiver;
pub mod sender;

/// Messages waiting for one peer. When full, more are dropped and the peer counts as unreachable.
const PEER_QUEUE: usize = 1024;

/// Where the driver puts messages.
pub struct Outbox {
    queues: BTreeMap<MemberId, Sender<Message>>,
    failures: Vec<Input>,
}

/// The other ends of an outbox's queues.
pub type Queues = BTreeMap<MemberId, Receiver<Message>>;

/// What all peer tasks share.
#[derive(Clone)]
pub struct PeerContext {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: u64,
    id: MemberId,
    peers: BTreeMap<MemberId, SocketAddr>,
    tls: Option<PeerTls>,
    handle: Handle,
    snapshots: PathBuf,
}

impl PeerContext {
    /// For the peers of `config`.
    pub fn new(config: &Config, handle: Handle, snapshots: PathBuf) -> Self {
        let shared = Shared {
            cluster: config.cluster_number(),
            id: config.id,
            peers: config.peers.clone(),
            tls: config.tls.clone(),
            handle,
            snapshots,
        };
        Self { shared: Arc::new(shared) }
    }
}

/// An outbox with a queue for each other member.
pub fn outbox(config: &Config) -> (Outbox, Queues) {
    let others = config.peers.keys().filter(|id| **id != config.id);
    let (queues, receivers) = others
        .map(|id| {
            let (sender, receiver) = mpsc::channel(PEER_QUEUE);
            ((*id, sender), (*id, receiver))
        })
        .unzip();
    (Outbox { queues, failures: Vec::new() }, receivers)
}

impl Outbox {
    /// Puts a message into its queue, or drops it.
    pub fn send(&mut self, message: Message) {
        let to = MemberId(message.to);
        let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let sent = self.queues.get(&to).is_some_and(|queue| queue.try_send(message).is_ok());
        if !sent {
            self.failures.push(Input::Unreachable(to));
            if is_snapshot {
                self.failures.push(Input::SnapshotSent(to, false));
            }
        }
    }

    /// What couldn't be sent since the last call.
    pub fn take_failures(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.failures)
    }

    /// Ends the queues.
    pub fn close(&mut self) {
        self.queues.clear();
    }
}

/// Starts the tasks of all peers, and the listener's.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    context: &PeerContext,
    queues: Queues,
    listener: Option<TcpListener>,
    stop: &watch::Receiver<bool>,
) {
    for (peer, queue) in queues {
        tasks.spawn(sender::run(context.clone(), peer, queue, stop.clone()));
    }
    if let Some(listener) = listener {
        tasks.spawn(receiver::run(context.clone(), listener, stop.clone()));
    }
}

/// Waits until the store shuts down.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the store is gone, which is as good.
    let _gone = stop.wait_for(|stop| *stop).await.is_err();
}
