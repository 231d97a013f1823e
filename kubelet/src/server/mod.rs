//! The node's HTTPS API: logs for the API server, health and pods for whoever looks.
//!
//! Always holds: every connection is TLS, every request has a caller, by certificate or token of the cluster, and
//! nothing is answered that the API server doesn't allow the caller ([`auth`]).

mod answer;
pub mod auth;
mod connection;
pub(crate) mod inotify;
pub mod logs;
mod machine_logs;
mod route;
mod streams;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, oneshot, watch};

pub use answer::Served;
pub use connection::{Patience, serve};
pub use route::Place;
#[cfg(test)]
pub(crate) use tls::testing;
pub use tls::{Shown, Tls};

use crate::agent::table::{LogRefusal, LogTarget, PodTable};
use crate::config::LogLimits;
use crate::pod::{ContainerId, PodRef};

/// Questions that wait for the agent's loop; when it is full, requests wait.
const QUERIES: usize = 64;

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A certificate, key or CA can't be read.
    #[error("read the PEM file {}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// They don't fit together.
    #[error("set up TLS from {}", cert.display())]
    Tls {
        /// The server's certificate.
        cert: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The client CA isn't one.
    #[error("use the client CA {}", path.display())]
    ClientCa {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// The port can't be had.
    #[error("listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where the containers' logs are.
#[derive(Clone, Debug)]
pub struct LogSource {
    /// The agent's data directory.
    pub data_dir: PathBuf,
    /// How many files a log has.
    pub limits: LogLimits,
}

/// A question to the agent's loop, which alone knows the pods.
#[derive(Debug)]
pub enum Query {
    /// All pods, with the status last computed by anyone.
    Pods(oneshot::Sender<Vec<Pod>>),
    /// Which runs of a container have a log.
    Log {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<LogTarget, LogRefusal>>,
    },
    /// A pod, and the run of one of its containers.
    Find(Place, oneshot::Sender<Option<Found>>),
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub pod: PodRef,
    /// The run of the container that was asked for, if its process runs.
    pub run: Option<ContainerId>,
}

impl Query {
    /// Answers from the table. Whoever asked may have gone: that is fine.
    pub fn answer(self, table: &PodTable) {
        match self {
            Self::Pods(reply) => drop(reply.send(table.pods().map(|life| life.pod().clone()).collect())),
            Self::Log { namespace, pod, container, reply } => {
                drop(reply.send(table.log_target(&namespace, &pod, &container)));
            }
            Self::Find(place, reply) => drop(reply.send(find(&place, table))),
        }
    }
}

fn find(place: &Place, table: &PodTable) -> Option<Found> {
    let meant = place.uid.as_deref();
    let life = table.named(&place.namespace, &place.pod)?;
    let pod = life.pod_ref().clone();
    let container = life.containers().iter().find(|container| container.name.0 == place.container);
    let run = container.and_then(|container| container.run()).map(|run| run.id.clone());
    meant.is_none_or(|uid| uid == pod.uid.0).then_some(Found { pod, run })
}

/// The asking side.
#[derive(Clone, Debug)]
pub struct Asker {
    queries: mpsc::Sender<Query>,
    ended: Arc<watch::Receiver<u64>>,
}

/// The asking side, the questions, and the count of ended containers.
pub fn asker() -> (Asker, mpsc::Receiver<Query>, watch::Sender<u64>) {
    let (queries, receiver) = mpsc::channel(QUERIES);
    let (sender, ended) = watch::channel(0);
    (Asker { queries, ended: Arc::new(ended) }, receiver, sender)
}

/// The agent's loop has ended.
#[derive(Debug, thiserror::Error)]
#[error("the node agent is stopping")]
pub struct Stopping;

impl Asker {
    /// All pods.
    pub async fn pods(&self) -> Result<Vec<Pod>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(Query::Pods(reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Which runs of a container have a log.
    pub async fn log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<Result<LogTarget, LogRefusal>, Stopping> {
        let (reply, answer) = oneshot::channel();
        let (namespace, pod, container) = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let query = Query::Log { namespace, pod, container, reply };
        self.queries.send(query).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// A pod, and the run of one of its containers; `None` if there is no such pod here.
    pub async fn find(&self, place: Place) -> Result<Option<Found>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(Query::Find(place, reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Changes whenever a container has ended.
    pub fn ended(&self) -> watch::Receiver<u64> {
        (*self.ended).clone()
    }
}
