//! The node's HTTPS API: logs for the API server, health and pods for whoever looks.
//!
//! Always holds: every connection is TLS with a client certificate of the cluster's CA, and only the API
//! server's own identity and `system:masters` get an answer.

mod auth;
mod connection;
mod inotify;
pub mod logs;
mod route;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, oneshot, watch};

pub use auth::Tls;
pub use connection::serve;

use crate::agent::table::{LogRefusal, LogTarget, PodTable};
use crate::config::LogLimits;

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
}

impl Query {
    /// Answers from the table. Whoever asked may have gone: that is fine.
    pub fn answer(self, table: &PodTable) {
        match self {
            Self::Pods(reply) => drop(reply.send(table.pods().map(|life| life.pod().clone()).collect())),
            Self::Log { namespace, pod, container, reply } => {
                drop(reply.send(table.log_target(&namespace, &pod, &container)));
            }
        }
    }
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

    /// Changes whenever a container has ended.
    pub fn ended(&self) -> watch::Receiver<u64> {
        (*self.ended).clone()
    }
}
