//! One request over a connection of its own, in clear or over TLS.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::body::Body;

/// How long reaching somebody and the TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is dialled: `HOST:PORT`, in brackets if it is an address of version 6.
    pub address: String,
    /// Over TLS, if it is.
    pub tls: Option<Tls>,
}

/// Whom a TLS handshake must show.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whom to believe, and who we are.
    pub config: Arc<ClientConfig>,
    /// The name that the certificate must have: a DNS name or an address.
    pub name: String,
}

/// An answer, and the task of its connection: dropping it closes the connection.
pub type Exchange = (Response<Incoming>, JoinSet<()>);

/// Why somebody gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Nobody is there; in the words of Go, which clients know.
    #[error("dial tcp {address}: {}", go_text(.why))]
    Dial {
        /// What was dialled.
        address: String,
        /// Why; said already, so it is no source.
        why: io::Error,
    },
    /// Who is there isn't who it should be.
    #[error("tls: failed to verify who is at {address}")]
    Handshake {
        /// What was dialled.
        address: String,
        /// Why.
        #[source]
        why: io::Error,
    },
    /// The name can't stand in a certificate.
    #[error("the name {0:?} can't stand in a certificate")]
    Name(String),
    /// It doesn't speak HTTP, or stopped speaking.
    #[error("speak HTTP")]
    Http(#[from] hyper::Error),
    /// Its answer breaks off or is too large.
    #[error("read the answer")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("context deadline exceeded (no answer within {0:?})")]
    Timeout(Duration),
}

impl Target {
    /// Sends one request, whose URI is a path with its query. Its Host is the target's address unless it has one.
    ///
    /// # Errors
    /// [`ReachError`]; an answer of any code is none.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Exchange, ReachError> {
        if !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(&self.address)
        {
            request.headers_mut().insert(HOST, host);
        }
        let connected = tokio::time::timeout(CONNECT, self.connect());
        let (mut sender, connection) = connected.await.map_err(|_| ReachError::Timeout(CONNECT))??;
        Ok((sender.send_request(request).await?, connection))
    }

    async fn connect(&self) -> Result<(http1::SendRequest<Body>, JoinSet<()>), ReachError> {
        let address = self.address.clone();
        let tcp = TcpStream::connect(&self.address).await;
        let tcp = tcp.map_err(|why| ReachError::Dial { address, why })?;
        let _ = tcp.set_nodelay(true); // only a matter of latency
        crate::server::keep_alive(&tcp);
        match &self.tls {
            None => handshake(tcp).await,
            Some(tls) => {
                let name = ServerName::try_from(tls.name.clone());
                let name = name.map_err(|_| ReachError::Name(tls.name.clone()))?;
                let stream = TlsConnector::from(tls.config.clone()).connect(name, tcp).await;
                let address = self.address.clone();
                handshake(stream.map_err(|why| ReachError::Handshake { address, why })?).await
            }
        }
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(http1::SendRequest<Body>, JoinSet<()>), ReachError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to somebody else broke");
        }
    });
    Ok((sender, task))
}

/// An answer's body of at most `limit` bytes.
///
/// # Errors
/// It is longer, or breaks off.
pub async fn whole(body: Incoming, limit: usize) -> Result<Bytes, ReachError> {
    Ok(Limited::new(body, limit).collect().await.map_err(ReachError::Body)?.to_bytes())
}

fn go_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_there_is_told_as_upstream_does() {
        let why = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = ReachError::Dial { address: "10.0.0.1:443".to_owned(), why };
        assert_eq!(error.to_string(), "dial tcp 10.0.0.1:443: connect: connection refused");
    }
}
