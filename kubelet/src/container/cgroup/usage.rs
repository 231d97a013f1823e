//! What a group uses, from the files of each interface.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Cgroup, PodGroup, is_unified};
use crate::stats::{Stalls, Usage};

impl Cgroup {
    /// What its processes use together, those that have ended included; `None` where the host doesn't count it.
    pub fn usage(&self) -> Option<Usage> {
        let memory = self.dir("memory")?;
        let processes = || self.dir("pids").and_then(|dir| number(&dir, "pids.current"));
        let stat = fs::read_to_string(memory.join("memory.stat")).ok()?;
        let (used, words) = match is_unified() {
            true => (number(&memory, "memory.current")?, UNIFIED),
            false => (number(&memory, "memory.usage_in_bytes")?, SPLIT),
        };
        Some(Usage {
            cpu: self.cpu_time()?,
            memory: used,
            working_set: used.saturating_sub(field(&stat, words.droppable).unwrap_or(0)),
            rss: field(&stat, words.anonymous).unwrap_or(0),
            processes: processes().unwrap_or(0),
        })
    }

    /// What its processes have waited for. Only version 2 counts that.
    pub fn stalls(&self) -> Stalls {
        let dir = self.dir("memory").filter(|_| is_unified());
        dir.map(|dir| Stalls::read(&dir, ".pressure")).unwrap_or_default()
    }

    /// How much memory it has, without what the kernel could drop at once.
    pub(super) fn working_set(&self) -> u64 {
        self.usage().map_or(0, |usage| usage.working_set)
    }

    fn cpu_time(&self) -> Option<Duration> {
        if !is_unified() {
            return number(&self.dir("cpuacct")?, "cpuacct.usage").map(Duration::from_nanos);
        }
        let stat = fs::read_to_string(self.dir("cpu")?.join("cpu.stat")).ok()?;
        field(&stat, "usage_usec").map(Duration::from_micros)
    }

    /// How many of its processes were killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.dir("memory") else { return 0 };
        let file = if is_unified() { "memory.events" } else { "memory.oom_control" };
        fs::read_to_string(dir.join(file)).ok().and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
    }
}

impl PodGroup {
    /// What the pod's processes have waited for.
    pub fn stalls(&self) -> Stalls {
        self.group().stalls()
    }
}

/// Names in `memory.stat`.
struct Words {
    /// What of files could be dropped at once, as upstream counts it.
    droppable: &'static str,
    /// What is of no file.
    anonymous: &'static str,
}

const UNIFIED: Words = Words { droppable: "inactive_file", anonymous: "anon" };
const SPLIT: Words = Words { droppable: "total_inactive_file", anonymous: "total_rss" };

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// The number beside a name that stands at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names() {
        let text = "oom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom"), Some(3));
        assert_eq!(field(text, "oom_group"), None);
    }
}
