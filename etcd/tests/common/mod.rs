//! A store of one member behind its etcd face, in this process; and a real etcd beside it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use store::kv::MemberId;
use store::{Config, Store};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running server; its directory goes with it.
pub struct Server {
    /// The store below.
    pub store: Store,
    /// Where it listens.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<std::io::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// In clear text with default limits.
    pub async fn start() -> Self {
        Self::start_with(etcd::Config::plain()).await
    }

    /// As configured.
    pub async fn start_with(config: etcd::Config) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(Config::single(dir.path(), MemberId(1))).await.expect("the store opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(etcd::serve(store.clone(), config, listener, stopped));
        Self { store, address, stop, serving, _dir: dir }
    }

    /// `host:port`.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Stops the server and then the store.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let served = self.serving.await.expect("the server doesn't panic");
        served.expect("the server ends in good order");
        self.store.close().await;
    }
}

/// A stock etcd of one member on loopback.
pub struct RealEtcd {
    /// `host:port` for clients.
    pub endpoint: String,
    _process: Child,
    _dir: tempfile::TempDir,
}

impl RealEtcd {
    /// Starts one and waits until it serves.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (client, peer) = (free_port().await, free_port().await);
        let endpoint = format!("127.0.0.1:{client}");
        let (client, peer) = (format!("http://{endpoint}"), format!("http://127.0.0.1:{peer}"));
        let process = Command::new("etcd")
            .args(["--data-dir", dir.path().to_str().expect("an ASCII path")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("etcd is installed: apt install etcd-server");
        let healthy = async {
            loop {
                let mut health = Command::new("etcdctl");
                health.args(["--endpoints", &endpoint, "endpoint", "health"]).env("ETCDCTL_API", "3");
                if health.output().await.expect("etcdctl runs").status.success() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), healthy).await.expect("etcd starts within 30 s");
        Self { endpoint, _process: process, _dir: dir }
    }
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
