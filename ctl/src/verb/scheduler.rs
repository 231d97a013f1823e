//! `amoeba scheduler`: the scheduler alone, beside any API server.

use std::path::PathBuf;

use client::election::ElectionConfig;
use scheduler::SchedulerConfig;
use scheduler::pod::DEFAULT_SCHEDULER;
use scheduler::profile::Profiles;

use super::node;
use crate::app::App;
use crate::failure::Failure;
use crate::leader_election::LeaderElectionArgs;
use crate::member::{self, MemberError};
use crate::scheduler_configuration;
use crate::signals::until_asked_to_stop;

/// Run the scheduler alone, beside any API server
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It needs nothing but a kubeconfig. Several take turns by a lease, one for each --scheduler-name."
)]
pub struct Args {
    /// Pods with this schedulerName are its own
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SCHEDULER)]
    scheduler_name: String,
    /// A KubeSchedulerConfiguration: several profiles, rules with other weights; what it says goes before flags
    #[arg(long, value_name = "FILE", conflicts_with = "scheduler_name")]
    config: Option<PathBuf>,
    /// Other schedulers use the same nodes: bind no pod without knowing of theirs (they must say so, too)
    #[arg(long)]
    shared_nodes: bool,
    #[command(flatten)]
    leader_election: LeaderElectionArgs,
    /// What is logged, as in RUST_LOG
    #[arg(long, value_name = "FILTER", default_value = member::DEFAULT_LOG, hide_default_value = true)]
    log: String,
}

/// Schedules until a signal.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    member::log_to_stderr(&args.log);
    let config = config(&args)?;
    let client = node::client(app, "kube-scheduler").await?;
    until_asked_to_stop(|asked| scheduler::run(client, config, asked)).await
}

fn config(args: &Args) -> Result<SchedulerConfig, MemberError> {
    let name = args.scheduler_name.as_str();
    // A restarted scheduler must not take itself for the holder of its old lease.
    let identity = format!("scheduler_{:08x}", rand::random::<u32>());
    let lease = if name == DEFAULT_SCHEDULER { "kube-scheduler" } else { name };
    let flags = SchedulerConfig {
        election: args.leader_election.timed(ElectionConfig::upstream(lease, &identity)),
        profiles: Profiles::upstream(name),
        shares_nodes: args.shared_nodes,
        ..SchedulerConfig::new(&identity)
    };
    match &args.config {
        Some(path) => Ok(flags.configured(scheduler_configuration::read_to_run(path)?)),
        None => Ok(flags),
    }
}
