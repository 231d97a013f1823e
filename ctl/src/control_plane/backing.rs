//! What keeps the objects of a control plane: the own store, or a stock etcd cluster.

use std::path::Path;
use std::sync::Arc;

use apiserver::members::Group;
use apiserver::pki::{Pki, PkiError};
use etcd::client::EtcdKv;
use store::Store;
use store::kv::{Kv, MemberId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::certificates;
use crate::member::{self, MemberError};
use crate::standalone::url::Url;
use crate::up::spawn::Report;

/// Where the objects are.
pub enum Backing {
    /// In this process.
    Own(OwnStore),
    /// In an etcd cluster that others run.
    Stock(Arc<EtcdKv>),
}

/// The own store, and what runs beside it.
pub struct OwnStore {
    store: Store,
    leadership: JoinHandle<()>,
    /// Serve etcd's clients, if asked to; they end when asked to.
    servers: JoinSet<std::io::Result<()>>,
    stop: watch::Sender<bool>,
    /// Makes this member's name and client URLs known; ends when that is done.
    published: JoinHandle<()>,
}

/// Where etcd's clients are served by a member of the control plane.
pub struct EtcdDoor {
    /// Bound already: a taken port is refused before anything is opened.
    pub listeners: Vec<TcpListener>,
    /// Where clients are told to come.
    pub advertised: Vec<Url>,
    /// Under which names and addresses they come.
    pub hosts: Vec<String>,
}

impl Backing {
    /// What the API server reads and writes.
    pub fn kv(&self) -> Arc<dyn Kv> {
        match self {
            Self::Own(own) => Arc::new(own.store.clone()),
            Self::Stock(etcd) => etcd.clone(),
        }
    }

    /// The group of members, if the objects are theirs.
    pub fn group(&self) -> Option<Group> {
        match self {
            Self::Own(own) => Some(Group(own.store.clone())),
            Self::Stock(_) => None,
        }
    }

    /// Returns when the cluster has removed this member; never otherwise.
    pub async fn ended(&self) {
        match self {
            Self::Own(own) => {
                own.store.removed().await;
                tracing::warn!("this member was removed from its cluster, and ends");
            }
            Self::Stock(_) => std::future::pending().await,
        }
    }

    /// Ends the own store; leaves a stock etcd alone.
    pub async fn close(self) {
        match self {
            Self::Own(own) => own.close().await,
            Self::Stock(_) => {}
        }
    }
}

impl OwnStore {
    /// Opens the store in `dir` and makes the member known to its cluster by its name and by where etcd's
    /// clients are told to come.
    ///
    /// # Errors
    /// [`MemberError::Store`] says what was attempted.
    pub async fn open(
        dir: &Path,
        config: store::Config,
        name: &str,
        clients: &[Url],
    ) -> Result<Self, MemberError> {
        let store =
            Store::open(config).await.map_err(|source| MemberError::Store { dir: dir.to_owned(), source })?;
        let leadership = tokio::spawn(report_leadership(store.leadership(), store.status().member));
        let (servers, stop) = (JoinSet::new(), watch::Sender::new(false));
        let published = tokio::spawn(publish(store.clone(), name.to_owned(), clients.to_vec()));
        Ok(Self { store, leadership, servers, stop, published })
    }

    /// Lets those in who have a certificate of the etcd authority.
    ///
    /// # Errors
    /// If no certificate can be made.
    pub fn serve_etcd(&mut self, door: EtcdDoor, pki: &Arc<Pki>) -> Result<(), PkiError> {
        let tls = certificates::etcd(pki, &door.hosts)?;
        for listener in door.listeners {
            let config = etcd::Config { tls: Some(tls.clone()), peer_tls: true, ..etcd::Config::default() };
            self.servers.spawn(etcd::serve(self.store.clone(), config, listener, self.stop.subscribe()));
        }
        Ok(())
    }

    async fn close(mut self) {
        self.stop.send_replace(true);
        while self.servers.join_next().await.is_some() {}
        self.leadership.abort();
        self.published.abort();
        self.store.close().await;
    }
}

/// Tells the cluster who this member is; the store tries until it is done.
async fn publish(store: Store, name: String, clients: Vec<Url>) {
    let urls: Vec<String> = clients.iter().map(Url::to_string).collect();
    if let Err(error) = store.publish(&name, &urls).await {
        tracing::warn!(%error, "this member's name and client URLs aren't known to its cluster");
    }
}

/// Tells the supervisor whenever this member begins or ceases to lead.
async fn report_leadership(mut leader: watch::Receiver<Option<MemberId>>, own: MemberId) {
    let mut leads = false;
    loop {
        let now = *leader.borrow_and_update() == Some(own);
        if now != leads {
            member::report(if now { Report::Leading } else { Report::Following });
            leads = now;
        }
        if leader.changed().await.is_err() {
            return;
        }
    }
}

/// Binds the URLs for etcd's clients.
///
/// # Errors
/// [`MemberError::ListenUrl`] names the URL.
pub async fn listen(urls: &[Url], advertised: &[Url]) -> Result<EtcdDoor, MemberError> {
    let (mut listeners, mut bound) = (Vec::new(), Vec::new());
    for url in urls {
        let failed = |source| MemberError::ListenUrl { url: url.to_string(), source };
        let listener = TcpListener::bind((url.host.as_str(), url.port)).await.map_err(failed)?;
        bound.push(url.with_port(listener.local_addr().map_err(failed)?.port()));
        listeners.push(listener);
    }
    let hosts = bound.iter().chain(advertised).filter(|url| !url.is_unspecified());
    let hosts = hosts.map(|url| url.host.clone()).collect();
    let advertised = if advertised.is_empty() { bound } else { advertised.to_vec() };
    Ok(EtcdDoor { listeners, advertised, hosts })
}
