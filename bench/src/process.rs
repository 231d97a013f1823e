//! What Linux says about processes: memory, CPU time, descendants, load.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// A process id.
pub type Pid = i32;

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident set: every page it has in memory, shared ones included.
    pub rss: f64,
    /// Proportional set: shared pages counted in parts.
    pub pss: f64,
}

/// One line of the process table.
#[derive(Clone, Debug)]
struct Process {
    parent: Pid,
    command: Vec<String>,
    cpu: Duration,
}

/// All processes below `root`, with their arguments.
pub fn descendants(root: Pid) -> BTreeMap<Pid, Vec<String>> {
    let table = table();
    let is_below = |pid: &Pid| {
        let mut parents = std::iter::successors(Some(*pid), |pid| table.get(pid).map(|one| one.parent));
        parents.any(|pid| pid == root)
    };
    table.iter().filter(|(pid, _)| is_below(pid)).map(|(pid, one)| (*pid, one.command.clone())).collect()
}

/// All processes that have `text` in their arguments, and everything below them.
pub fn with_argument(text: &str) -> Vec<Pid> {
    let mine = Pid::try_from(std::process::id()).expect("process ids are small");
    let named = table().into_iter().filter(|(_, one)| one.command.iter().any(|word| word.contains(text)));
    named
        .map(|(pid, _)| pid)
        .filter(|pid| *pid != mine)
        .flat_map(|pid| descendants(pid).into_keys())
        .collect()
}

/// The arguments of a process, its name first; none if it has ended.
pub fn arguments(pid: Pid) -> Vec<String> {
    process(pid).map(|one| one.command).unwrap_or_default()
}

/// CPU time that these processes have used so far. One that has ended counts as zero.
pub fn cpu(pids: &[Pid]) -> Duration {
    let table = table();
    pids.iter().filter_map(|pid| table.get(pid)).map(|one| one.cpu).sum()
}

/// Memory of a process now.
pub fn memory(pid: Pid) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mib = |name: &str| -> Result<f64> {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .with_context(|| format!("no {name} in {path}"))?;
        let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("unreadable {name} in {path}"))? / 1024.0)
    };
    Ok(Memory { rss: mib("Rss:")?, pss: mib("Pss:")? })
}

/// How often the threads of a process have gone to sleep so far. One that has ended counts as zero.
pub fn voluntary_switches(pid: Pid) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    status.filter_map(count).sum()
}

/// The load average over one minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Waits until the machine does little, such as when the kernel has cleared away the namespaces of a hundred pods; not
/// for ever on one that others use.
pub async fn calm() {
    const LOOK: Duration = Duration::from_millis(500);
    for _ in 0..60 {
        let (busy, all) = ticks();
        tokio::time::sleep(LOOK).await;
        let (busy, all) = (ticks().0 - busy, ticks().1 - all);
        if busy * 10 <= all {
            return;
        }
    }
}

/// Ticks of all processors since the start, those in which something ran and all.
fn ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let words = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
    let all = ticks.iter().sum();
    // The fourth and the fifth: idle, and idle while a disk works.
    (ticks.iter().enumerate().filter(|(n, _)| !matches!(n, 3 | 4)).map(|(_, ticks)| ticks).sum(), all)
}

/// Model of the processor and number of cores.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    // Not those that this process may use: the load generator is pinned.
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    format!("{}, {cores} cores", model.unwrap_or("unknown processor"))
}

fn table() -> BTreeMap<Pid, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Pid>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

/// `None` if the process has ended meanwhile.
fn process(pid: Pid) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    // The name in parentheses may contain anything; the fields after the last one are numbers.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        command: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
        // Linux has counted in hundredths of a second on every architecture for decades.
        cpu: Duration::from_millis(ticks * 10),
    })
}
