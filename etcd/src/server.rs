//! The listener: accepts connections, takes TLS off them, and ends them when the server stops.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::authority::Lenient;
use crate::caller::common_name;
use crate::config::Config;
use crate::connection;
use crate::http1;
use crate::member::Member;

/// How long to wait after the system refused a connection (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// HTTP/1.1's name in TLS.
const HTTP1: &[u8] = b"http/1.1";

/// Serves etcd's API from `store` on `listener` until `stop` becomes true (or its sender is dropped), and
/// returns when all connections have ended.
///
/// # Errors
/// If the listener is not usable.
pub async fn serve(
    store: Store,
    config: Config,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let tls = config.tls.as_deref().map(acceptor);
    let places = Arc::new(Semaphore::new(config.limits.max_connections));
    let member = Arc::new(Member::new(store, &config, stop.clone()));
    tracing::info!(address = %listener.local_addr()?, tls = tls.is_some(), "serving etcd clients");
    let mut connections = JoinSet::new();
    let counting = member.clone();
    connections.spawn(async move { counting.count_leaders().await });
    loop {
        let place = places.clone().acquire_owned();
        let accepted = tokio::select! {
            accepted = async { (place.await, listener.accept().await) } => accepted,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
            _stopped_or_dropped = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            (Ok(place), Ok((socket, _))) => {
                let (member, tls) = (member.clone(), tls.clone());
                connections.spawn(async move {
                    serve_socket(member, tls, socket).await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => unreachable!("nobody closes the semaphore"),
        }
    }
    drain(connections, config.limits.drain_timeout).await;
    Ok(())
}

/// Connections end by themselves once the server stops; one that doesn't in time is cut.
async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let ended = tokio::time::timeout(patience * 2, async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    });
    if ended.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections of etcd clients are cut");
        connections.shutdown().await;
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of an etcd client ended by a panic");
    }
}

/// HTTP/2 for gRPC; whoever can't, gets the answers for monitors.
fn acceptor(config: &rustls::ServerConfig) -> TlsAcceptor {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), HTTP1.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve_socket(member: Arc<Member>, tls: Option<TlsAcceptor>, socket: TcpStream) {
    let peer = socket.peer_addr();
    // Answers are small and complete when they are written: never wait for more to fill a packet.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, ?peer, "a connection ended before it began");
        return;
    }
    let ended = match tls {
        None => serve_plain(member, socket).await,
        Some(tls) => serve_tls(member, &tls, socket).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ?peer, "a connection of an etcd client ended");
    }
}

async fn serve_plain(member: Arc<Member>, socket: TcpStream) -> io::Result<()> {
    if http1::begins(&member, &socket).await? {
        return http1::serve(member, socket).await;
    }
    connection::serve(member, Lenient::new(socket), String::new()).await
}

async fn serve_tls(member: Arc<Member>, tls: &TlsAcceptor, socket: TcpStream) -> io::Result<()> {
    let handshake = tokio::time::timeout(member.limits.handshake_timeout, tls.accept(socket));
    let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if stream.get_ref().1.alpn_protocol() == Some(HTTP1) {
        return http1::serve(member, stream).await;
    }
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let user = certificate.map(|certificate| common_name(certificate)).unwrap_or_default();
    connection::serve(member, Lenient::new(stream), user).await
}
