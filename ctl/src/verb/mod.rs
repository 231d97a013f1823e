//! The verbs, one a file: the flags of a verb and what it does with them.

pub mod apply;
pub mod chaos;
pub mod completion;
pub mod controllers;
pub mod create;
pub mod delete;
pub mod demo;
pub mod describe;
pub mod diff;
pub mod events;
mod eviction;
pub mod get;
pub mod history;
pub mod image;
pub mod logs;
pub mod member;
pub mod node;
pub mod revert;
pub mod rollout;
pub mod scale;
pub mod scheduler;
pub mod selection;
pub mod server;
pub mod shim;
pub mod snapshot;
pub mod store;
pub mod token;
pub mod trace;
pub mod up;
pub mod version;
pub mod why;

use crate::app::App;
use crate::cli::Command;
use crate::failure::Failure;

/// Runs one verb to its end.
pub async fn run(app: &App, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(app, args).await,
        Command::Apply(args) => apply::run(app, args).await,
        Command::Create(args) => create::run(app, args).await,
        Command::Get(args) => get::run(app, args).await,
        Command::Describe(args) => describe::run(app, args).await,
        Command::History(args) => history::run(app, args).await,
        Command::Why(args) => why::run(app, args).await,
        Command::Trace(args) => trace::run(app, args).await,
        Command::Diff(args) => diff::run(app, args).await,
        Command::Revert(args) => revert::run(app, args).await,
        Command::Delete(args) => delete::run(app, args).await,
        Command::Logs(args) => logs::run(app, args).await,
        Command::Scale(args) => scale::run(app, args).await,
        Command::Rollout(args) => rollout::run(app, args).await,
        Command::Events(args) => events::run(app, args).await,
        Command::Chaos(args) => chaos::run(app, args).await,
        Command::Demo(args) => demo::run(app, args).await,
        Command::Version(args) => version::run(app, args).await,
        Command::Completion(args) => completion::run(args),
        Command::Controllers(args) => controllers::run(app, args).await,
        Command::Scheduler(args) => scheduler::run(app, args).await,
        Command::Server(args) => server::run(app, args).await,
        Command::Store(args) => store::run(app, args).await,
        Command::Member(args) => member::run(app, args).await,
        Command::Snapshot(args) => snapshot::run(app, args).await,
        Command::Node(args) => node::run(app, args).await,
        Command::Image(args) => image::run(app, args).await,
        Command::Token(args) => token::run(app, args).await,
    }
}

/// One line on standard output. A closed pipe (`| head`) ends the output silently, as in any tool.
pub fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// Text on standard output as it is.
pub fn say_raw(text: &str) {
    use std::io::Write as _;
    let mut out = anstream::stdout();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// One line on standard error, for what isn't the result.
pub fn note(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(anstream::stderr(), "{line}");
}
