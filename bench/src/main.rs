//! Measures a built `amoeba` and prints a Markdown table.
//!
//! It drives the binary from outside, as a user would, through the API and the process table; it links
//! nothing of it. Figures are printed with the load average at their time: on a busy machine they say less.
//! No figure is asserted.

mod api;
mod cluster;
mod http;
mod kubeconfig;
mod measure;
mod measured;
mod nodes;
mod objects;
mod process;
mod report;
mod scheduler;
mod statistics;
mod store;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use measure::Setting;
use report::Row;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measure a built amoeba binary and print a Markdown table.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The binary to measure
    #[arg(long, value_name = "FILE", default_value = "bin/amoeba")]
    amoeba: PathBuf,
    /// Repetitions of each measurement
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measure only these (separated by commas)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measurement>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Api(api::Arguments),
    Nodes(nodes::Arguments),
    Scheduler(scheduler::Arguments),
    Store(store::Arguments),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    Startup,
    IdleMemory,
    PodRate,
    NodeKill,
    LeaderKill,
    ApiRate,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Api(arguments)) => api::run(arguments),
        Some(Command::Nodes(arguments)) => nodes::run(arguments),
        Some(Command::Scheduler(arguments)) => scheduler::run(arguments),
        Some(Command::Store(arguments)) => store::run(arguments),
        None => cluster(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cluster(arguments: &Arguments) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(run(arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let setting = setting(arguments)?;
    let chosen = if arguments.only.is_empty() { Measurement::value_variants() } else { &arguments.only };
    println!("{}", report::heading());
    let mut failed = 0;
    for measurement in chosen {
        eprintln!("measuring {measurement:?} …");
        match measure(*measurement, &setting).await {
            Ok(rows) => rows.iter().for_each(|row| println!("{row}")),
            Err(error) => {
                failed += 1;
                eprintln!("{measurement:?} failed: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} measurements failed", chosen.len());
    }
    Ok(())
}

fn setting(arguments: &Arguments) -> Result<Setting> {
    let binary = measured::binary(&arguments.amoeba)?;
    if arguments.runs == 0 {
        bail!("--runs must be at least 1");
    }
    Ok(Setting { binary, runs: arguments.runs })
}

async fn measure(measurement: Measurement, setting: &Setting) -> Result<Vec<Row>> {
    match measurement {
        Measurement::Startup => measure::startup::run(setting).await,
        Measurement::IdleMemory => measure::idle_memory::run(setting).await,
        Measurement::PodRate => measure::pod_rate::run(setting).await,
        Measurement::NodeKill => measure::node_kill::run(setting).await,
        Measurement::LeaderKill => measure::leader_kill::run(setting).await,
        Measurement::ApiRate => measure::api_rate::run(setting).await,
    }
}
