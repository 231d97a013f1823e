//! `amoeba scheduler`: the scheduler alone, beside any API server.

use client::election::ElectionConfig;
use scheduler::SchedulerConfig;
use scheduler::pod::DEFAULT_SCHEDULER;

use super::node;
use crate::app::App;
use crate::failure::Failure;
use crate::leader_election::LeaderElectionArgs;
use crate::member;
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
    let client = node::client(app, "kube-scheduler").await?;
    until_asked_to_stop(|asked| scheduler::run(client, config(&args), asked)).await
}

fn config(args: &Args) -> SchedulerConfig {
    let name = args.scheduler_name.as_str();
    // A restarted scheduler must not take itself for the holder of its old lease.
    let identity = format!("scheduler_{:08x}", rand::random::<u32>());
    let lease = if name == DEFAULT_SCHEDULER { "kube-scheduler" } else { name };
    SchedulerConfig {
        election: args.leader_election.timed(ElectionConfig::upstream(lease, &identity)),
        identity,
        scheduler_name: name.to_owned(),
        shares_nodes: args.shared_nodes,
    }
}
