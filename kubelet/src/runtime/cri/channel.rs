//! gRPC to a runtime's socket: HTTP/2 over a Unix socket, connected anew when the runtime was restarted.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request, Response, Uri};

/// What gRPC stubs call through. Clones share one connection.
#[derive(Clone)]
pub struct Channel {
    socket: Arc<PathBuf>,
    open: Arc<Mutex<Option<SendRequest<Body>>>>,
}

impl Channel {
    /// To this socket, connected when it is needed first.
    pub fn new(socket: &Path) -> Self {
        Self { socket: Arc::new(socket.to_owned()), open: Arc::default() }
    }

    /// The connection that is there, or a new one if it has ended.
    async fn connection(&self) -> io::Result<SendRequest<Body>> {
        let mut open = self.open.lock().await;
        if let Some(requests) = open.as_ref().filter(|requests| !requests.is_closed()) {
            return Ok(requests.clone());
        }
        let stream = UnixStream::connect(&*self.socket).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (requests, connection) = handshake.await.map_err(io::Error::other)?;
        // Ends with the last clone of the sender; its errors reach the calls.
        tokio::spawn(connection);
        *open = Some(requests.clone());
        Ok(requests)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        // A name is wanted, and a socket has none.
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme("http").authority("localhost").path_and_query(path).build();
        *request.uri_mut() = uri.expect("scheme, authority and path make a URI");
        Box::pin(async move {
            let mut requests = channel.connection().await?;
            requests.ready().await.map_err(io::Error::other)?;
            requests.send_request(request).await.map_err(io::Error::other)
        })
    }
}
