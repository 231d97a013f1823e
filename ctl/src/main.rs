//! The `amoeba` command: reads the command line and the environment, runs one verb, prints one clear error.
//!
//! Nothing below this file reads the environment, and nothing below it ends the process.

mod app;
mod apply;
mod cli;
mod cluster;
mod control_plane;
mod demo;
mod describe;
mod environment;
mod etcdctl;
mod failure;
mod invitation;
mod leader_election;
mod manifest;
mod member;
mod node_membership;
mod output;
mod past;
mod print;
mod recovery;
mod scheduler_configuration;
mod signals;
mod standalone;
mod text;
mod trace;
mod up;
mod verb;
mod why;

use std::process::ExitCode;

use clap::Parser as _;

use crate::app::App;
use crate::cli::{Cli, Command};
use crate::environment::Environment;
use crate::failure::Failure;

/// Objects are trees of small values that one thread makes and another drops: with glibc's allocator, a quarter of the
/// CPU went into that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The shims of containers must stay tiny: they start no runtime and read no configuration.
    if let Some(code) = verb::shim::intercept(std::env::args_os()) {
        return code;
    }
    // Builds for tests can be told where to fail; `$FAILPOINTS` says it.
    let _failpoints = fail::has_failpoints().then(fail::FailScenario::setup);
    let cli = Cli::parse();
    cli.color.write_global();
    let app = App::new(cli.target, Environment::of_process());
    report(run(&app, cli.command))
}

fn run(app: &App, command: Command) -> Result<(), Failure> {
    let runtime =
        command.runtime().map_err(|source| Failure::io("start the asynchronous runtime", source))?;
    let outcome = runtime.block_on(verb::run(app, command));
    // Tasks that still block (a read of standard input) must not hold up the end of the process.
    runtime.shutdown_background();
    outcome
}

fn report(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The differences are the output.
        Err(failure @ Failure::Differs) => ExitCode::from(failure.exit_code()),
        Err(failure) => {
            print::error::print(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
