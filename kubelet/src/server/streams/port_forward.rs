//! Drives port-forward: a client's connections on one side, the pod's ports on the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use streaming::port_forward::{Codec, ConnectionId, Event};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::pod::PodRef;
use crate::runtime::{ByteStream, RuntimeError};
use crate::server::streams::IDLE;
use crate::wire::{self, Wire};

/// One read from a port, in bytes.
const READ_SIZE: usize = 32 << 10;
/// Pieces that wait for one port. When it is full, the client waits, with all its connections: there is no
/// way to hold back one of them.
const PIECES: usize = 64;

/// Connects to a port of the pod.
pub type Dial =
    Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn ByteStream>, RuntimeError>> + Send + Sync>;

/// What one connection's task needs.
struct Connection<S> {
    wire: Arc<Wire<Codec, S>>,
    id: ConnectionId,
    port: u16,
    pod: PodRef,
    /// Closed when the client sends no more.
    pieces: mpsc::Receiver<Bytes>,
}

/// The connections that are open.
struct Forwarding<S> {
    wire: Arc<Wire<Codec, S>>,
    pod: PodRef,
    dial: Dial,
    senders: BTreeMap<ConnectionId, mpsc::Sender<Bytes>>,
    aborts: BTreeMap<ConnectionId, tokio::task::AbortHandle>,
    tasks: JoinSet<ConnectionId>,
}

/// Forwards connections until the client is gone, or is silent for too long.
pub async fn forward<S>(stream: S, codec: Codec, pod: PodRef, dial: Dial)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (wire, mut incoming) = wire::open(codec, stream);
    let wire = Arc::new(wire);
    if wire.send(|codec, out| codec.begun(out)).await.is_err() {
        return;
    }
    let (senders, aborts) = Default::default();
    let forwarding = Forwarding { wire: wire.clone(), pod, dial, senders, aborts, tasks: JoinSet::new() };
    let (sender, events) = mpsc::channel(1);
    let listen = async {
        while let Some(event) = incoming.next(&wire).await {
            if sender.send(event).await.is_err() {
                break;
            }
        }
    };
    let in_order = tokio::select! {
        in_order = forwarding.run(events) => in_order,
        () = listen => false,
        () = wire.idle(IDLE) => true,
    };
    if in_order {
        wire.farewell(&mut incoming, |codec, out| codec.end(out)).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Forwarding<S> {
    /// True if it is we who end.
    async fn run(mut self, mut events: mpsc::Receiver<Event>) -> bool {
        let ends_with_connections = self.wire.with(|codec| codec.ends_with_connections());
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    None | Some(Event::End) => return false,
                    Some(event) => self.take(event).await,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Ok(id) = ended {
                        self.forget(id);
                    }
                    if ends_with_connections && self.tasks.is_empty() {
                        return true;
                    }
                }
            }
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Connect(id, port) => self.connect(id, port),
            Event::Data(id, bytes) => {
                if let Some(sender) = self.senders.get(&id) {
                    // A port that takes no more has ended its connection, or is about to.
                    let _ = sender.send(bytes).await;
                }
            }
            Event::Finished(id) => drop(self.senders.remove(&id)),
            Event::Dropped(id) => self.forget(id),
            Event::End => {}
        }
    }

    fn connect(&mut self, id: ConnectionId, port: u16) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let connection = Connection { wire: self.wire.clone(), id, port, pod: self.pod.clone(), pieces };
        let dialling = (self.dial)(port);
        self.senders.insert(id, sender);
        self.aborts.insert(id, self.tasks.spawn(connection.run(dialling)));
    }

    fn forget(&mut self, id: ConnectionId) {
        self.senders.remove(&id);
        if let Some(task) = self.aborts.remove(&id) {
            task.abort();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send> Connection<S> {
    async fn run(
        self,
        dialling: BoxFuture<'static, Result<Box<dyn ByteStream>, RuntimeError>>,
    ) -> ConnectionId {
        let Self { wire, id, port, pod, pieces } = self;
        let failed = match dialling.await {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                tokio::select! {
                    () = send_all(&wire, id, reader) => {}
                    // Ends only with the connection.
                    () = write_all(pieces, writer) => {}
                }
                None
            }
            Err(error) => Some(format!(
                "error forwarding port {port} to pod {}/{}, uid {}: {}",
                pod.namespace,
                pod.name,
                pod.uid,
                error.chain()
            )),
        };
        // A client that is gone is seen by who listens to it.
        let _ = wire.send(|codec, out| codec.finish(id, failed.as_deref(), out)).await;
        id
    }
}

/// From the port to the client, until the port has said everything.
async fn send_all<S: AsyncRead + AsyncWrite>(
    wire: &Wire<Codec, S>,
    id: ConnectionId,
    mut from: impl AsyncRead + Unpin,
) {
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if wire.send(|codec, out| codec.send(id, &buffer[..read], out)).await.is_err() {
            return;
        }
    }
}

/// From the client to the port. After its last piece the port may still answer, so this waits on.
async fn write_all(mut pieces: mpsc::Receiver<Bytes>, mut to: WriteHalf<Box<dyn ByteStream>>) {
    while let Some(bytes) = pieces.recv().await {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            // What it has said before is still read.
            break;
        }
    }
    let _ = to.shutdown().await;
    std::future::pending().await
}
