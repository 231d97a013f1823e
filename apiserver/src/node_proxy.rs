//! Requests that a node answers: the API server calls its kubelet and passes the answer on as it comes.
//!
//! The kubelet is found by the Node's own status and verified by the Node's name: a certificate of another
//! node doesn't do, whatever the address. Names are never resolved here and redirects never followed, so
//! what is dialled is what the Node object says. One connection serves one request; dropping the answer
//! closes it.

mod log;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::error::chain;
use api::status::Status;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::task::JoinSet;

pub use log::{LogOptions, choose_container};
pub use stream::{Stream, upgrade_headers};

use crate::body::Body;
use crate::pki::{Pki, PkiError};
use crate::reach::{Exchange, ReachError, Target, Tls, whole};
use crate::relay::Relay;

/// Where kubelets listen if a Node doesn't say.
const KUBELET_PORT: u16 = 10250;
/// How long a kubelet may take until it begins to answer.
const FIRST_BYTE: Duration = Duration::from_secs(30);
/// The longest summary of a node's statistics, in bytes: a kilobyte a container.
const SUMMARY: usize = 8 << 20;
/// How much of a kubelet's error text is passed on, in bytes.
const ERROR_TEXT: usize = 16 << 10;

/// Calls kubelets as the API server.
#[derive(Clone)]
pub struct NodeProxy {
    tls: Arc<ClientConfig>,
}

/// A kubelet as its Node describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kubelet {
    node: String,
    address: SocketAddr,
}

impl NodeProxy {
    /// With a client certificate of the cluster's authority.
    ///
    /// # Errors
    /// The certificate can't be made.
    pub fn new(pki: &Arc<Pki>) -> Result<Self, PkiError> {
        Ok(Self { tls: pki.kubelet_client_tls()? })
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
        let unreachable = |error: ReachError| {
            let url = format!("https://{}{path}", kubelet.address);
            Status::internal(format!("Get {url:?}: {}", chain(&error)))
        };
        let (answer, connection) = self.get(&kubelet, &path).await.map_err(unreachable)?;
        pass_on(answer, connection).await
    }

    /// Sends one GET; the answer's body is alive as long as the connection's task.
    async fn get(&self, kubelet: &Kubelet, path: &str) -> Result<Exchange, ReachError> {
        let request = Request::get(path).body(Body::empty());
        self.send(kubelet, request.expect("a path of encoded segments makes a request")).await
    }

    /// What the node and its pods use: the kubelet's `/stats/summary`.
    ///
    /// # Errors
    /// 500 if it can't be reached, or says something else.
    pub async fn summary(&self, node: &Value) -> Result<Value, Status> {
        let failed = |why: String| Status::internal(format!("ask the kubelet for statistics: {why}"));
        let kubelet = Kubelet::of(node)?;
        let called = self.get(&kubelet, "/stats/summary").await;
        let (answer, _connection) = called.map_err(|error| failed(chain(&error)))?;
        if !answer.status().is_success() {
            return Err(failed(answer.status().to_string()));
        }
        let body = whole(answer.into_body(), SUMMARY).await.map_err(|error| failed(chain(&error)))?;
        serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
    }

    /// Asks the kubelet of the node for a stream, and answers with its head and a relay; or with its refusal,
    /// in its own words.
    ///
    /// # Errors
    /// 500 if it can't be reached.
    pub async fn stream(
        &self,
        node: &Value,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Body>, Status> {
        let kubelet = Kubelet::of(node)?;
        let mut request =
            Request::get(path).body(Body::empty()).expect("a path of encoded segments makes a request");
        *request.headers_mut() = headers;
        let (answer, connection) = self
            .send(&kubelet, request)
            .await
            .map_err(|error| Status::internal(format!("error dialing backend: {}", chain(&error))))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Relay::answer(answer, connection));
        }
        let (parts, body) = answer.into_parts();
        let text = whole(body, ERROR_TEXT).await.unwrap_or_default();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = parts.status;
        response
            .headers_mut()
            .extend(parts.headers.get(CONTENT_TYPE).map(|kind| (CONTENT_TYPE, kind.clone())));
        Ok(response)
    }

    /// Sends one request over a connection of its own, which may be upgraded.
    async fn send(&self, kubelet: &Kubelet, request: Request<Body>) -> Result<Exchange, ReachError> {
        let target = self.target(kubelet);
        let answer = tokio::time::timeout(FIRST_BYTE, target.send(request));
        answer.await.map_err(|_| ReachError::Timeout(FIRST_BYTE))?
    }

    fn target(&self, kubelet: &Kubelet) -> Target {
        let tls = Tls { config: self.tls.clone(), name: kubelet.node.clone() };
        Target { address: kubelet.address.to_string(), tls: Some(tls) }
    }

    /// The kubelet of a node, to be asked as the API server, and where the node itself is.
    ///
    /// # Errors
    /// 500 if the Node has no address.
    pub fn kubelet(&self, node: &Value) -> Result<(SocketAddr, Target), Status> {
        let kubelet = Kubelet::of(node)?;
        Ok((kubelet.address, self.target(&kubelet)))
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
        let text = whole(body, ERROR_TEXT).await.unwrap_or_default();
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

#[cfg(test)]
mod tests;
