//! A cluster on this machine: each member and each node its own process, watched by one supervisor.
//!
//! The supervisor decides in [`supervision`] (a value, no clock, no processes) and acts in [`supervisor`].
//! What the cluster is made of is remembered in the data directory, so that the next `up` brings it back.

pub mod balancer;
pub mod chaos_socket;
pub mod credentials;
pub mod health;
pub mod kept;
pub mod layout;
pub mod lock;
pub mod pod_network;
pub mod ports;
pub mod processes;
pub mod profile;
pub mod ready;
pub mod reporter;
pub mod shape;
pub mod spawn;
pub mod supervision;
pub mod supervisor;

use std::io;
use std::path::PathBuf;

use crate::scheduler_configuration::ConfigurationError;

/// Why the cluster can't be started or kept.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The flags contradict what is in the data directory.
    #[error(transparent)]
    Shape(#[from] shape::ShapeError),
    /// Another process has the data directory.
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    /// The port is taken.
    #[error(
        "port {port} is already in use: stop the program that listens there, or choose another with --port"
    )]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// Pods can't have addresses of their own.
    #[error("pods can't have addresses of their own here: {0}; --pod-network host does without")]
    PodNetwork(String),
    /// What was named at an earlier start can't be used any more.
    #[error(
        "this cluster keeps --scheduler-config {path} from an earlier start: name another file, or `none` to do \
         without one"
    )]
    KeptConfiguration {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: ConfigurationError,
    },
    /// A file or directory can't be used.
    #[error("cannot {attempt} {path}", path = .path.display())]
    File {
        /// As it reads after "cannot".
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate authority can't be made or read.
    #[error("cannot prepare the cluster's certificates")]
    Pki(#[from] apiserver::pki::PkiError),
    /// A process can't be started.
    #[error("cannot start {child}")]
    Spawn {
        /// Its name.
        child: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process ends again and again before it is ready.
    #[error("{child} doesn't start: {how}\n{tail}\n(the whole log: {log})", log = .log.display())]
    NeverReady {
        /// Its name.
        child: String,
        /// How it ended last.
        how: String,
        /// The end of its log.
        tail: String,
        /// Its log.
        log: PathBuf,
    },
    /// The operating system refused something that isn't a file.
    #[error("cannot {attempt}")]
    System {
        /// As it reads after "cannot".
        attempt: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl UpError {
    /// An error on a file; `attempt` reads after "cannot".
    pub fn file(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { attempt, path, source }
    }
}
