//! The flags that say which server is measured.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::kubeconfig::Target;
use crate::process::Pid;

/// Somebody's server, or the binary to start one of our own with.
#[derive(Debug, clap::Args)]
pub struct MeasuredArgs {
    /// The server to measure, and as whom; otherwise a cluster of our own is started
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Processes of that server on this machine, for CPU and memory (separated by commas)
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<Pid>,
    /// What the server is called in the page
    #[arg(long, value_name = "NAME", default_value = "amoeba")]
    pub name: String,
    /// The binary that is measured without a kubeconfig, and that simulates nodes
    #[arg(long, value_name = "FILE", default_value = "bin/amoeba")]
    amoeba: PathBuf,
    /// Also write the page into this directory
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// A server, and what of it runs on this machine.
pub struct Server {
    /// Where and as whom.
    pub target: Target,
    /// Its processes here, if known.
    pub pids: Vec<Pid>,
}

impl MeasuredArgs {
    /// The server of the kubeconfig, if there is one.
    pub fn server(&self) -> Result<Option<Server>> {
        let server = |path: &PathBuf| Ok(Server { target: Target::read(path)?, pids: self.pid.clone() });
        self.kubeconfig.as_ref().map(server).transpose()
    }

    /// The binary, wherever we are.
    pub fn binary(&self) -> Result<PathBuf> {
        binary(&self.amoeba)
    }
}

/// The absolute path of a built binary.
pub fn binary(path: &std::path::Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("find {} (built by `make build`)", path.display()))
}
