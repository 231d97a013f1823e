//! What tests of reaching others share: a server with a client, and somebody to reach.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::{MASTERS_GROUP, Pki};
use apiserver::{ApiServer, Body, Config, Identity, Peer};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use store::model::Model;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server over an empty store.
pub struct Cluster {
    pub server: Arc<ApiServer>,
    pub pki: Arc<Pki>,
    pub dir: tempfile::TempDir,
}

/// An answer: its code, its headers, and its body as JSON or as text.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Arc::new(Pki::load_or_create(dir.path()).expect("authorities"));
        let mut config = Config::new(pki.clone());
        config.proxy_loopback = true;
        let server = ApiServer::start(Arc::new(Model::default()), config).await.expect("the server starts");
        Self { server, pki, dir }
    }

    /// Asks as a user; bodies are JSON, of patches merge patches.
    pub async fn ask_as(&self, who: Identity, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = Request::builder().method(method).uri(path);
        if method == "PATCH" {
            request = request.header("content-type", "application/merge-patch+json");
        }
        if path.starts_with("/apis?") {
            request = request.header(
                "accept",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
            );
        }
        let request = request.body(Body::from(body)).expect("a request");
        answered(self.server.handle(request, Peer::InProcess(who)).await).await
    }

    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask_as(Identity::new("admin", &[MASTERS_GROUP]), method, path, body).await
    }

    /// Makes an object, which must be allowed.
    pub async fn make(&self, path: &str, body: Value) {
        let answer = self.ask("POST", path, body).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.body);
    }

    /// Makes a Service in a namespace whose one endpoint is there.
    pub async fn service(&self, namespace: &str, name: &str, at: SocketAddr, ready: bool) {
        let spec = json!({"clusterIP": "None", "ports": [{"name": "https", "port": 443}]});
        let service = json!({"metadata": {"name": name}, "spec": spec});
        self.make(&format!("/api/v1/namespaces/{namespace}/services"), service).await;
        self.endpoint(namespace, name, at, ready, Value::Null).await;
    }

    pub async fn endpoint(&self, namespace: &str, service: &str, at: SocketAddr, ready: bool, target: Value) {
        let mut endpoint = json!({"addresses": [at.ip().to_string()], "conditions": {"ready": ready}});
        if !target.is_null() {
            endpoint["targetRef"] = target;
        }
        let slice = json!({
            "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": at.port()}],
            "endpoints": [endpoint],
        });
        self.make(&format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"), slice).await;
    }
}

pub async fn answered(response: Response<Body>) -> Answer {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.expect("a whole body").to_bytes();
    let text = || json!(String::from_utf8_lossy(&bytes));
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
    Answer { code: head.status.as_u16(), headers: head.headers, body }
}

/// Tries until it holds.
pub async fn until<F: Future<Output = Option<T>>, T>(what: &str, mut look: impl FnMut() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} in time"))
}

/// Somebody who answers JSON; gone when it is dropped.
pub struct Somebody {
    pub at: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Somebody {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Somebody {
    /// Answers each request over TLS with what `judge` says: a code and a body, which may hold its ETag as `x-tag`, or
    /// where to go instead.
    pub async fn over_tls(
        tls: Arc<rustls::ServerConfig>,
        judge: impl Fn(&http::request::Parts, Value) -> (u16, Value) + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(tls);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, judge) = (acceptor.clone(), judge.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(|request: Request<Incoming>| {
                        let judge = judge.clone();
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                            let asked = serde_json::from_slice(&body).unwrap_or_default();
                            let (code, answer) = judge(&parts, asked);
                            let mut response = Response::builder().status(code);
                            if let Some(tag) = answer["x-tag"].as_str() {
                                response = response.header("etag", tag);
                            }
                            if code == 302 {
                                response = response.header("location", answer.as_str().expect("a place"));
                            }
                            let body = Full::new(Bytes::from(answer.to_string()));
                            Ok::<_, Infallible>(response.body(body).expect("a response"))
                        }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(tls), service).await; // clients may go
                });
            }
        });
        Self { at, task }
    }
}
