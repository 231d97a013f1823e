//! What every verb starts from: the global flags and the environment, and from them the cluster.

use std::path::PathBuf;

use crate::cli::TargetFlags;
use crate::cluster::Cluster;
use crate::cluster::connect::{self, ConnectError};
use crate::environment::Environment;
use crate::failure::Failure;

/// The flags that choose a cluster, and the environment they fall back to.
#[derive(Clone, Debug)]
pub struct App {
    /// `--kubeconfig`, `--context`, `--namespace`, `--server`, `--data-dir`.
    pub target: TargetFlags,
    /// What the process was given.
    pub environment: Environment,
}

impl App {
    /// Nothing is read or opened yet.
    pub fn new(target: TargetFlags, environment: Environment) -> Self {
        Self { target, environment }
    }

    /// A client of the chosen cluster. Nothing is sent yet.
    pub async fn cluster(&self) -> Result<Cluster, ConnectError> {
        connect::connect(self).await
    }

    /// The directory of the local cluster: `--data-dir`, else the default.
    pub fn data_dir(&self) -> Result<PathBuf, Failure> {
        let chosen = self.target.data_dir.clone().or_else(|| self.environment.data_dir());
        chosen
            .ok_or_else(|| Failure::Usage("neither --data-dir nor $HOME is set: pass --data-dir DIR".into()))
    }
}
