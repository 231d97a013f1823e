//! The command line: global flags and the list of verbs. The flags of a verb stand beside the verb.

use std::io;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::verb;

/// A Kubernetes-compatible cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "amoeba", version, max_term_width = 110)]
#[command(after_help = "Start with:  amoeba up            then, in a second terminal:  amoeba get nodes")]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub target: TargetFlags,
    /// Colours: when standard output is a terminal, always, or never
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true, hide = true)]
    pub color: Colour,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The flags that choose a cluster and a namespace; the same for every verb.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which cluster")]
pub struct TargetFlags {
    /// Kubeconfig file. Otherwise: $KUBECONFIG, the data directory of `amoeba up`, ~/.kube/config
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
    /// Namespace; otherwise that of the context, or "default"
    #[arg(short, long, value_name = "NAME", global = true)]
    pub namespace: Option<String>,
    /// Address of the API server, instead of the kubeconfig's
    #[arg(short, long, value_name = "URL", global = true)]
    pub server: Option<String>,
    /// Directory of the local cluster (`up`, `chaos`), or of this member or node (`server`, `store`, `node`)
    /// [default: $XDG_DATA_HOME/amoeba or ~/.local/share/amoeba]
    #[arg(long, value_name = "DIR", env = "AMOEBA_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// When to print colours.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Colour {
    /// On a terminal that has them.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Makes this the choice of every later print.
    pub fn write_global(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Command {
    /// Start a cluster on this machine and keep it running until Ctrl-C
    Up(verb::up::Args),
    /// Bring objects to the state of a manifest, creating what is missing
    Apply(verb::apply::Args),
    /// Create the objects of a manifest; fail if one exists
    Create(verb::create::Args),
    /// Show objects
    Get(verb::get::Args),
    /// Show everything about an object, with its events
    Describe(verb::describe::Args),
    /// Say why an object is as it is, and what would help
    Why(verb::why::Args),
    /// Show what a change led to: who wrote what because of it, when, and after how long
    Trace(verb::trace::Args),
    /// Show who changed which field of an object, and when
    History(verb::history::Args),
    /// Show what differs between an object's past and its present
    Diff(verb::diff::Args),
    /// Bring an object back to a state of its past
    Revert(verb::revert::Args),
    /// Delete objects and wait until they are gone
    Delete(verb::delete::Args),
    /// Show what a container wrote
    Logs(verb::logs::Args),
    /// Change the number of replicas
    Scale(verb::scale::Args),
    /// Follow, undo, pause or restart the rollout of a Deployment
    Rollout(verb::rollout::Args),
    /// Show what happened, oldest first
    Events(verb::events::Args),
    /// Kill, stop or resume a local node or member, with everything on it
    Chaos(verb::chaos::Args),
    /// Show the cluster at work
    Demo(verb::demo::Args),
    /// Show the version of this program and of the server
    Version(verb::version::Args),
    /// Print a completion script for a shell
    Completion(verb::completion::Args),
    /// Run one member of the control plane: store, API server, controllers, scheduler
    Server(verb::server::Args),
    /// Run one member of the store alone, behind etcd's API
    Store(verb::store::Args),
    /// Show or change the members of a store's cluster
    Member(verb::member::Args),
    /// Save, judge or restore the whole state of a store
    Snapshot(verb::snapshot::Args),
    /// Run the scheduler alone
    Scheduler(verb::scheduler::Args),
    /// Run the controllers alone
    Controllers(verb::controllers::Args),
    /// Run the node agent
    Node(verb::node::Args),
    /// Make, list or delete the tokens by which machines join
    Token(verb::token::Args),
    /// Load, fetch, list or remove the images of this machine's nodes
    Image(verb::image::Args),
}

impl Command {
    /// The runtime that fits the verb: a client needs one thread, a member wants all of them.
    pub fn runtime(&self) -> io::Result<tokio::runtime::Runtime> {
        let mut builder = match self {
            Self::Server(_) | Self::Store(_) | Self::Node(_) => tokio::runtime::Builder::new_multi_thread(),
            _ => tokio::runtime::Builder::new_current_thread(),
        };
        builder.enable_all().build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_and_flag_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help text", command.get_name());
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{} {} has no help text", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn global_flags_may_stand_before_or_after_the_verb() {
        for line in [&["amoeba", "-n", "x", "get", "pods"][..], &["amoeba", "get", "pods", "-n", "x"]] {
            let cli = Cli::try_parse_from(line).expect("both orders parse");
            assert_eq!(cli.target.namespace.as_deref(), Some("x"));
        }
    }
}
