//! One request and its answer as a JSON value; refusals of the API server as their `Status`.

use std::io::Write as _;

use http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use super::Cluster;
use crate::print;

/// Plain JSON.
const JSON: &str = "application/json";
/// Rows and columns as the server prints them; plain JSON where it can't.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// All kinds of all groups in one answer.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                         application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                         application/json";

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server refused. Boxed because a status is large and answers are common.
    #[error("{}", refusal(.0))]
    Status(Box<StatusBody>),
    /// Nothing answered.
    #[error("cannot reach the API server at {address}: {}: is the cluster running? (`amoeba up` starts one)", root(.cause))]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why. Not a source: its chain of layers says nothing that its root doesn't.
        cause: Box<kube::Error>,
    },
    /// The connection broke in the middle of an answer.
    #[error("the connection to {address} broke")]
    Broken {
        /// The API server.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer isn't JSON: this is no Kubernetes API server.
    #[error("{address} answered {path} with something that is not JSON: is it a Kubernetes API server?")]
    NotJson {
        /// The API server.
        address: String,
        /// What was asked.
        path: String,
        /// Where the JSON is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// The parts of a refusal that are shown or decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusBody {
    /// HTTP status code.
    pub code: u16,
    /// `NotFound`, `Invalid`, …
    pub reason: String,
    /// For people.
    pub message: String,
    /// `(field path, message)` of each thing that is wrong; may be empty.
    pub causes: Vec<(String, String)>,
}

impl RequestError {
    /// The refusal of the API server, if it is one.
    pub fn status(&self) -> Option<&StatusBody> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the API server refused with this HTTP status code.
    pub fn is(&self, code: u16) -> bool {
        self.status().is_some_and(|status| status.code == code)
    }
}

/// The innermost cause: "Connection refused" rather than the layers around it.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// kubectl's words for a refusal.
fn refusal(status: &StatusBody) -> String {
    match (status.reason.as_str(), status.code) {
        ("", code) => format!("Error from server ({code}): {}", status.message),
        ("Invalid", _) => status.message.clone(),
        (reason, _) => format!("Error from server ({reason}): {}", status.message),
    }
}

/// How a body of a change is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, that merges lists by key.
    Strategic,
    /// RFC 6902.
    Json,
}

impl PatchKind {
    /// The `Content-Type` of such a change.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

/// One request, which may be made twice.
#[derive(Clone)]
struct Ask<'a> {
    method: Method,
    path: &'a str,
    accept: &'a str,
    /// With its media type.
    body: Option<(&'a str, &'a Value)>,
}

impl<'a> Ask<'a> {
    fn read(path: &'a str, accept: &'a str) -> Self {
        Self { method: Method::GET, path, accept, body: None }
    }

    fn write(method: Method, path: &'a str, media_type: &'a str, body: &'a Value) -> Self {
        Self { method, path, accept: JSON, body: Some((media_type, body)) }
    }
}

impl Cluster {
    /// Reads an object or a list.
    pub async fn get(&self, path: &str) -> Result<Value, RequestError> {
        self.json(Ask::read(path, JSON)).await
    }

    /// Reads an object or a list as a Table.
    pub async fn table(&self, path: &str) -> Result<Value, RequestError> {
        self.json(Ask::read(path, TABLE)).await
    }

    /// Reads one half of the discovery document.
    pub async fn discovery(&self, path: &str) -> Result<Value, RequestError> {
        self.json(Ask::read(path, DISCOVERY)).await
    }

    /// Creates an object in a collection.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, RequestError> {
        self.json(Ask::write(Method::POST, path, JSON, object)).await
    }

    /// Changes an object.
    pub async fn patch(&self, path: &str, kind: PatchKind, patch: &Value) -> Result<Value, RequestError> {
        self.json(Ask::write(Method::PATCH, path, kind.media_type(), patch)).await
    }

    /// Replaces an object.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, RequestError> {
        self.json(Ask::write(Method::PUT, path, JSON, object)).await
    }

    /// Deletes an object, or a collection.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, RequestError> {
        self.json(Ask::write(Method::DELETE, path, JSON, options)).await
    }

    /// Opens a watch; as a Table if asked.
    pub async fn open_watch(&self, path: &str, as_table: bool) -> Result<Body, RequestError> {
        let accept = if as_table { TABLE } else { JSON };
        Ok(self.send(Ask::read(path, accept)).await?.into_body())
    }

    /// Opens a stream of text, such as a log.
    pub async fn open_text(&self, path: &str) -> Result<Body, RequestError> {
        Ok(self.send(Ask::read(path, "*/*")).await?.into_body())
    }

    /// Whether `path` is answered with success, such as a health check.
    pub async fn answers(&self, path: &str) -> bool {
        match self.send(Ask::read(path, "*/*")).await {
            Ok(response) => self.collect(response).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn json(&self, ask: Ask<'_>) -> Result<Value, RequestError> {
        let path = ask.path;
        let response = self.send(ask).await?;
        let bytes = self.collect(response).await?;
        serde_json::from_slice(&bytes).map_err(|source| RequestError::NotJson {
            address: self.address.clone(),
            path: path.to_owned(),
            source,
        })
    }

    /// Sends, shows the server's warnings, and turns a refusal into an error.
    async fn send(&self, ask: Ask<'_>) -> Result<Response<Body>, RequestError> {
        let response = self.exchange(ask).await?;
        show_warnings(&response);
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = self.collect(response).await?;
        Err(RequestError::Status(Box::new(parse_status(code, &bytes))))
    }

    /// A read whose connection broke, as when its server was just killed, is asked once more: the next
    /// connection leads to another server. A write isn't: it may have happened.
    async fn exchange(&self, ask: Ask<'_>) -> Result<Response<Body>, RequestError> {
        let mut answer = self.client.send(request(ask.clone())).await;
        if answer.is_err() && ask.method == Method::GET {
            answer = self.client.send(request(ask)).await;
        }
        answer.map_err(|source| RequestError::Unreachable {
            address: self.address.clone(),
            cause: Box::new(source),
        })
    }

    async fn collect(&self, response: Response<Body>) -> Result<bytes::Bytes, RequestError> {
        let collected = response.into_body().collect().await;
        collected
            .map(|body| body.to_bytes())
            .map_err(|source| RequestError::Broken { address: self.address.clone(), source: source.into() })
    }
}

fn request(Ask { method, path, accept, body }: Ask<'_>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header(ACCEPT, accept);
    let built = match body {
        Some((media_type, value)) => {
            builder.header(CONTENT_TYPE, media_type).body(Body::from(value.to_string().into_bytes()))
        }
        None => builder.body(Body::empty()),
    };
    built.expect("path is made by cluster::path, which escapes what a URI can't hold")
}

/// `299 - "text"` becomes `Warning: text`, as kubectl shows it.
fn show_warnings(response: &Response<Body>) {
    for value in response.headers().get_all(WARNING).iter().filter_map(|value| value.to_str().ok()) {
        let text = value.splitn(3, ' ').nth(2).unwrap_or(value).trim_matches('"').replace("\\\"", "\"");
        // A closed standard error must not end the verb.
        let _ = writeln!(
            anstream::stderr(),
            "{}Warning:{} {text}",
            print::WARN.render(),
            print::WARN.render_reset()
        );
    }
}

/// The `Status` of a refusal; a body that is none becomes its message.
fn parse_status(code: u16, body: &[u8]) -> StatusBody {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    if value["kind"] != "Status" {
        let message = String::from_utf8_lossy(body).trim().to_owned();
        return StatusBody { code, message, ..StatusBody::default() };
    }
    status_of(&value, code)
}

/// Reads a `Status` object; `code` is used where it has none.
pub fn status_of(value: &Value, code: u16) -> StatusBody {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let causes = value["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    StatusBody {
        code: value["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(code),
        reason: text(value, "reason"),
        message: text(value, "message"),
        causes: causes.iter().map(|cause| (text(cause, "field"), text(cause, "message"))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_in_kubectl() {
        let body = br#"{"kind":"Status","code":404,"reason":"NotFound","message":"pods \"x\" not found"}"#;
        let error = RequestError::Status(Box::new(parse_status(404, body)));
        assert_eq!(error.to_string(), "Error from server (NotFound): pods \"x\" not found");
        assert!(error.is(404));
    }

    #[test]
    fn an_answer_that_is_no_status_is_its_own_message() {
        let status = parse_status(502, b"bad gateway\n");
        assert_eq!((status.code, status.message.as_str()), (502, "bad gateway"));
    }

    #[test]
    fn causes_name_their_fields() {
        let body = br#"{"kind":"Status","details":{"causes":[{"field":"spec.replicas","message":"no"}]}}"#;
        assert_eq!(parse_status(422, body).causes, [("spec.replicas".to_owned(), "no".to_owned())]);
    }
}
