//! `amoeba chaos`: break a local cluster on purpose.

use super::say;
use crate::app::App;
use crate::failure::Failure;
use crate::print::table::simple;
use crate::up::chaos_socket::{ChildStatus, Order, order};
use crate::up::layout::Layout;

/// Break the local cluster on purpose
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  amoeba chaos ls\n  amoeba chaos kill n2      # the agent and every process of its \
                        pods\n  amoeba chaos stop m1      # frozen, as if it hung\n  amoeba chaos resume n2"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show members and nodes and their processes
    Ls,
    /// Kill a node with its pods, or a member, as a power cut would; it stays down until resumed
    Kill(Which),
    /// Freeze the processes of a node with its pods, or of a member
    Stop(Which),
    /// Start again what was killed, let go on what was frozen
    Resume(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// m1, m2, … or n1, n2, …
    #[arg(value_name = "NODE_OR_MEMBER", required = true)]
    names: Vec<String>,
}

/// Gives the orders to the supervisor, one after the other.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let dir = app.data_dir()?;
    let socket = Layout::new(dir.clone()).socket();
    for (wanted, done) in orders(args.command) {
        let children = order(&dir, &socket, &wanted).await?;
        match done {
            Some(done) => say(done),
            None => table(children).iter().for_each(say),
        }
    }
    Ok(())
}

/// Each order with what is said when it is done.
fn orders(command: Command) -> Vec<(Order, Option<String>)> {
    let each = |which: Which, order: fn(String) -> Order, verb: &str| {
        which.names.into_iter().map(|name| (order(name.clone()), Some(format!("{name} {verb}")))).collect()
    };
    match command {
        Command::Ls => vec![(Order::List, None)],
        Command::Kill(which) => each(which, |child| Order::Kill { child }, "killed"),
        Command::Stop(which) => each(which, |child| Order::Stop { child }, "stopped"),
        Command::Resume(which) => each(which, |child| Order::Resume { child }, "resumed"),
    }
}

fn table(children: Vec<ChildStatus>) -> Vec<String> {
    let row = |child: ChildStatus| {
        let role = if child.leader { format!("{} (leader)", child.role) } else { child.role };
        let pid = child.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        vec![child.name, role, child.state, pid, child.restarts.to_string()]
    };
    simple(&["NAME", "ROLE", "STATE", "PID", "RESTARTS"], children.into_iter().map(row).collect())
}
