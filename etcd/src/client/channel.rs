//! Connections to an etcd cluster: one at a time, and the next endpoint when it fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Request, Response};
use prost::Message;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::grpc::{Code, Messages, Sink, Status, encode};

/// How long connecting to one endpoint may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection is asked for a sign of life this often, and is given up after as long a silence.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Bytes in flight towards us on a stream, and on the connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest answer; etcd itself has no limit for what it sends.
const MAX_ANSWER: usize = 1 << 30;

/// An endpoint that can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// There is none.
    #[error("no etcd endpoint is given; name at least one, as http://127.0.0.1:2379")]
    None,
    /// It isn't one.
    #[error("etcd endpoint {0:?} is not of the form http://host:port or https://host:port")]
    Malformed(String),
    /// Its authority can't be judged.
    #[error("etcd endpoint {0} is https, but no certificate authority is given")]
    NoTls(String),
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It never left: nothing happened.
    #[error("can't reach etcd: {0}")]
    NotSent(String),
    /// It left, and the connection or our patience ended: it may have happened.
    #[error("etcd didn't answer: {0}")]
    Lost(String),
    /// etcd answered that it failed.
    #[error("etcd answered {0}")]
    Failed(Status),
}

impl CallError {
    /// Nothing happened, for sure.
    pub fn was_not_sent(&self) -> bool {
        matches!(self, CallError::NotSent(_))
    }

    /// Another endpoint, or the same one later, may do better.
    pub fn is_transient(&self) -> bool {
        match self {
            CallError::NotSent(_) | CallError::Lost(_) => true,
            CallError::Failed(status) => matches!(status.code, Code::Unavailable | Code::Cancelled),
        }
    }

    /// The cluster has no leader.
    pub fn is_no_leader(&self) -> bool {
        matches!(self, CallError::Failed(status) if status.message == "etcdserver: no leader")
    }
}

/// The way to an etcd cluster. Clones share it.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    endpoints: Vec<Endpoint>,
    tls: Option<TlsConnector>,
    live: Mutex<Live>,
}

/// The connection in use.
#[derive(Default)]
struct Live {
    requests: Option<SendRequest<Bytes>>,
    /// Which endpoint to try next.
    next: usize,
    /// Raised with each connection, so that a failure is blamed on the right one.
    generation: u64,
}

struct Endpoint {
    authority: String,
    host: String,
    secure: bool,
}

impl Endpoint {
    fn parse(text: &str, tls: bool) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(text.to_owned());
        let (secure, authority) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(malformed()),
            None => (tls, text),
        };
        let authority = authority.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(malformed)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(malformed());
        }
        if secure && !tls {
            return Err(EndpointError::NoTls(text.to_owned()));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { authority: authority.to_owned(), host, secure })
    }
}

impl Channel {
    /// To these endpoints; connects when it is first used.
    ///
    /// # Errors
    /// If an endpoint is malformed.
    pub fn new(endpoints: &[String], tls: Option<Arc<rustls::ClientConfig>>) -> Result<Self, EndpointError> {
        let has_tls = tls.is_some();
        let endpoints =
            endpoints.iter().map(|text| Endpoint::parse(text, has_tls)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(EndpointError::None);
        }
        let tls = tls.map(|config| {
            let mut config = (*config).clone();
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        Ok(Self { inner: Arc::new(Inner { endpoints, tls, live: Mutex::default() }) })
    }

    /// How many endpoints there are.
    pub fn endpoints(&self) -> usize {
        self.inner.endpoints.len()
    }

    /// One message there, one back, all within `timeout`.
    ///
    /// # Errors
    /// [`CallError`] says whether it may have happened.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, CallError> {
        let connection = tokio::time::timeout(timeout, self.connection()).await;
        let late = |_| Err(CallError::NotSent(format!("no connection within {timeout:?}")));
        let (requests, generation) = connection.unwrap_or_else(late)?;
        let answer = tokio::time::timeout(timeout, exchange(requests, self.request(path), request)).await;
        let answer = answer.unwrap_or_else(|_| Err(CallError::Lost(format!("no answer within {timeout:?}"))));
        if let Err(error) = &answer
            && error.is_transient()
        {
            self.give_up(generation).await;
        }
        answer
    }

    /// Opens a stream of messages in both directions.
    ///
    /// # Errors
    /// If no endpoint takes it.
    pub async fn stream<Q: Message>(
        &self,
        path: &'static str,
        first: &Q,
    ) -> Result<(Sink, h2::client::ResponseFuture), CallError> {
        let (requests, generation) = self.connection().await?;
        match open(requests, self.request(path), first, false).await {
            Ok(stream) => Ok(stream),
            Err(error) => {
                self.give_up(generation).await;
                Err(error)
            }
        }
    }

    fn request(&self, path: &str) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        let uri = http::Uri::builder()
            .scheme(if self.inner.tls.is_some() { "https" } else { "http" })
            .authority(self.inner.endpoints[0].authority.as_str())
            .path_and_query(format!("/{path}"));
        *request.uri_mut() = uri.build().expect("endpoints were parsed and paths are constant");
        let headers = request.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        let agent = HeaderValue::from_static(concat!("amoeba/", env!("CARGO_PKG_VERSION")));
        headers.insert(http::header::USER_AGENT, agent);
        // A member that has lost its leader should say so rather than keep us waiting; only its own status it
        // tells without one.
        if !path.starts_with("etcdserverpb.Maintenance/") {
            headers.insert("hasleader", HeaderValue::from_static("true"));
        }
        request
    }

    /// The connection in use, or a new one to the first endpoint that takes it.
    async fn connection(&self) -> Result<(SendRequest<Bytes>, u64), CallError> {
        let (current, generation) = {
            let live = self.inner.live.lock().await;
            (live.requests.clone(), live.generation)
        };
        // Waits, without the lock, while the connection has as many streams as etcd allows.
        if let Some(requests) = current
            && let Ok(ready) = requests.ready().await
        {
            return Ok((ready, generation));
        }
        let mut live = self.inner.live.lock().await;
        if live.generation != generation
            && let Some(requests) = live.requests.clone()
        {
            // Somebody else has connected meanwhile.
            return Ok((requests, live.generation));
        }
        self.reconnect(&mut live).await
    }

    async fn reconnect(&self, live: &mut Live) -> Result<(SendRequest<Bytes>, u64), CallError> {
        let mut why = String::new();
        for _attempt in 0..self.endpoints() {
            let endpoint = &self.inner.endpoints[live.next % self.endpoints()];
            live.next += 1;
            match self.connect(endpoint).await {
                Ok(requests) => {
                    live.generation += 1;
                    live.requests = Some(requests.clone());
                    return Ok((requests, live.generation));
                }
                Err(error) => why = format!("{}: {error}", endpoint.authority),
            }
        }
        live.requests = None;
        Err(CallError::NotSent(why))
    }

    /// The connection didn't serve; the next call tries the next endpoint.
    async fn give_up(&self, generation: u64) {
        let mut live = self.inner.live.lock().await;
        if live.generation == generation {
            live.requests = None;
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> std::io::Result<SendRequest<Bytes>> {
        let connecting = async {
            let socket = TcpStream::connect(&endpoint.authority).await?;
            socket.set_nodelay(true)?;
            match (&self.inner.tls, endpoint.secure) {
                (Some(tls), true) => {
                    let name = ServerName::try_from(endpoint.host.clone()).map_err(std::io::Error::other)?;
                    handshake(tls.connect(name, socket).await?).await
                }
                _ => handshake(socket).await,
            }
        };
        let timeout = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        timeout.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }
}

async fn handshake<T>(io: T) -> std::io::Result<SendRequest<Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (requests, mut connection) = builder.handshake(io).await.map_err(std::io::Error::other)?;
    let pings = connection.ping_pong();
    // Ends when nobody uses the connection any more, or when the other side is silent.
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => tracing::debug!(?ended, "a connection to etcd ended"),
            () = silence(pings) => tracing::warn!("etcd is silent; the connection is given up"),
        }
    });
    requests.ready().await.map_err(std::io::Error::other)
}

/// Returns when a ping isn't answered.
async fn silence(pings: Option<h2::PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        let answered = tokio::time::timeout(KEEP_ALIVE, pings.ping(h2::Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}

async fn open<Q: Message>(
    mut requests: SendRequest<Bytes>,
    request: Request<()>,
    first: &Q,
    last: bool,
) -> Result<(Sink, h2::client::ResponseFuture), CallError> {
    let opened = requests.send_request(request, false);
    let (response, stream) = opened.map_err(|error| CallError::NotSent(error.to_string()))?;
    let mut sink = Sink::new(stream);
    let message = encode(first);
    let sent = if last { sink.send_last(message).await } else { sink.send(message).await };
    sent.map_err(|status: Status| CallError::Lost(status.to_string()))?;
    Ok((sink, response))
}

/// The messages of an answer, once its headers say that there are any.
pub async fn answers(response: h2::client::ResponseFuture) -> Result<Messages, CallError> {
    let response: Response<_> = response.await.map_err(|error| CallError::Lost(error.to_string()))?;
    if let Some(status) = response.headers().get("grpc-status").and(Status::from_headers(response.headers()))
    {
        return Err(CallError::Failed(status));
    }
    if response.status() != http::StatusCode::OK {
        return Err(CallError::Lost(format!("HTTP status {}", response.status())));
    }
    Ok(Messages::new(response.into_body(), MAX_ANSWER))
}

async fn exchange<Q: Message, A: Message + Default>(
    requests: SendRequest<Bytes>,
    request: Request<()>,
    message: &Q,
) -> Result<A, CallError> {
    let (_sink, response) = open(requests, request, message, true).await?;
    let mut messages = answers(response).await?;
    let lost = |status: Status| CallError::Lost(status.to_string());
    match messages.next().await.map_err(lost)? {
        Some(answer) => Ok(answer),
        None => Err(ended(&mut messages).await),
    }
}

/// Why a stream ended without a (further) message.
pub async fn ended(messages: &mut Messages) -> CallError {
    match messages.trailers().await {
        Ok(Some(trailers)) => match Status::from_headers(&trailers) {
            Some(status) => CallError::Failed(status),
            None => CallError::Lost("the answer has no message".into()),
        },
        Ok(None) => CallError::Lost("the answer has no end".into()),
        Err(status) => CallError::Lost(status.to_string()),
    }
}

#[cfg(test)]
mod tests;
