//! One task a peer: connects, sends what is queued in as few writes as possible, and connects again
//! with growing pauses.

use std::io;
use std::time::Duration;

use raft::eraftpb::{Message, MessageType};
use tokio::io::{AsyncRead, AsyncWriteExt, BufWriter};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{self, Connection};
use super::frame::{self, Frame};
use super::{Link, PeerContext, stopped};
use crate::failpoint::failpoint;
use crate::kv::MemberId;
use crate::membership::Membership;
use crate::raft::replica::Input;

/// Messages sent with one flush.
const FLUSH_MESSAGES: usize = 128;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A step of delivering a snapshot (a block, or the receiver's last sync) must take no longer.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends what comes into `queue` until the store shuts down.
pub async fn run(context: PeerContext, link: Link, mut stop: watch::Receiver<bool>) {
    let mut sender = Sender { context, link, snapshots: JoinSet::new() };
    tokio::select! {
        () = sender.keep_sending() => {}
        () = stopped(&mut stop) => {}
    }
    // The link has ended: what is on its way is still reported, or Raft would wait for it for ever.
    tokio::select! {
        () = async { while sender.snapshots.join_next().await.is_some() {} } => {}
        () = stopped(&mut stop) => {}
    }
    sender.snapshots.shutdown().await;
}

struct Sender {
    context: PeerContext,
    link: Link,
    /// Snapshots on their way, on connections of their own.
    snapshots: JoinSet<()>,
}

impl Sender {
    async fn keep_sending(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match connection::call(&self.context, self.link.peer, &self.link.address).await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    match self.send_over(connection).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            tracing::debug!(peer = %self.link.peer, %error, "no connection to a member");
            self.context.shared.handle.notify(Input::Unreachable(self.link.peer));
            self.discard().await;
            if self.link.queue.is_closed() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What was queued for a peer that can't be reached is out of date when it can.
    async fn discard(&mut self) {
        while let Ok(message) = self.link.queue.try_recv() {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.context.shared.handle.deliver(Input::SnapshotSent(self.link.peer, false)).await;
            }
        }
    }

    /// The peer has ended the connection, perhaps with a reason.
    fn understand(&self, last_word: io::Result<Frame>) -> io::Error {
        match last_word {
            Ok(Frame::Refused(refused)) => {
                if let Some(members) = &refused.removed {
                    self.is_removed(members);
                }
                io::Error::other(refused.why)
            }
            Ok(frame) => io::Error::other(format!("unexpected {frame:?}")),
            Err(error) => error,
        }
    }

    /// The peer says that this member is removed. Others who have come since must say so, too, and are called.
    fn is_removed(&self, members: &Membership) {
        let handle = &self.context.shared.handle;
        for member in members.members() {
            handle.answer(member.id, member.peer_address.clone());
        }
        handle.notify(Input::Removed { by: self.link.peer, voters: members.voters() });
    }

    /// Sends until the queue ends.
    async fn send_over(&mut self, connection: Connection) -> io::Result<()> {
        let (input, output) = tokio::io::split(connection);
        // The peer never sends on this connection but to say why it ends it.
        let last_word = listen(input);
        tokio::pin!(last_word);
        let mut output = BufWriter::with_capacity(64 << 10, output);
        let mut messages = Vec::with_capacity(FLUSH_MESSAGES);
        loop {
            tokio::select! {
                count = self.link.queue.recv_many(&mut messages, FLUSH_MESSAGES) => {
                    if count == 0 { return Ok(()) }
                }
                error = &mut last_word => return Err(self.understand(error)),
            }
            for message in messages.drain(..) {
                if message.get_msg_type() == MessageType::MsgSnapshot {
                    let (peer, address) = (self.link.peer, self.link.address.clone());
                    self.snapshots.spawn(deliver(self.context.clone(), peer, address, message));
                } else {
                    frame::write(&mut output, &Frame::Raft(message)).await?;
                }
            }
            failpoint!("peer_before_flush");
            output.flush().await?;
            while self.snapshots.try_join_next().is_some() {}
        }
    }
}

/// Waits for the peer's last word on a connection.
async fn listen(mut input: impl AsyncRead + Unpin) -> io::Result<Frame> {
    frame::read(&mut input).await
}

/// Delivers a snapshot and reports the outcome, whatever it is.
async fn deliver(context: PeerContext, peer: MemberId, address: String, message: Message) {
    let result = send_snapshot(&context, peer, &address, message).await;
    if let Err(error) = &result {
        tracing::warn!(%peer, %error, "a snapshot couldn't be delivered; it is tried again");
    }
    context.shared.handle.deliver(Input::SnapshotSent(peer, result.is_ok())).await;
}

async fn send_snapshot(
    context: &PeerContext,
    peer: MemberId,
    address: &str,
    message: Message,
) -> io::Result<()> {
    let name = String::from_utf8_lossy(&message.get_snapshot().data).into_owned();
    let offered = context.shared.handle.shared.offers.open(&name);
    let mut blocks = offered.ok_or_else(|| io::Error::other("a newer one has replaced it"))?;
    let mut connection = connection::call(context, peer, address).await?;
    failpoint!("snapshot_before_send");
    let mut pace = Pace::new(context.shared.snapshot_rate);
    in_time(frame::write(&mut connection, &Frame::SnapshotBegin(message))).await?;
    while let Some(block) = blocks.recv().await {
        let block = block.map_err(io::Error::other)?;
        failpoint!("snapshot_mid_send");
        pace.keep(block.len()).await;
        in_time(frame::write(&mut connection, &Frame::SnapshotChunk(block))).await?;
    }
    in_time(connection::say(&mut connection, &Frame::SnapshotEnd)).await?;
    failpoint!("snapshot_after_send");
    match in_time(frame::read(&mut connection)).await? {
        Frame::SnapshotStored => Ok(()),
        _ => Err(io::Error::other("the member didn't confirm it")),
    }
}

/// A step of a delivery that takes too long has failed: the follower hears nothing else before the outcome.
async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL_TIMEOUT, step).await?
}

/// Holds a delivery to a rate, so that it leaves room for everything else on the disk and the wire.
struct Pace {
    begun: Instant,
    bytes: u64,
    rate: u64,
}

impl Pace {
    /// At most `rate` bytes a second, from now on.
    fn new(rate: u64) -> Self {
        Self { begun: Instant::now(), bytes: 0, rate: rate.max(1) }
    }

    /// Waits until `bytes` more are in the rate.
    async fn keep(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let due = Duration::from_micros(self.bytes.saturating_mul(1_000_000) / self.rate);
        tokio::time::sleep_until(self.begun + due).await;
    }
}
