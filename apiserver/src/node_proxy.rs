//! Requests that a node answers: the API server calls its kubelet and passes the answer on as it comes.
//!
//! The kubelet is found by the Node's own status and verified by the Node's name: a certificate of another
//! node doesn't do, whatever the address. Names are never resolved here and redirects never followed, so
//! what is dialled is what the Node object says. One connection serves one request; dropping the answer
//! closes it.

mod log;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::status::Status;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

pub use log::{LogOptions, choose_container};

use crate::body::Body;
use crate::pki::{Pki, PkiError};

/// Where kubelets listen if a Node doesn't say.
const KUBELET_PORT: u16 = 10250;
/// How long reaching a kubelet and its TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a kubelet may take until it begins to answer.
const FIRST_BYTE: Duration = Duration::from_secs(30);
/// How much of a kubelet's error text is passed on, in bytes.
const ERROR_TEXT: usize = 16 << 10;

/// Calls kubelets as the API server.
#[derive(Clone)]
pub struct NodeProxy {
    connector: TlsConnector,
}

/// A kubelet as its Node describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kubelet {
    node: String,
    address: SocketAddr,
}

/// Why a kubelet gave no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("dial {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("verify the kubelet at {0}")]
    Handshake(SocketAddr, #[source] std::io::Error),
    #[error("the node's name {0:?} can't stand in a certificate")]
    Name(String),
    #[error("speak HTTP")]
    Http(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl NodeProxy {
    /// With a client certificate of the cluster's authority.
    ///
    /// # Errors
    /// The certificate can't be made.
    pub fn new(pki: &Pki) -> Result<Self, PkiError> {
        Ok(Self { connector: pki.kubelet_client_tls()?.into() })
    }

    /// The log of one of `pod`'s containers. `find_node` gives the Node of a name.
    ///
    /// # Errors
    /// 400 for a wrong container or wrong options, in upstream's words; what the kubelet says; 500 if it
    /// can't be reached.
    pub async fn logs(
        &self,
        pod: &Value,
        options: &LogOptions,
        find_node: impl FnOnce(&str) -> Option<Value>,
    ) -> Result<Response<Body>, Status> {
        let container = choose_container(pod, options.container.as_deref())?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            return Ok(no_content());
        }
        let node = find_node(node).ok_or_else(|| Status::not_found("nodes", "", node))?;
        let kubelet = Kubelet::of(&node)?;
        let path = options.path(pod, &container);
        let unreachable = |error: CallError| {
            let url = format!("https://{}{path}", kubelet.address);
            Status::internal(format!("Get {url:?}: {}", chain(&error)))
        };
        let (answer, connection) = self.get(&kubelet, &path).await.map_err(unreachable)?;
        pass_on(answer, connection).await
    }

    /// Sends one GET; the answer's body is alive as long as the connection's task.
    async fn get(
        &self,
        kubelet: &Kubelet,
        path: &str,
    ) -> Result<(Response<Incoming>, JoinSet<()>), CallError> {
        let stream = tokio::time::timeout(CONNECT, self.connect(kubelet));
        let stream = stream.await.map_err(|_| CallError::Timeout(CONNECT))??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a kubelet broke");
            }
        });
        let request = Request::get(path)
            .header(HOST, kubelet.address.to_string())
            .body(Empty::<Bytes>::new())
            .expect("a path of encoded segments and an address make a request");
        let answer = tokio::time::timeout(FIRST_BYTE, sender.send_request(request));
        Ok((answer.await.map_err(|_| CallError::Timeout(FIRST_BYTE))??, task))
    }

    async fn connect(
        &self,
        kubelet: &Kubelet,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CallError> {
        let name = ServerName::try_from(kubelet.node.clone());
        let name = name.map_err(|_| CallError::Name(kubelet.node.clone()))?;
        let tcp = TcpStream::connect(kubelet.address).await;
        let tcp = tcp.map_err(|source| CallError::Connect(kubelet.address, source))?;
        let _ = tcp.set_nodelay(true); // only a matter of latency
        let tls = self.connector.connect(name, tcp).await;
        tls.map_err(|source| CallError::Handshake(kubelet.address, source))
    }
}

impl Kubelet {
    fn of(node: &Value) -> Result<Self, Status> {
        let name = api::object::name(node);
        let addresses = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let internal = addresses.iter().find(|address| address["type"] == "InternalIP");
        let ip: Option<IpAddr> = internal.and_then(|address| address["address"].as_str()?.parse().ok());
        let ip = ip.ok_or_else(|| {
            Status::internal(format!("no preferred addresses found; known addresses: {addresses:?}"))
        })?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        Ok(Self { node: name.to_owned(), address: SocketAddr::new(ip, port.unwrap_or(KUBELET_PORT)) })
    }
}

/// A kubelet's success is passed on as a stream; its refusal becomes a Status.
async fn pass_on(answer: Response<Incoming>, connection: JoinSet<()>) -> Result<Response<Body>, Status> {
    let (parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        let text =
            Limited::new(body, ERROR_TEXT).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(refusal(parts.status, String::from_utf8_lossy(&text).trim()));
    }
    // The closure owns the connection's task, so that it ends with the body.
    let body = body.map_frame(move |frame| {
        let _owned = &connection;
        frame
    });
    let mut response = Response::new(Body::wrap(body));
    let plain = HeaderValue::from_static("text/plain");
    let content_type = parts.headers.get(CONTENT_TYPE).cloned().unwrap_or(plain);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

fn refusal(code: StatusCode, text: &str) -> Status {
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => {
            Status::bad_request(format!("the kubelet doesn't know the container: {text}")).with_code(404)
        }
        _ => Status::internal(format!("the kubelet answered {code}: {text}")),
    }
}

/// A pod that is on no node has no log yet.
fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
