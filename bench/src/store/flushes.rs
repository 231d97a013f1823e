//! Counts the flushes that a server makes: that both sync what they acknowledge is seen, not believed.
//!
//! strace slows a server down, so this is a run of its own, and its rates say nothing.

use super::load::{self, Keys, Puts, Random, Window};
use super::server::{Group, Setting, Side};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as UnixPid;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

/// How long is counted.
const DURATION: Duration = Duration::from_secs(2);

/// What was counted.
#[derive(Clone, Copy, Debug)]
pub struct Flushes {
    /// Puts acknowledged.
    pub puts: usize,
    /// Calls of fsync, fdatasync, msync and sync_file_range.
    pub calls: u64,
}

/// Counts the flushes of one member under `clients`; `None` without strace.
pub async fn count(side: Side, clients: usize, setting: &Setting) -> Result<Option<Flushes>> {
    let group = Group::start(side, 1, setting).await?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-U", "calls,name", "-e", "trace=fsync,fdatasync,msync,sync_file_range"]);
    strace.args(["-p", &group.pids()[0].to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    let Ok(mut strace) = strace.stderr(Stdio::piped()).kill_on_drop(true).spawn() else { return Ok(None) };
    let mut report = BufReader::new(strace.stderr.take().context("strace has a standard error")?);
    let mut attached = String::new();
    report.read_line(&mut attached).await?;
    if !attached.contains("attached") {
        bail!("strace can't attach: {attached}");
    }
    let from = Instant::now();
    let window = Window { from, until: from + DURATION };
    let work = |number| Puts::new(Keys::Random(Random(number as u64), 1000), 256);
    let puts = load::run(&group.addresses, clients, window, work).await?.count();
    let pid = strace.id().and_then(|id| i32::try_from(id).ok()).context("strace has ended")?;
    kill(UnixPid::from_raw(pid), Signal::SIGINT)?;
    let mut table = String::new();
    report.read_to_string(&mut table).await?;
    strace.wait().await?;
    Ok(Some(Flushes { puts, calls: total(&table) }))
}

/// The sum of the calls in a table of `strace -c -U calls,name`, but for its own total.
fn total(table: &str) -> u64 {
    let calls = table.lines().filter_map(|line| {
        let (calls, name) = line.trim().split_once(' ')?;
        (name != "total").then(|| calls.parse::<u64>().ok())?
    });
    calls.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_table_counts_each_call_once() {
        let table = "strace: Process 7 detached\n    calls syscall\n--------- ----------------\n     2000 fdatasync\n        \
                     5 fsync\n--------- ----------------\n     2005 total\n";
        assert_eq!(total(table), 2005);
    }
}
