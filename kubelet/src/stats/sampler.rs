//! Reads the machine and asks the runtime, again and again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::runtime::Runtime;
use crate::stats::{MachineUsage, Meter, Sample, Stalls, Stats, Usage};

/// Between two samples, as upstream's housekeeping.
const INTERVAL: Duration = Duration::from_secs(10);
/// A sample this young is told again: whoever asks often gets the same answer, not more work done.
const YOUNG: Duration = Duration::from_secs(2);

/// Keeps the newest statistics. Clones share them.
#[derive(Clone)]
pub struct Sampler {
    runtime: Arc<dyn Runtime>,
    state: Arc<Mutex<State>>,
    /// One reads the machine, the others wait for what it finds.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    meter: Meter,
    newest: Stats,
}

impl Sampler {
    /// Has sampled nothing yet.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, state: Arc::default(), turn: Arc::default() }
    }

    /// Samples until asked to stop.
    pub async fn run(self, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = ticks.tick() => drop(self.newest(Duration::ZERO).await),
            }
        }
    }

    /// What is used now, or was a moment ago.
    pub async fn stats(&self) -> Stats {
        self.newest(YOUNG).await
    }

    async fn newest(&self, young: Duration) -> Stats {
        let _turn = self.turn.lock().await;
        let now = Timestamp::now();
        let age = now.duration_since(self.state.lock().newest.sample.at);
        if age < SignedDuration::try_from(young).unwrap_or_default() && !age.is_negative() {
            return self.state.lock().newest.clone();
        }
        let containers = self.runtime.usage().await.unwrap_or_else(|error| {
            tracing::warn!(error = %error.chain(), "measure the containers");
            Vec::new()
        });
        let machine = tokio::task::spawn_blocking(machine).await.map_err(io::Error::other);
        let machine = machine.and_then(|machine| machine).unwrap_or_else(|error| {
            tracing::warn!(%error, "measure the machine");
            MachineUsage::default()
        });
        let mut state = self.state.lock();
        let stats = state.meter.feed(Sample { at: now, machine, containers });
        state.newest = stats.clone();
        stats
    }
}

/// What the machine uses and has, from `/proc`.
///
/// # Errors
/// `/proc` can't be read, or not understood.
pub fn machine() -> io::Result<MachineUsage> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let cores = std::thread::available_parallelism()?.get() as u64;
    let machine = parse(&stat, &memory, cores);
    let machine = machine
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat or /proc/meminfo is odd"))?;
    Ok(MachineUsage { stalls: Stalls::read("/proc/pressure".as_ref(), ""), ..machine })
}

/// The first line of `stat` has the time of all cores: user, nice, system, idle, iowait, irq, softirq, steal.
fn parse(stat: &str, memory: &str, cores: u64) -> Option<MachineUsage> {
    let times: Vec<u64> =
        stat.lines().next()?.split_ascii_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let [user, nice, system, _idle, _wait, irq, soft, ..] = times[..] else { return None };
    let cpu = crate::process::ticks(user + nice + system + irq + soft);
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
    };
    let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
    let working_set = total.saturating_sub(available);
    let memory = total.saturating_sub(field("MemFree")?);
    let usage = Usage { cpu, memory, working_set, rss: field("AnonPages")?, ..Usage::default() };
    Some(MachineUsage {
        usage,
        memory: total,
        cores,
        stalls: Stalls::default(),
        booted_at: Timestamp::from_second(boot).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_proc() {
        let stat = "cpu  100 20 30 4000 5 6 7 0 0 0\ncpu0 1 2 3\nbtime 1700000000\n";
        let memory = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\nAnonPages: 300 kB\n";
        let machine = parse(stat, memory, 2).expect("understood");
        assert_eq!(machine.usage.cpu, crate::process::ticks(163));
        assert_eq!(
            (machine.memory, machine.usage.working_set, machine.usage.rss),
            (1000 << 10, 600 << 10, 300 << 10)
        );
        assert_eq!(machine.booted_at.as_second(), 1_700_000_000);
        assert!(parse("cpu 1 2", memory, 2).is_none() && parse(stat, "", 2).is_none());
        assert!(super::machine().expect("this machine").usage.cpu > Duration::ZERO);
    }
}
