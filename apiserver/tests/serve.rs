//! The listener: TLS, and an end that neither cuts a request off nor waits for a watch.

use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{ConfigMap, Namespace};
use apiserver::pki::{MASTERS_GROUP, Pki};
use apiserver::{ApiServer, Config, Limits};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::TryStreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use store::model::Model;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    address: std::net::SocketAddr,
    pki: Arc<Pki>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

async fn serve() -> Served {
    serve_with(|limits| limits.tls_handshake = Duration::from_millis(50)).await
}

async fn serve_with(limit: impl FnOnce(&mut Limits)) -> Served {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new authority"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen on loopback");
    let address = listener.local_addr().expect("an address");
    let mut config = Config::new(pki.clone());
    limit(&mut config.limits);
    let server = ApiServer::start(Arc::new(Model::new()), config).await.expect("the server starts");
    let certificate = pki.issue_server(&["localhost".to_owned()], &[address.ip()]).expect("issued");
    let tls = pki.server_tls_config(&certificate).expect("a TLS configuration");
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(async move { server.serve(listener, tls, stopped).await.expect("serves") });
    Served { address, pki, stop, serving, _dir: dir }
}

impl Served {
    async fn client(&self) -> kube::Client {
        let admin = self.pki.issue_client("admin", &[MASTERS_GROUP]).expect("issued");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": BASE64.encode(self.pki.ca_pem()),
            }}],
            "users": [{"name": "u", "user": {
                "client-certificate-data": BASE64.encode(admin.certificate_pem),
                "client-key-data": BASE64.encode(admin.key_pem),
            }}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.expect("a configuration")).expect("a client")
    }
}

#[tokio::test]
async fn a_stop_ends_watches_and_returns() {
    let served = serve().await;
    let client = served.client().await;
    let namespaces =
        Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await.expect("a list");
    assert!(namespaces.items.len() >= 4);
    let config_maps: Api<ConfigMap> = Api::default_namespaced(client);
    let events = config_maps.watch(&WatchParams::default(), "0").await.expect("a watch");
    served.stop.send_replace(true);
    let rest = tokio::time::timeout(PATIENCE, events.try_collect::<Vec<_>>()).await.expect("the watch ends");
    let rest = rest.expect("it ends cleanly");
    assert!(
        matches!(rest.as_slice(), [WatchEvent::Bookmark(_)]),
        "the last word is how far it came: {rest:?}"
    );
    tokio::time::timeout(PATIENCE, served.serving).await.expect("serving ends").expect("without panic");
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let served = serve().await;
    let mut silent = TcpStream::connect(served.address).await.expect("connected");
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "the server hangs up: {read:?}");
}

/// Whoever has come through the handshake may have no certificate and no intention to ask for anything.
#[tokio::test]
async fn who_asks_for_nothing_is_let_go() {
    let served = serve_with(|limits| limits.headers = Duration::from_millis(50)).await;
    for (protocol, said) in
        [("http/1.1", ""), ("http/1.1", "P"), ("h2", ""), ("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
    {
        let mut silent = served.tls(protocol).await;
        // It may have been let go before.
        let _ = silent.write_all(said.as_bytes()).await;
        let rest = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await;
        assert!(rest.is_ok(), "the server hangs up on {protocol} after {said:?}");
    }
}

impl Served {
    /// A connection of nobody.
    async fn tls(&self, protocol: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        let pem = self.pki.ca_pem().as_bytes();
        use rustls_pki_types::pem::PemObject;
        roots
            .add(rustls_pki_types::CertificateDer::from_pem_slice(pem).expect("a certificate"))
            .expect("added");
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![protocol.into()];
        let stream = TcpStream::connect(self.address).await.expect("connected");
        let name = rustls_pki_types::ServerName::from(self.address.ip());
        tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.expect("TLS")
    }

    /// An HTTP/2 connection of nobody, frame by frame.
    async fn http2(&self) -> (h2::client::SendRequest<bytes::Bytes>, JoinHandle<Result<(), h2::Error>>) {
        let stream = self.tls("h2").await;
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        (send, tokio::spawn(connection))
    }
}

fn get(path: &str) -> http::Request<()> {
    http::Request::get(format!("https://localhost{path}")).body(()).expect("a request")
}

/// CVE-2023-44487: streams that are opened and reset at once cost the client nothing.
#[tokio::test]
async fn rapid_resets_end_the_connection_and_nothing_else() {
    let served = serve().await;
    let (mut send, connection) = served.http2().await;
    const MANY: usize = 100_000;
    let mut opened = 0;
    while opened < MANY {
        opened += 1;
        let Ok(mut ready) = send.clone().ready().await else { break };
        match ready.send_request(get("/version"), true) {
            Ok((_answer, mut stream)) => stream.send_reset(h2::Reason::CANCEL),
            Err(_) => break,
        }
        send = ready;
        if connection.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    drop(send);
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("it ends").expect("no panic");
    let error = ended.expect_err("the server says why it ends the connection");
    // If the client is still writing, it sees the broken pipe before the reason.
    assert!(error.reason().is_none_or(|why| why == h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    assert!(opened < MANY, "it was let go on for ever");
    let (mut send, _connection) = served.http2().await;
    let (answer, _stream) = send.send_request(get("/version"), true).expect("a new connection works");
    assert_eq!(
        tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("answered").status(),
        200
    );
}

/// A stop says GOAWAY, so that a client goes elsewhere with its next request; the open one is answered.
#[tokio::test]
async fn a_stop_says_go_away() {
    let served = serve().await;
    let (mut send, connection) = served.http2().await;
    let (answer, _stream) = send.send_request(get("/version"), true).expect("sent");
    assert_eq!(answer.await.expect("answered").status(), 200);
    served.stop.send_replace(true);
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("it ends").expect("no panic");
    assert!(ended.is_ok(), "it ends without an error: {ended:?}");
    tokio::time::timeout(PATIENCE, served.serving).await.expect("serving ends").expect("without panic");
}

/// Headers beyond the limit are refused, whoever sends them.
#[tokio::test]
async fn headers_have_a_limit() {
    let served = serve().await;
    let (mut send, _connection) = served.http2().await;
    let mut request = get("/version");
    for number in 0..300 {
        let name = http::HeaderName::from_bytes(format!("x-{number}").as_bytes()).expect("a name");
        request.headers_mut().insert(name, "x".repeat(8000).parse().expect("a value"));
    }
    let (answer, _stream) = send.send_request(request, true).expect("sent");
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time");
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 431), "{answer:?}");
}

#[tokio::test]
async fn the_admin_socket_is_open_to_its_owner_only_and_has_no_limits() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new authority"));
    let mut config = Config::new(pki);
    config.limits.seats = 1;
    let server = ApiServer::start(Arc::new(Model::new()), config).await.expect("the server starts");
    let path = dir.path().join("admin.sock");
    std::fs::write(&path, "left behind by a crash").expect("written");
    let (stop, stopped) = watch::channel(false);
    let admin = server.admin(&path).expect("it listens");
    let serving = tokio::spawn(async move { admin.serve(stopped).await });
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let stream = tokio::net::UnixStream::connect(&path).await.expect("connected");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1");
    let connection = tokio::spawn(connection);
    let ask = |path: &str| {
        let request = http::Request::get(path).header("host", "admin");
        request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request")
    };
    let answer = send.send_request(ask("/api/v1/namespaces/kube-system/secrets")).await.expect("answered");
    assert_eq!(answer.status(), 200, "it is an administrator");
    assert!(!answer.headers().contains_key("x-kubernetes-pf-flowschema-uid"), "no level judged it");
    drop(send);
    stop.send_replace(true);
    tokio::time::timeout(PATIENCE, serving).await.expect("it ends").expect("no panic");
    assert!(!path.exists(), "nothing is left behind");
    connection.abort();
}
