//! `bench store`: our store beside etcd, over the same API, on the same machine, in the same run.
//!
//! One generator drives both. The sides alternate, pair by pair, so that what the machine does meanwhile
//! hits both alike; a ratio is taken within a pair.

pub mod document;
mod flushes;
mod http2;
mod load;
mod messages;
mod plot;
mod results;
mod server;
mod watchers;
mod workload;

use crate::process;
use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid as UnixPid;
use results::Outcome;
use server::{Setting, Side};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use workload::Workload;

/// Measure the store beside etcd and write docs/bench-store.md and .svg
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Our binary
    #[arg(long, value_name = "FILE", default_value = "bin/amoeba")]
    amoeba: PathBuf,
    /// etcd's binary
    #[arg(long, value_name = "FILE", default_value = "etcd")]
    etcd: PathBuf,
    /// A few minutes instead of most of an hour: fewer lines, shorter runs
    #[arg(long)]
    quick: bool,
    /// Pairs of runs for each line [default: 5, quick 3]
    #[arg(long)]
    pairs: Option<usize>,
    /// Seconds counted in each run [default: 4, quick 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// Only lines whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Cores of the servers, such as 0-3 [default: the lower half]
    #[arg(long, value_name = "LIST")]
    server_cores: Option<String>,
    /// Core of the load generator [default: the last]
    #[arg(long, value_name = "CORE")]
    client_core: Option<usize>,
    /// Where data directories are made; must be on a real disk [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Where bench-store.md and bench-store.svg are written; without it only the table is printed
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Pins this process, then measures on one thread: more would only wake each other.
pub fn run(arguments: &Arguments) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let client_core = arguments.client_core.unwrap_or(cores - 1);
    let server_cores = arguments.server_cores.clone().unwrap_or_else(|| lower_half(cores));
    let mut mine = CpuSet::new();
    mine.set(client_core).context("--client-core")?;
    // A thousand connections, of which the servers have the other ends: they inherit this.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")?;
    sched_setaffinity(UnixPid::from_raw(0), &mine).with_context(|| format!("pin to core {client_core}"))?;
    let setting = Setting {
        etcd: arguments.etcd.clone(),
        amoeba: arguments.amoeba.clone(),
        server_cores,
        directory: arguments.directory.clone().unwrap_or_else(std::env::temp_dir),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(arguments, &setting, client_core))
}

async fn measure(arguments: &Arguments, setting: &Setting, client_core: usize) -> Result<()> {
    let conditions = conditions(arguments, setting, client_core)?;
    let mut outcomes = Vec::new();
    for workload in chosen(arguments) {
        let outcome = pairs(workload, setting, &conditions).await;
        outcomes.push(outcome.with_context(|| workload.name())?);
    }
    if outcomes.is_empty() {
        bail!("no line's name contains {:?}", arguments.only.as_deref().unwrap_or_default());
    }
    let flushes = flushes(setting).await?;
    let Some(directory) = &arguments.output else {
        println!("{}", document::page(&conditions, &flushes, &outcomes, ""));
        return Ok(());
    };
    let path = directory.join("bench-store.md");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let page = document::page(&conditions, &flushes, &outcomes, &document::notes(&before));
    println!("{page}");
    std::fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    std::fs::write(directory.join("bench-store.svg"), plot::draw(&outcomes)).context("write bench-store.svg")
}

/// All pairs of one workload; the side that goes first alternates.
async fn pairs(workload: Workload, setting: &Setting, conditions: &document::Conditions) -> Result<Outcome> {
    let mut outcome = Outcome::new(workload);
    let duration = Duration::from_secs_f64(conditions.seconds);
    for pair in 0..conditions.pairs {
        eprintln!("{}, pair {} of {} …", workload.name(), pair + 1, conditions.pairs);
        let order = if pair % 2 == 0 { [Side::Etcd, Side::Amoeba] } else { [Side::Amoeba, Side::Etcd] };
        let first =
            workload.run(order[0], setting, duration).await.with_context(|| format!("{:?}", order[0]))?;
        let second =
            workload.run(order[1], setting, duration).await.with_context(|| format!("{:?}", order[1]))?;
        let (etcd, amoeba) = if order[0] == Side::Etcd { (first, second) } else { (second, first) };
        eprintln!("  etcd {etcd:.2?}\n  amoeba {amoeba:.2?}");
        outcome.add(&etcd, &amoeba);
    }
    outcome.load = process::load();
    Ok(outcome)
}

/// Flushes of both sides with one client, where each put needs its own, and with many, who share.
async fn flushes(setting: &Setting) -> Result<Vec<(Side, usize, flushes::Flushes)>> {
    let mut counted = Vec::new();
    for side in [Side::Etcd, Side::Amoeba] {
        for clients in [1, 64] {
            let count = flushes::count(side, clients, setting).await.context("count flushes")?;
            counted.extend(count.map(|count| (side, clients, count)));
        }
    }
    Ok(counted)
}

fn chosen(arguments: &Arguments) -> Vec<Workload> {
    let all = if arguments.quick { quick() } else { full() };
    let wanted = |workload: &Workload| {
        arguments.only.as_ref().is_none_or(|text| workload.name().contains(text.as_str()))
    };
    all.into_iter().filter(wanted).collect()
}

fn full() -> Vec<Workload> {
    let mut all = Vec::new();
    for (members, value) in [(1, 256), (1, 1024), (3, 256), (3, 1024)] {
        all.extend([1, 16, 64, 256, 1000].map(|clients| Workload::Put { members, clients, value }));
    }
    all.extend(
        [(1, 1), (1, 64), (1, 256), (3, 64)].map(|(members, clients)| Workload::Read { members, clients }),
    );
    all.extend([10, 1000].map(|streams| Workload::Watch { watchers: 1000, streams }));
    all.extend([Workload::Range, Workload::Memory { keys: 1_000_000 }]);
    all
}

fn quick() -> Vec<Workload> {
    let put = |members, clients| Workload::Put { members, clients, value: 256 };
    let mut all = vec![put(1, 1), put(1, 64), put(1, 256), put(1, 1000), put(3, 64)];
    all.extend([Workload::Read { members: 1, clients: 64 }, Workload::Range]);
    all.extend([10, 1000].map(|streams| Workload::Watch { watchers: 1000, streams }));
    all.push(Workload::Memory { keys: 100_000 });
    all
}

fn conditions(arguments: &Arguments, setting: &Setting, client_core: usize) -> Result<document::Conditions> {
    let pairs = arguments.pairs.unwrap_or(if arguments.quick { 3 } else { 5 });
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 2.0 } else { 4.0 });
    if pairs == 0 || seconds.is_nan() || seconds < 0.1 {
        bail!("--pairs must be at least 1 and --seconds at least 0.1");
    }
    let line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    Ok(document::Conditions {
        etcd: line(output(&setting.etcd, &["--version"]).context("etcd (package etcd-server)")?),
        amoeba: line(output(&setting.amoeba, &["--version"]).context("our binary (built by `make build`)")?),
        server_cores: setting.server_cores.clone(),
        client_cores: client_core.to_string(),
        file_system: line(output(
            Path::new("stat"),
            &["-f", "-c", "%T", &setting.directory.to_string_lossy()],
        )?),
        pairs,
        seconds,
        command: format!("bench {}", std::env::args().skip(1).collect::<Vec<_>>().join(" ")),
    })
}

fn output(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} ended with {}", program.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One core alone is shared by both sides and says little.
fn lower_half(cores: usize) -> String {
    match cores / 2 {
        0 | 1 => "0".into(),
        half => format!("0-{}", half - 1),
    }
}
