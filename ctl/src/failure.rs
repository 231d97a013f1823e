//! Why a verb failed, as the user reads it: what was attempted, on what, why, and what to do next.

use std::io;

use kubelet::image::ImageError;
use store::backup::BackupError;
use store::recovery::RecoveryError;

use crate::cluster::connect::ConnectError;
use crate::cluster::request::RequestError;
use crate::control_plane::joining::JoiningError;
use crate::etcdctl::cluster::CallError;
use crate::manifest::ManifestError;
use crate::member::MemberError;
use crate::up::UpError;
use crate::up::chaos_socket::ChaosError;

/// The end of a verb that didn't succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line contradicts itself or the cluster.
    #[error("{0}")]
    Usage(String),
    /// The cluster's address or credentials could not be found or used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The machine can't become a member of the control plane.
    #[error("cannot join the control plane")]
    Joining(#[from] JoiningError),
    /// The API server refused or could not be reached.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A manifest could not be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// `amoeba up` could not start or keep its cluster.
    #[error(transparent)]
    Up(#[from] UpError),
    /// The supervisor of a local cluster could not be reached, or refused.
    #[error(transparent)]
    Chaos(#[from] ChaosError),
    /// `amoeba server` or `amoeba node` could not start or keep running.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The store's cluster could not be reached, or refused.
    #[error(transparent)]
    Store(#[from] CallError),
    /// A snapshot can't be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The images can't be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A survivor can't go on alone.
    #[error("--force-new-cluster")]
    Recovery(#[from] RecoveryError),
    /// Something on this machine failed.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted, as it reads after "cannot".
        attempt: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The time the user gave is over.
    #[error("{0}")]
    Timeout(String),
    /// Two states differ, and how was already printed.
    #[error("they differ")]
    Differs,
    /// A check that the user asked for did not hold.
    #[error("{0}")]
    NotHeld(String),
    /// Every error was already printed with its place; this is what became of the whole.
    #[error("{consequence} ({} above)", crate::text::count(*.errors, "error"))]
    Reported {
        /// How many were printed.
        errors: usize,
        /// Such as "nothing was applied".
        consequence: &'static str,
    },
}

impl Failure {
    /// An error of the operating system while trying to do `attempt`.
    pub fn io(attempt: impl Into<String>, source: io::Error) -> Self {
        Self::Io { attempt: attempt.into(), source }
    }

    /// The exit code of the process: 2 for a misuse of the command line, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}
