//! Accepts connections, and converses on those that are upgraded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::server::answer::{Served, answer};
use crate::server::auth::Caller;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// A client of HTTP/2 that is silent for so long is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long its answer may take.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(15);
/// A connection that is silent for so long is asked by the kernel whether anybody is there, as upstream's are.
const PROBED_AFTER: Duration = Duration::from_secs(3 * 60);

/// How long a client may hold a connection without asking for anything.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the TLS handshake is done.
    pub handshake: Duration,
    /// Until the head of a request is here, the first or the next.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // As upstream's for idle connections: longer than most scrapers' pauses.
        Self { handshake: Duration::from_secs(10), request: Duration::from_secs(90) }
    }
}

/// What goes on over the connection once a request has upgraded it.
pub type Slot = Arc<Mutex<Option<BoxFuture<'static, ()>>>>;

/// Serves until asked to stop; open connections are closed then, since a followed log never ends.
pub async fn serve(listener: TcpListener, served: Served, patience: Patience, shutdown: Shutdown) {
    let served = Arc::new(served);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(served.clone(), stream, patience))),
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

async fn converse(served: Arc<Served>, stream: TcpStream, patience: Patience) {
    let acceptor = TlsAcceptor::from(served.tls.config.clone());
    // Only a matter of latency.
    let _ = stream.set_nodelay(true);
    // Without, a peer that is gone is noticed by the next write.
    let probing = socket2::TcpKeepalive::new().with_time(PROBED_AFTER);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&probing);
    let Ok(Ok(stream)) = tokio::time::timeout(patience.handshake, acceptor.accept(stream)).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let caller = certificates.and_then(|chain| chain.first()).and_then(Caller::of);
    let (slot, asked) = (Slot::default(), Notify::new());
    let service = service_fn(|request| {
        asked.notify_one();
        let (served, caller, slot) = (served.clone(), caller.clone(), slot.clone());
        async move { Ok::<_, Infallible>(answer(&served, caller.as_ref(), request, &slot).await) }
    });
    let builder = http_builder(patience);
    tokio::select! {
        ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), service) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the node's API broke");
            }
        }
        () = silence(&asked, patience.request) => return,
    }
    // The task of the connection owns what follows, so that it ends with the server.
    let conversation = slot.lock().take();
    if let Some(conversation) = conversation {
        conversation.await;
    }
}

fn http_builder(patience: Patience) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.request);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    builder
}

/// Returns if nothing is asked for so long. The limit on headers begins when the version of HTTP is known, so who
/// doesn't say even that would be waited for for ever.
async fn silence(asked: &Notify, limit: Duration) {
    if tokio::time::timeout(limit, asked.notified()).await.is_ok() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::agent::http_get::UNVERIFIED;
    use crate::config::LogLimits;
    use crate::runtime::Runtime;
    use crate::runtime::fake::{FakeRuntime, FakeScript};
    use crate::server::auth::{Act, Gate, Reviewer};
    use crate::server::{LogSource, Shown, Tls, asker, testing};
    use crate::stats::{Operations, Sampler};

    struct Nobody;

    #[async_trait]
    impl Reviewer for Nobody {
        async fn whose(&self, _: &str) -> Result<Option<Caller>, kube::Error> {
            Ok(None)
        }

        async fn may(&self, _: &Caller, _: &Act, _: &str) -> Result<bool, kube::Error> {
            Ok(false)
        }
    }

    fn served() -> Served {
        let runtime: Arc<dyn Runtime> = Arc::new(FakeRuntime::new(FakeScript::default()));
        Served {
            tls: Tls { config: Arc::new(testing::config()), shown: Shown::default() },
            gate: Gate::new("n1", Nobody),
            logs: LogSource { data_dir: "/nowhere".into(), limits: LogLimits::default() },
            asker: asker().0,
            sampler: Sampler::new(runtime.clone()),
            operations: Operations::default(),
            runtime,
            node: "n1".to_owned(),
        }
    }

    /// Whoever has come through the handshake may have no certificate and no intention to ask for anything; such
    /// connections would keep the API server out.
    #[tokio::test]
    async fn who_asks_for_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address");
        let patience = Patience { request: Duration::from_millis(50), ..Patience::default() };
        let (_stop, shutdown) = client::shutdown::channel();
        let serving = tokio::spawn(serve(listener, served(), patience, shutdown));
        for said in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let stream = TcpStream::connect(address).await.expect("connected");
            let name = ServerName::from(address.ip());
            let mut silent = UNVERIFIED.connect(name, stream).await.expect("TLS");
            // It may have been let go before.
            let _ = silent.write_all(said.as_bytes()).await;
            let rest =
                tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut Vec::new())).await;
            assert!(rest.is_ok(), "the server hangs up after {said:?}");
        }
        serving.abort();
    }
}
