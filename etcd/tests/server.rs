//! What the server owes to its connections: TLS and identity, refusals, backups, an orderly end.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Server;
use etcd::client::EtcdKv;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use store::kv::{Kv, KvError, MemberId, Op, RangeRequest, Txn};
use store::{Config, Store};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;

fn put(key: &str) -> Txn {
    let op = Op::Put { key: key.to_owned().into(), value: "v".into(), lease: None };
    Txn { success: vec![op], ..Txn::default() }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An authority and what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    fn sign(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(["localhost".into()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("a PKCS #8 key");
        (vec![certificate.der().clone()], der)
    }

    fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        Arc::new(roots)
    }

    fn server(&self) -> Arc<rustls::ServerConfig> {
        let clients =
            rustls::server::WebPkiClientVerifier::builder(self.roots()).build().expect("a verifier");
        let (chain, key) = self.sign("server");
        let config = rustls::ServerConfig::builder().with_client_cert_verifier(clients);
        Arc::new(config.with_single_cert(chain, key).expect("they fit"))
    }

    fn client(&self, name: Option<&str>) -> Arc<rustls::ClientConfig> {
        let config = rustls::ClientConfig::builder().with_root_certificates(self.roots());
        Arc::new(match name {
            Some(name) => {
                let (chain, key) = self.sign(name);
                config.with_client_auth_cert(chain, key).expect("they fit")
            }
            None => config.with_no_client_auth(),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_names_the_certificate() {
    // Another test of this process may have chosen it already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let authority = Authority::new();
    let mut config = etcd::Config::plain();
    config.tls = Some(authority.server());
    let server = Server::start_with(config).await;
    let endpoint = vec![format!("https://localhost:{}", server.address.port())];
    let client = EtcdKv::connect(endpoint.clone(), Some(authority.client(Some("alice")))).await;
    let revision = client.expect("it connects").txn(put("a")).await.expect("a write").revision;
    let entry = server.store.journal(revision).expect("readable").expect("recorded");
    assert_eq!((entry.origin.user.as_str(), entry.origin.verb.as_str()), ("alice", "txn"));
    assert!(entry.origin.agent.starts_with("amoeba/"), "{}", entry.origin.agent);
    let nobody = EtcdKv::connect(endpoint.clone(), Some(authority.client(None))).await;
    assert!(nobody.is_err(), "a client without a certificate is refused");
    let stranger = EtcdKv::connect(endpoint, Some(Authority::new().client(Some("mallory")))).await;
    assert!(stranger.is_err(), "a client that doesn't trust us doesn't stay");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_clients_are_told_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let peer = || async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("it is bound")
    };
    let mut peers = BTreeMap::new();
    for id in 1..=3 {
        peers.insert(MemberId(id), peer().await.to_string());
    }
    let mut config = Config::group(dir.path(), MemberId(1), peers, None);
    config.limits.request_timeout = Duration::from_millis(500);
    let store = Store::open(config).await.expect("the store opens");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = listener.local_addr().expect("it is bound").to_string();
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(etcd::serve(store.clone(), etcd::Config::plain(), listener, stopped));
    let client = EtcdKv::connect(vec![endpoint.clone()], None).await.expect("status needs no leader");
    assert_eq!(client.status().leader, None);
    let refused = client.txn(put("a")).await;
    assert!(matches!(refused, Err(KvError::Unavailable(_))), "{refused:?}");
    let request = RangeRequest::new(store::kv::KeyRange::key("a"));
    let refused = client.range(request).await;
    assert!(matches!(refused, Err(KvError::Unavailable(_))), "{refused:?}");
    let health = Command::new("etcdctl")
        .args(["--endpoints", &endpoint, "endpoint", "health", "--command-timeout=2s"])
        .env("ETCDCTL_API", "3")
        .output();
    assert!(!health.await.expect("etcdctl is installed: apt install etcd-client").status.success());
    stop.send_replace(true);
    serving.await.expect("no panic").expect("a good end");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_saves_a_backup_that_verifies() {
    let server = Server::start().await;
    for key in 0..300 {
        let op = Op::Put { key: format!("k{key}").into(), value: vec![b'x'; 1000].into(), lease: None };
        server.store.txn(Txn { success: vec![op], ..Txn::default() }).await.expect("a write");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("backup");
    let save = Command::new("etcdctl")
        .args(["--endpoints", &server.endpoint(), "snapshot", "save"])
        .arg(&file)
        .env("ETCDCTL_API", "3")
        .output();
    let save = save.await.expect("etcdctl is installed: apt install etcd-client");
    assert!(save.status.success(), "{}", String::from_utf8_lossy(&save.stderr));
    let manifest = store::backup::verify(&file).expect("the backup is whole");
    assert_eq!(manifest.revision, store::kv::Revision(301));
    let mut bytes = std::fs::read(&file).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("the file");
    assert!(store::backup::verify(&file).is_err(), "a flipped bit is found");
    server.stop().await;
}

/// Sends one request and returns the status and the headers or trailers.
async fn raw(server: &Server, path: &str, kind: &str, body: Bytes) -> (http::StatusCode, http::HeaderMap) {
    let socket = TcpStream::connect(server.address).await.expect("it connects");
    let (requests, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let mut requests = requests.ready().await.expect("a place for a stream");
    let uri = format!("http://{}{path}", server.address);
    let request = http::Request::post(uri).header("content-type", kind).body(()).expect("a request");
    let (response, mut stream) = requests.send_request(request, false).expect("a stream");
    stream.send_data(body, true).expect("it is sent");
    let response = response.await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = response.into_body();
    while let Some(chunk) = body.data().await {
        chunk.expect("a whole answer");
    }
    let trailers = body.trailers().await.expect("a whole answer");
    driver.abort();
    (status, trailers.unwrap_or(headers))
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_and_the_server_goes_on() {
    let server = Server::start().await;
    let grpc = "application/grpc";
    let put = "/etcdserverpb.KV/Put";
    let cases: [(&str, &[u8], &str); 8] = [
        (put, b"", "13"),
        (put, b"\0\0\0", "13"),
        (put, b"\0\0\0\0\x05ab", "13"),
        (put, b"\0\0\0\0\x01\xff", "13"),
        (put, b"\x01\0\0\0\0", "12"),
        (put, b"\0\xff\xff\xff\xff", "8"),
        (put, b"\0\0\0\0\0", "3"),
        ("/etcdserverpb.KV/Nothing", b"\0\0\0\0\0", "12"),
    ];
    for (path, body, code) in cases {
        let (_, trailers) = raw(&server, path, grpc, Bytes::from_static(body)).await;
        let found = trailers.get("grpc-status").and_then(|code| code.to_str().ok());
        assert_eq!(found, Some(code), "{path} {body:?}: {trailers:?}");
    }
    let (status, _) = raw(&server, put, "application/json", Bytes::from_static(b"{}")).await;
    assert_eq!(status, http::StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let client = EtcdKv::connect(vec![server.endpoint()], None).await.expect("it still serves");
    client.txn(self::put("a")).await.expect("a write");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_watches_in_good_order() {
    let server = Server::start().await;
    let client = EtcdKv::connect(vec![server.endpoint()], None).await.expect("it connects");
    let request = store::kv::WatchRequest { range: store::kv::KeyRange::prefix("a"), start: None };
    let _watch = client.watch(request).await.expect("a watch");
    let stopped = tokio::time::timeout(Duration::from_secs(2), server.stop()).await;
    stopped.expect("a server with open watches ends at once");
}

/// What a client that knows only HTTP/1.1 gets: status line and body.
async fn ask(address: std::net::SocketAddr, target: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {target} HTTP/1.1\r\nhost: etcd\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("a whole answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().expect("a status line").to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_are_answered_by_plain_http() {
    let server = Server::start().await;
    let stock = common::RealEtcd::start().await;
    let theirs = stock.endpoint.parse().expect("an address");
    let (line, body) = ask(server.address, "/health").await;
    assert_eq!((line.as_str(), body.as_str()), ("HTTP/1.1 200 OK", r#"{"health":"true","reason":""}"#));
    assert_eq!(ask(theirs, "/health").await.0, line);
    let (status, again) = raw_get(&server, "/health").await;
    assert_eq!((status, &again[..]), (http::StatusCode::OK, body.as_bytes()), "over HTTP/2, too");
    for target in ["/nothing", "/v2/keys"] {
        assert_eq!(ask(server.address, target).await.0, "HTTP/1.1 404 Not Found", "{target}");
    }
    let (_, version) = ask(server.address, "/version").await;
    assert!(version.starts_with(r#"{"etcdserver":"3."#), "{version}");
    let client = EtcdKv::connect(vec![server.endpoint()], None).await.expect("it connects");
    client.txn(put("a")).await.expect("a write");
    let revision = server.store.status().revision.0;
    let (_, page) = ask(server.address, "/metrics").await;
    let (_, stock_page) = ask(theirs, "/metrics").await;
    for wanted in
        ["etcd_server_has_leader 1".into(), format!("etcd_debugging_mvcc_current_revision {revision}")]
    {
        assert!(page.lines().any(|line| line == wanted), "{wanted}: {page}");
    }
    // Dashboards and alerts are written for etcd's names.
    for line in page.lines().filter(|line| line.starts_with("etcd_")) {
        let name = line.split(['{', ' ']).next().expect("a name");
        assert!(stock_page.contains(name), "etcd has no {name}");
    }
    server.stop().await;
}

async fn raw_get(server: &Server, path: &str) -> (http::StatusCode, Bytes) {
    let socket = TcpStream::connect(server.address).await.expect("it listens");
    let (mut client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = http::Request::get(format!("http://etcd{path}")).body(()).expect("a request");
    let (answer, _) = client.send_request(request, true).expect("it is sent");
    let answer = answer.await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().data().await.expect("a body").expect("a whole body");
    driver.abort();
    (status, body)
}
