//! The listener: TLS, and an end that neither cuts a request off nor waits for a watch.

use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{ConfigMap, Namespace};
use apiserver::pki::{MASTERS_GROUP, Pki};
use apiserver::{ApiServer, Config};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::TryStreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use store::model::Model;
use tokio::io::AsyncReadExt;
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
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pki = Arc::new(Pki::load_or_create(dir.path()).expect("a new authority"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen on loopback");
    let address = listener.local_addr().expect("an address");
    let mut config = Config::new(pki.clone());
    config.limits.tls_handshake = Duration::from_millis(50);
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
