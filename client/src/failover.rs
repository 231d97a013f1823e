//! One client over several servers of the same cluster.
//!
//! What always holds: all requests go to the server that worked last; a request is repeated elsewhere only
//! if no connection could be opened, or if it only reads; a server that doesn't answer in time is left.
//! Watches that break are resumed by their informers, which then come here again.

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
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
    servers: Arc<[Client]>,
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
        Failover { servers: servers.into(), current: Arc::new(AtomicUsize::new(0)), timeout }
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut attempts = self.servers.len();
        loop {
            let server = self.current.load(Ordering::Relaxed);
            let request = Request::from_parts(parts.clone(), Body::from(body.to_vec()));
            attempts -= 1;
            match self.ask(server, request).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    self.leave(server);
                    if attempts == 0 || !may_repeat(&parts.method, &*error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn ask(&self, server: usize, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let HeaderTimeout(limit) = self.timeout;
        match tokio::time::timeout(limit, self.servers[server].send(request)).await {
            Ok(response) => response.map_err(BoxError::from),
            Err(_) => Err(NoAnswer(limit).into()),
        }
    }

    /// The next request goes to the next server, unless another request has moved on already.
    fn leave(&self, server: usize) {
        let next = (server + 1) % self.servers.len();
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
