//! A store of one member behind its etcd face, in this process.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;

use store::kv::MemberId;
use store::{Config, Store};
use tokio::net::TcpListener;
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
