//! The listener: TLS, HTTP/1.1 and HTTP/2, limits, and a graceful end.
//!
//! One task accepts and owns all connections. On shutdown it stops accepting, ends the watches, lets the
//! open requests finish, and after the drain time drops what is left.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::body::{Body, BodyError};
use crate::config::Limits;
use crate::handle::ApiServer;
use crate::peer::Peer;
use crate::stall::{Patience, StallGuard};

/// A connection that is silent for so long is asked whether it lives, as upstream's are.
const KEEP_ALIVE: Duration = Duration::from_secs(3 * 60);
/// Between two such questions; the kernel gives up after nine.
const KEEP_ALIVE_RETRY: Duration = Duration::from_secs(15);
/// Pause before the next connection is accepted when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener broke.
    #[error("accept connections")]
    Accept(#[source] std::io::Error),
}

type Builder = auto::Builder<TokioExecutor>;

impl ApiServer {
    /// Serves until `shutdown` becomes true, then lets open requests finish for the configured time.
    ///
    /// # Errors
    /// If the listener fails for a reason other than a single connection's or a shortage that passes.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        let acceptor = TlsAcceptor::from(tls);
        let builder = Arc::new(http_builder(&self.config.limits));
        let slots = Arc::new(Semaphore::new(self.config.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break,
                accepted = accept(&listener, &slots) => accepted?,
                Some(_) = connections.join_next() => continue,
            };
            let Some((stream, addr, slot)) = accepted else { continue };
            let connection = Connection { server: self.clone(), builder: builder.clone(), addr };
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                connection.run(stream, acceptor).await;
                drop(slot);
            });
        }
        self.drain();
        let all_closed = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.config.limits.drain, all_closed).await.is_err() {
            tracing::info!(open = connections.len(), "closing connections that did not finish in time");
        }
        connections.shutdown().await;
        Ok(())
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, when there is room for one; `None` if it came to nothing.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Result<Option<Accepted>, ServeError> {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, addr)) => Ok(Some((stream, addr, slot))),
        Err(error) if is_of_one_connection(&error) => Ok(None),
        Err(error) if is_shortage(&error) => {
            tracing::warn!(%error, "cannot accept a connection now");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            Ok(None)
        }
        Err(error) => Err(ServeError::Accept(error)),
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn is_shortage(error: &std::io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOBUFS: i32 = 105;
    const ENOMEM: i32 = 12;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

fn http_builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_buf_size(limits.header_bytes.max(64 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(Some(100))
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(15));
    builder
}

/// Has the kernel ask a silent peer whether it is still there, so that nobody waits for one who is gone.
pub fn keep_alive(stream: &TcpStream) {
    let often = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_RETRY);
    // Without, a dead peer is noticed by the next write.
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&often);
}

struct Connection {
    server: Arc<ApiServer>,
    builder: Arc<Builder>,
    addr: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: TlsAcceptor) {
        // A small write must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        let handshake =
            tokio::time::timeout(self.server.config.limits.tls_handshake, acceptor.accept(stream));
        let Ok(Ok(stream)) = handshake.await else {
            tracing::debug!(peer = %self.addr, "no TLS handshake");
            return;
        };
        let certs: Vec<CertificateDer<'static>> =
            stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        let peer = Peer::Tls { certs, addr: self.addr };
        let stream = StallGuard::new(stream, self.server.config.limits.stall);
        let patience = stream.patience();
        if let Err(error) = serve_connection(&self.server, &self.builder, stream, patience, peer).await {
            tracing::debug!(peer = %self.addr, %error, "connection ended");
        }
    }
}

/// Serves the requests of one connection until it ends, or until the server drains and the open ones are answered.
async fn serve_connection(
    server: &Arc<ApiServer>,
    builder: &Builder,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    patience: Patience,
    peer: Peer,
) -> Result<(), BodyError> {
    let mut draining = server.draining.subscribe();
    let (server, limit) = (server.clone(), server.config.limits.headers);
    let asked = Arc::new(Notify::new());
    let heard = asked.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        heard.notify_one();
        request.extensions_mut().insert(patience.clone());
        async move { Ok::<_, Infallible>(server.handle(request.map(Body::wrap), peer).await) }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = drain_begins(&mut draining) => connection.as_mut().graceful_shutdown(),
        () = silence(&asked, limit) => return Ok(()),
    }
    connection.await
}

/// Returns if nothing is asked for so long. The limit on headers begins when the version of HTTP is known, so who
/// doesn't say even that would be waited for for ever.
async fn silence(asked: &Notify, limit: Duration) {
    if tokio::time::timeout(limit, asked.notified()).await.is_ok() {
        std::future::pending().await
    }
}

/// The door for an administrator of this machine: HTTP without TLS on a socket in the file system, which only the
/// owner of the process may open. No limit, level or role keeps anybody out who may.
pub struct AdminSocket {
    server: Arc<ApiServer>,
    listener: UnixListener,
    path: PathBuf,
}

impl ApiServer {
    /// Listens at `path`; what a crash left there is replaced.
    ///
    /// # Errors
    /// If the socket can't be made.
    pub fn admin(self: &Arc<Self>, path: &Path) -> std::io::Result<AdminSocket> {
        use std::os::unix::fs::PermissionsExt;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(AdminSocket { server: self.clone(), listener, path: path.to_owned() })
    }
}

impl AdminSocket {
    /// Serves until `shutdown` becomes true; then the socket is gone.
    pub async fn serve(self, mut shutdown: watch::Receiver<bool>) {
        let builder = Arc::new(http_builder(&self.server.config.limits));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break,
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (server, builder) = (self.server.clone(), builder.clone());
            connections.spawn(async move {
                let patience = Patience::default(); // it has no limit anyway
                if let Err(error) = serve_connection(&server, &builder, stream, patience, Peer::Admin).await {
                    tracing::debug!(%error, "admin connection ended");
                }
            });
        }
        // Its requests have had the time that the others have; the process is about to end.
        connections.shutdown().await;
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn drain_begins(draining: &mut watch::Receiver<bool>) {
    // The sender lives in the server, which the connection holds.
    let _ = draining.wait_for(|draining| *draining).await;
}
