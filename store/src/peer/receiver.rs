//! The listener for other members, and one task a connection.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft::eraftpb::Message;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{self, Connection};
use super::frame::{self, Frame, Hello};
use super::{PeerContext, stopped};
use crate::failpoint::failpoint;
use crate::kv::MemberId;
use crate::raft::replica::Input;

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
    if message.to != context.shared.id.0 {
        return Err(io::Error::other(format!("a message for member {}", message.to)));
    }
    context.shared.handle.notify(Input::Message(message));
    Ok(())
}

/// Stores a snapshot in a file and hands its message over, naming that file.
async fn receive_snapshot(
    context: &PeerContext,
    peer: MemberId,
    connection: &mut BufReader<Connection>,
    mut message: Message,
) -> io::Result<()> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("in-{peer}-{}-{number}.snap", message.get_snapshot().get_metadata().index);
    let path = context.shared.snapshots.join(&name);
    failpoint!("snapshot_before_receive");
    if let Err(error) = store_chunks(connection, &path).await {
        // A torn file is worthless; if it can't be removed now, the next start does it.
        let _left = tokio::fs::remove_file(&path).await;
        return Err(error);
    }
    failpoint!("snapshot_after_receive");
    message.mut_snapshot().data = name.into_bytes().into();
    hand_over(context, message)
}

async fn store_chunks(connection: &mut BufReader<Connection>, path: &Path) -> io::Result<()> {
    let mut file = tokio::fs::File::create(path).await?;
    loop {
        failpoint!("snapshot_mid_receive");
        match frame::read(connection).await? {
            Frame::SnapshotChunk(chunk) => file.write_all(&chunk).await?,
            Frame::SnapshotEnd => break,
            frame => return Err(io::Error::other(format!("{frame:?} inside a snapshot"))),
        }
    }
    file.flush().await?;
    file.sync_all().await?;
    // The installation's marker names the file: after a power cut the name must be there too.
    let folder = path.parent().unwrap_or(Path::new("."));
    tokio::fs::File::open(folder).await?.sync_all().await
}
