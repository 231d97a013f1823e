//! The listener for other members, and one task a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Message;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::connection::{self, Connection};
use super::frame::{self, Frame, Hello};
use super::{PeerContext, stopped};
use crate::failpoint::failpoint;
use crate::kv::MemberId;
use crate::raft::replica::Input;
use crate::snapshot::incoming::{self, Arriving, Unstored};

/// Blocks of a snapshot waiting to be written. When full, the sender waits.
const WAITING_BLOCKS: usize = 4;
/// A snapshot of which nothing comes for so long has ended.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; more wait to be accepted, so strangers can't exhaust memory.
const CONNECTIONS: usize = 64;

/// Accepts connections until the store shuts down.
pub async fn run(context: PeerContext, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept_all(&context, &listener, &places, &mut connections) => {}
        () = stopped(&mut stop) => {}
    }
    connections.shutdown().await;
}

async fn accept_all(
    context: &PeerContext,
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
) {
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(serve(context.clone(), stream, place))),
            // Out of file descriptors or the like: the next connection that ends makes room.
            Err(error) => {
                tracing::warn!(%error, "a member's connection couldn't be accepted");
                tokio::task::yield_now().await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(context: PeerContext, stream: TcpStream, _place: OwnedSemaphorePermit) {
    let error = match connection::accept(&context, stream).await {
        Ok(None) => return,
        Ok(Some((hello, connection))) => {
            let Err(error) = receive(&context, hello, connection).await;
            error
        }
        Err(error) => error,
    };
    if error.kind() == io::ErrorKind::UnexpectedEof {
        tracing::debug!(%error, "a member's connection ended");
    } else {
        tracing::warn!(%error, "a member's connection was ended");
    }
}

/// Takes what a peer sends until the connection ends, and tells Raft when the one that carried its
/// messages does: often the first sign that the peer's process died.
async fn receive(
    context: &PeerContext,
    hello: Hello,
    connection: Connection,
) -> io::Result<std::convert::Infallible> {
    let peer = hello.from;
    if context.shared.handle.shared.membership().get(peer).is_none() {
        context.shared.handle.answer(peer, hello.address);
    }
    let mut carried_messages = false;
    let end = receive_frames(context, peer, connection, &mut carried_messages).await;
    if carried_messages {
        context.shared.handle.notify(Input::Disconnected(peer));
    }
    end
}

async fn receive_frames(
    context: &PeerContext,
    peer: MemberId,
    connection: Connection,
    carried_messages: &mut bool,
) -> io::Result<std::convert::Infallible> {
    let mut connection = BufReader::with_capacity(64 << 10, connection);
    loop {
        let frame = frame::read(&mut connection).await?;
        if let Err(refused) = connection::check_not_removed(context, peer) {
            return connection::refuse(connection.get_mut(), refused).await;
        }
        *carried_messages |= matches!(frame, Frame::Raft(_));
        match frame {
            Frame::Raft(message) => hand_over(context, message)?,
            Frame::SnapshotBegin(message) => {
                receive_snapshot(context, peer, &mut connection, message).await?;
                frame::write(&mut connection, &Frame::SnapshotStored).await?;
                connection.flush().await?;
            }
            frame => return Err(io::Error::other(format!("member {peer} sent {frame:?} out of turn"))),
        }
    }
}

fn hand_over(context: &PeerContext, message: Message) -> io::Result<()> {
    check_addressee(context, &message)?;
    context.shared.handle.notify(Input::Message(message));
    Ok(())
}

/// Stores a snapshot beside the database and hands its message over, naming the directory.
async fn receive_snapshot(
    context: &PeerContext,
    peer: MemberId,
    connection: &mut BufReader<Connection>,
    mut message: Message,
) -> io::Result<()> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    check_addressee(context, &message)?;
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("in-{peer}-{}-{number}", message.get_snapshot().get_metadata().index);
    let dir = context.shared.snapshots.join(&name);
    failpoint!("snapshot_before_receive");
    let (blocks, arriving) = mpsc::channel(WAITING_BLOCKS);
    let target = dir.clone();
    let storing = tokio::task::spawn_blocking(move || incoming::store(&target, Arriving::new(arriving)));
    let received = receive_blocks(connection, blocks).await;
    let stored = storing.await.map_err(io::Error::other)?;
    let stored = stored.map_err(|unstored| give_up(context, unstored));
    if let Err(error) = received.and(stored) {
        // Half of a snapshot is worthless.
        let _removed = tokio::task::spawn_blocking(move || incoming::remove(&dir)).await;
        return Err(error);
    }
    failpoint!("snapshot_after_receive");
    message.mut_snapshot().data = name.into_bytes().into();
    context.shared.handle.deliver(Input::Message(message)).await;
    Ok(())
}

/// A disk that fails here fails the member: it would be offered the snapshot again and again, and what else it
/// has written may be as little there.
fn give_up(context: &PeerContext, unstored: Unstored) -> io::Error {
    match unstored {
        Unstored::Disk(error) if !error.is_no_space() => {
            let failed = io::Error::other(error.to_string());
            context.shared.handle.notify(Input::DiskFailed(error));
            failed
        }
        unstored => io::Error::other(unstored),
    }
}

/// Passes blocks on as they come; the writer checks them, and its end ends this.
async fn receive_blocks(
    connection: &mut BufReader<Connection>,
    blocks: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    loop {
        failpoint!("snapshot_mid_receive");
        let frame = tokio::time::timeout(STALL_TIMEOUT, frame::read(connection)).await??;
        match frame {
            Frame::SnapshotChunk(block) => {
                // The writer is gone: its own error says why.
                if blocks.send(block).await.is_err() {
                    return Ok(());
                }
            }
            Frame::SnapshotEnd => return Ok(()),
            frame => return Err(io::Error::other(format!("{frame:?} inside a snapshot"))),
        }
    }
}

fn check_addressee(context: &PeerContext, message: &Message) -> io::Result<()> {
    if message.to == context.shared.id.0 {
        return Ok(());
    }
    Err(io::Error::other(format!("a message for member {}", message.to)))
}
