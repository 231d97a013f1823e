//! A gRPC connection to one member: HTTP/2, with or without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::uri::{Authority, PathAndQuery, Scheme};
use tonic::codegen::http::{Request, Response, Uri};

use super::endpoints::Endpoints;
use crate::standalone::tls::{self, TlsError};
use crate::standalone::url::Url;

/// How long a connection to one member may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The certificates can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No member can be reached.
    #[error("cannot reach the store: {0}; is it running, and is --endpoints right?")]
    Unreachable(String),
}

/// A connection that gRPC stubs call through.
#[derive(Clone)]
pub struct Channel {
    requests: SendRequest<Body>,
    scheme: Scheme,
    authority: Authority,
}

/// Connects to the first member that answers; also says which.
///
/// # Errors
/// If none does, with each one's reason.
pub async fn connect(endpoints: &Endpoints) -> Result<(Channel, Url), ConnectError> {
    let tls = match &endpoints.authority {
        Some(authority) => Some(client_tls(authority, endpoints)?),
        None => None,
    };
    let mut reasons = Vec::new();
    for url in &endpoints.urls {
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, open(url, tls.clone())).await;
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(channel) => return Ok((channel, url.clone())),
            Err(error) => reasons.push(format!("{url}: {error}")),
        }
    }
    Err(ConnectError::Unreachable(reasons.join(", ")))
}

fn client_tls(authority: &std::path::Path, endpoints: &Endpoints) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = (*tls::client(authority, endpoints.own.as_ref())?).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

async fn open(url: &Url, tls: Option<Arc<ClientConfig>>) -> io::Result<Channel> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    stream.set_nodelay(true)?;
    let requests = match tls.filter(|_| url.secure) {
        None => handshake(stream).await?,
        Some(tls) => {
            let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
            handshake(TlsConnector::from(tls).connect(name, stream).await?).await?
        }
    };
    let scheme = if url.secure { Scheme::HTTPS } else { Scheme::HTTP };
    let authority = url.authority().parse().map_err(io::Error::other)?;
    Ok(Channel { requests, scheme, authority })
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<SendRequest<Body>> {
    let (requests, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the last clone of the channel; its errors reach the calls.
    tokio::spawn(connection);
    Ok(requests)
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().cloned();
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build();
        *request.uri_mut() = uri.expect("scheme, authority and path make a URI");
        Box::pin(self.requests.send_request(request))
    }
}
