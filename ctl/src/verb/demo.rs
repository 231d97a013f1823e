//! `amoeba demo`

use crate::app::App;
use crate::demo;
use crate::failure::Failure;

/// Show the cluster at work
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Kill a node and a leader, and watch the cluster repair itself; the exit code says whether it did
    SelfHeal,
    /// What the pods run that the demo visits through a Service
    #[command(hide = true)]
    Answer,
}

/// Runs the demo on a cluster of its own, which is gone afterwards.
pub async fn run(_app: &App, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::SelfHeal => demo::self_heal::run().await,
        Command::Answer => demo::visitor::answer().await,
    }
}
