//! `amoeba controllers`: the controllers alone, beside any API server.

use std::path::{Path, PathBuf};

use controllers::ControllersConfig;

use super::node;
use crate::app::App;
use crate::failure::Failure;
use crate::leader_election::LeaderElectionArgs;
use crate::member;
use crate::signals::until_asked_to_stop;

/// Run the controllers alone, beside any API server
#[derive(Debug, clap::Args)]
#[command(after_help = "They need nothing but a kubeconfig. Several take turns by the lease \
                        kube-system/kube-controller-manager, also with\nupstream's. Certificate requests are left to \
                        others: who signs needs the cluster's key, which servers have.")]
pub struct Args {
    /// A certificate authority to publish as ConfigMap kube-root-ca.crt in each namespace; without it none is
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    #[command(flatten)]
    leader_election: LeaderElectionArgs,
    /// What is logged, as in RUST_LOG
    #[arg(long, value_name = "FILTER", default_value = member::DEFAULT_LOG, hide_default_value = true)]
    log: String,
}

/// Reconciles until a signal.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    member::log_to_stderr(&args.log);
    let config = config(&args)?;
    let client = node::client(app, "kube-controller-manager").await?;
    until_asked_to_stop(|asked| controllers::run(client, config, asked)).await
}

fn config(args: &Args) -> Result<ControllersConfig, Failure> {
    // A restarted process must not take itself for the holder of its old lease.
    let mut config = ControllersConfig::upstream(&format!("controllers_{:08x}", rand::random::<u32>()));
    config.election = args.leader_election.timed(config.election);
    config.root_ca = args.root_ca_file.as_deref().map(authority).transpose()?;
    Ok(config)
}

fn authority(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Failure::io(format!("read --root-ca-file {}", path.display()), source))?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return Ok(text);
    }
    Err(Failure::Usage(format!("--root-ca-file {}: it holds no certificate in PEM", path.display())))
}
