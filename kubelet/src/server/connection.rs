//! Accepts connections, and converses on those that are upgraded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::server::answer::{Served, answer};
use crate::server::auth::Caller;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 512;

/// What goes on over the connection once a request has upgraded it.
pub type Slot = Arc<Mutex<Option<BoxFuture<'static, ()>>>>;

/// Serves until asked to stop; open connections are closed then, since a followed log never ends.
pub async fn serve(listener: TcpListener, served: Served, shutdown: Shutdown) {
    let served = Arc::new(served);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(served.clone(), stream))),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    // Out of descriptors: wait for one to be given back instead of spinning.
                    connections.join_next().await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn converse(served: Arc<Served>, stream: TcpStream) {
    let acceptor = TlsAcceptor::from(served.tls.config.clone());
    // Only a matter of latency.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let certificates = stream.get_ref().1.peer_certificates();
    let caller = certificates.and_then(|chain| chain.first()).and_then(Caller::of);
    let slot = Slot::default();
    let upgraded = slot.clone();
    let service = service_fn(move |request| {
        let (served, caller, slot) = (served.clone(), caller.clone(), slot.clone());
        async move { Ok::<_, Infallible>(answer(&served, caller.as_ref(), request, &slot).await) }
    });
    let connection = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = connection.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the node's API broke");
    }
    // The task of the connection owns what follows, so that it ends with the server.
    let conversation = upgraded.lock().take();
    if let Some(conversation) = conversation {
        conversation.await;
    }
}
