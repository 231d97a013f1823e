//! The API server as a tower service: a client in the same process needs no socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::auth::Identity;
use crate::body::{Body, BodyError};
use crate::handle::ApiServer;
use crate::peer::Peer;

/// Calls the server as one identity. Cheap to clone; usable for `kube::Client::new`.
#[derive(Clone)]
pub struct InProcess {
    server: Arc<ApiServer>,
    identity: Identity,
}

impl InProcess {
    pub(crate) fn new(server: Arc<ApiServer>, identity: Identity) -> Self {
        Self { server, identity }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, peer) = (self.server.clone(), Peer::InProcess(self.identity.clone()));
        async move { Ok(server.handle(request.map(Body::wrap), peer).await) }.boxed()
    }
}
