//! One client over several servers of the same cluster.
//!
//! What always holds: all requests go to the server that worked last; a request is repeated elsewhere only
//! if no connection could be opened, or if it only reads; a server that doesn't answer in time is left.
//! Servers and credentials can be replaced at any time: a request ends with those that it began with.
//! Watches that break are resumed by their informers, which then come here again.

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use parking_lot::RwLock;
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tower::{BoxError, Service};

/// How long a server may take to answer with headers.
#[derive(Debug, Clone, Copy)]
pub struct HeaderTimeout(pub Duration);

/// The tower service below a client with several servers.
#[derive(Clone)]
pub struct Failover {
    servers: Arc<RwLock<Arc<[Client]>>>,
    /// Index of the server that worked last, shared by all clones.
    current: Arc<AtomicUsize>,
    timeout: HeaderTimeout,
}

/// The server took too long; whether it acted on the request is unknown.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the API server within {0:?}")]
pub struct NoAnswer(Duration);

impl Failover {
    /// # Panics
    /// If `servers` is empty.
    pub fn new(servers: Vec<Client>, timeout: HeaderTimeout) -> Failover {
        assert!(!servers.is_empty(), "a client has at least one server");
        let servers = Arc::new(RwLock::new(servers.into()));
        Failover { servers, current: Arc::new(AtomicUsize::new(0)), timeout }
    }

    /// From the next request on, for all clones. The first is tried first.
    ///
    /// # Panics
    /// If `servers` is empty.
    pub fn replace(&self, servers: Vec<Client>) {
        assert!(!servers.is_empty(), "a client has at least one server");
        *self.servers.write() = servers.into();
        self.current.store(0, Ordering::Relaxed);
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let servers = self.servers.read().clone();
        let mut attempts = servers.len();
        loop {
            let server = self.current.load(Ordering::Relaxed) % servers.len();
            let request = Request::from_parts(parts.clone(), Body::from(body.to_vec()));
            attempts -= 1;
            match self.ask(&servers[server], request).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    self.leave(server, servers.len());
                    if attempts == 0 || !may_repeat(&parts.method, &*error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn ask(&self, server: &Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let HeaderTimeout(limit) = self.timeout;
        match tokio::time::timeout(limit, server.send(request)).await {
            Ok(response) => response.map_err(BoxError::from),
            Err(_) => Err(NoAnswer(limit).into()),
        }
    }

    /// The next request goes to the next server, unless another request has moved on already.
    fn leave(&self, server: usize, count: usize) {
        let next = (server + 1) % count;
        let _ = self.current.compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Service<Request<Body>> for Failover {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

fn may_repeat(method: &Method, error: &(dyn Error + 'static)) -> bool {
    method.is_safe() || is_connect(error)
}

/// True if the request can't have reached the server, since there was no connection.
fn is_connect(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
            return true;
        }
        cause = error.source();
    }
    false
}
