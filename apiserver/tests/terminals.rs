//! A terminal whose output is paused waits for its user, however little patience the server has with others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::{MASTERS_GROUP, Pki};
use apiserver::{ApiServer, Config, Identity};
use kube::Client;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use store::model::Model;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// More than all buffers between the container and its user hold.
const OUTPUT: usize = 16 << 20;
const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/// A node whose containers say much at once.
async fn talkative_node(pki: &Pki) -> SocketAddr {
    let certificate = pki.issue_node("n1", &[LOOPBACK]).expect("issued");
    let acceptor = TlsAcceptor::from(pki.server_tls_config(&certificate).expect("a TLS configuration"));
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("listen on loopback");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let mut stream = BufReader::new(acceptor.accept(tcp).await.expect("TLS"));
        while stream.read_line(&mut String::new()).await.expect("a line of the head") > 2 {}
        stream.write_all(UPGRADED.as_bytes()).await.expect("answered");
        stream.write_all(&vec![b'x'; OUTPUT]).await.expect("somebody listens to the end");
        stream.shutdown().await.expect("said farewell");
    });
    address
}

async fn send(client: &Client, method: &str, path: &str, object: serde_json::Value) {
    let request =
        http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes()).expect("a request");
    client.request_text(request).await.expect("written");
}

/// A pod on the node.
async fn place(server: &Arc<ApiServer>, node: SocketAddr) {
    let client = Client::new(server.in_process(Identity::new("admin", &[MASTERS_GROUP])), "default");
    let space = "/api/v1/namespaces/default";
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": node.ip()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": node.port()}},
    });
    send(&client, "POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}, "status": status})).await;
    let spec = json!({"nodeName": "n1", "containers": [{"name": "app", "image": "i"}]});
    send(&client, "POST", &format!("{space}/pods"), json!({"metadata": {"name": "web"}, "spec": spec})).await;
}

/// As the administrator.
async fn connect(pki: &Pki, address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let admin = pki.issue_client("admin", &[MASTERS_GROUP]).expect("issued");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(pki.ca_pem())).expect("added");
    let key = PrivateKeyDer::from_pem_slice(admin.key_pem.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.expect("versions").with_root_certificates(roots);
    let tls = tls.with_client_auth_cert(vec![certificate(&admin.certificate_pem)], key).expect("a client");
    let tcp = TcpStream::connect(address).await.expect("connected");
    TlsConnector::from(Arc::new(tls)).connect(ServerName::from(LOOPBACK), tcp).await.expect("TLS")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_terminal_is_not_cut_off() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new authority"));
    let mut config = Config::new(pki.clone());
    // Whoever else doesn't take at once what is sent to him is cut off.
    config.limits.stall = Duration::ZERO;
    let server = ApiServer::start(Arc::new(Model::new()), config).await.expect("the server starts");
    place(&server, talkative_node(&pki).await).await;
    let certificate = pki.issue_server(&["localhost".to_owned()], &[LOOPBACK]).expect("issued");
    let tls = pki.server_tls_config(&certificate).expect("a TLS configuration");
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("listen on loopback");
    let address = listener.local_addr().expect("an address");
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(async move { server.serve(listener, tls, stopped).await });

    let mut terminal = BufReader::new(connect(&pki, address).await);
    let path = "/api/v1/namespaces/default/pods/web/exec?command=yes&stdout=true";
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n");
    terminal.write_all(head.as_bytes()).await.expect("asked");
    let mut status = String::new();
    terminal.read_line(&mut status).await.expect("an answer");
    assert!(status.starts_with("HTTP/1.1 101 "), "{status}");
    let mut line = String::new();
    while terminal.read_line(&mut line).await.expect("a line of the head") > 2 {}
    // Read slowly enough for every write on the way to wait.
    let (mut seen, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        match terminal.read(&mut buffer).await.expect("never cut off") {
            0 => break,
            read => seen += read,
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, OUTPUT);
}
