//! One request, one connection: a pull is few requests, and most of its time goes into bodies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::agent::chain;
use crate::image::registry::trust::Trust;

/// How long a connection, an answer's head, or the next part of a body may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// An absolute URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no http or https URL");
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?.to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port, path })
    }

    /// Where a redirect leads, or where a registry wants us to ask. From HTTPS it must not lead away from it.
    pub fn join(&self, location: &str) -> Result<Self, String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(Self { path: location.to_owned(), ..self.clone() });
        }
        let next = Self::parse(location)?;
        if self.tls && !next.tls {
            return Err(format!("{}: leads from https to {location}", self.server()));
        }
        Ok(next)
    }

    /// As `Host` has it: the usual port is left out, since signatures of links may cover this text.
    pub fn server(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Without the brackets of an IPv6 address.
    fn name(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// Whether both are one server.
    pub fn same_host(&self, other: &Self) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }
}

/// Makes connections.
pub struct Transport {
    tls: TlsConnector,
    trust: Trust,
}

/// The head of an answer, and its body as it comes.
pub struct Answer {
    /// Status code.
    pub status: u16,
    headers: http::HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Transport {
    /// To those whom the registry's folder and the system's authorities vouch for.
    pub fn new(trust: Trust) -> Result<Self, String> {
        Ok(Self { tls: TlsConnector::from(Arc::new(trust.config()?)), trust })
    }

    /// Asks for a page.
    pub async fn get(&self, url: &Url, authorization: Option<&str>, accept: &str) -> Result<Answer, String> {
        let asking = async {
            let stream = TcpStream::connect((url.name(), url.port)).await;
            let stream = stream.map_err(|error| format!("dial tcp {}:{}: {error}", url.host, url.port))?;
            if !url.tls {
                return ask(stream, url, authorization, accept).await;
            }
            let name = ServerName::try_from(url.name().to_owned()).map_err(|error| error.to_string())?;
            let shaken = self.tls.connect(name, stream).await;
            let why = |error| format!("https://{}: {}", url.server(), self.trust.explain(url.name(), &error));
            ask(shaken.map_err(why)?, url, authorization, accept).await
        };
        let late = || format!("{}:{}: no answer within {}s", url.host, url.port, PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, asking).await.map_err(|_| late())?
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &Url,
    authorization: Option<&str>,
    accept: &str,
) -> Result<Answer, String> {
    let text = |error: &dyn std::error::Error| format!("{}:{}: {}", url.host, url.port, chain(error));
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| text(&error))?;
    // Ended with the answer.
    let connection = tokio::spawn(async move { connection.await.unwrap_or_default() });
    let mut request = http::Request::get(&url.path)
        .header("Host", url.server())
        .header("User-Agent", concat!("amoeba/", env!("CARGO_PKG_VERSION")))
        .header("Accept", accept);
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| text(&error))?;
    let (head, body) = sender.send_request(request).await.map_err(|error| text(&error))?.into_parts();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, connection })
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    /// The next part of the body.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| format!("nothing more within {}s", PATIENCE.as_secs()))?;
            match frame.transpose().map_err(|error| error.to_string())?.map(|frame| frame.into_data()) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
            }
        }
    }

    /// A short body.
    pub async fn whole(mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_encrypted() {
        let url = Url::parse("https://r.example/v2/a").expect("a URL");
        let there = url.join("/v2/b?c=d").expect("the same host");
        assert!(there.same_host(&url) && there.path == "/v2/b?c=d");
        assert!(!url.join("https://blobs.example/x").expect("another host").same_host(&url));
        assert!(url.join("http://r.example/x").is_err());
        assert!(url.join("//r.example/x").is_err(), "it is no path");
        assert!(Url::parse("ftp://x/").is_err());
    }

    #[test]
    fn a_server_is_called_by_its_usual_name() {
        for (url, name) in [
            ("https://r.example:443/", "r.example"),
            ("https://r.example:80/", "r.example:80"),
            ("http://r.example/", "r.example"),
            ("https://[::1]:5000/", "[::1]:5000"),
        ] {
            assert_eq!(Url::parse(url).expect(url).server(), name);
        }
    }
}
