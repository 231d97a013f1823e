//! What is written into the files of a group, in the words of each interface.

use super::Limits;

/// The period of CPU quotas, in microseconds.
const PERIOD: u64 = 100_000;

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose file it is.
    pub controller: &'static str,
    /// Its name.
    pub file: &'static str,
    /// Its contents.
    pub value: String,
    /// Nothing that was asked for is missing without it.
    pub optional: bool,
}

/// Whose group it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A container's.
    Container,
    /// A pod's, or one of several pods'.
    Pod,
}

fn setting(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting { controller, file, value: value.to_string(), optional: false }
}

fn optional(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting { optional: true, ..setting(controller, file, value) }
}

/// The kernel's measure of v1, from 2 to 262144; 1024 is one CPU.
pub fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// Microseconds of each period; the kernel takes no less than a thousand.
fn quota(milli: u64) -> u64 {
    (milli * PERIOD / 1000).max(1000)
}

/// The kernel's measure of v2, from 1 to 10000. Pods are weighed in proportion, as upstream's kubelet does, so that
/// sums stay sums. Containers as by upstream's runtimes, runc and crun, since 2025: by a curve that takes the least
/// to the least, the most to the most, and one CPU to the default of 100.
pub fn weight(whose: Whose, milli: u64) -> u64 {
    let shares = shares(milli);
    match whose {
        Whose::Pod => 1 + (shares - 2) * 9999 / 262_142,
        Whose::Container if shares <= 2 => 1,
        Whose::Container => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            (10f64.powf(exponent).ceil() as u64).min(10_000)
        }
    }
}

/// Of version 2.
pub fn unified(whose: Whose, limits: &Limits) -> Vec<Setting> {
    let most = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    let unlimited = *limits == Limits { cpu_request: limits.cpu_request, ..Limits::default() };
    let mut settings = vec![
        optional("cpu", "cpu.weight", weight(whose, limits.cpu_request)),
        setting("cpu", "cpu.max", format!("{} {PERIOD}", most(limits.cpu.map(quota)))),
        setting("memory", "memory.max", most(limits.memory)),
        setting("pids", "pids.max", most(limits.pids)),
    ];
    if unlimited {
        settings.iter_mut().for_each(|setting| setting.optional = true);
    }
    if whose == Whose::Container {
        settings.push(optional("memory", "memory.swap.max", 0));
        // As upstream: a container that is out of memory goes as a whole.
        settings.push(optional("memory", "memory.oom.group", 1));
    }
    settings
}

/// Of version 1.
pub fn split(limits: &Limits) -> Vec<Setting> {
    let most = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    let pids = limits.pids.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    let or_none = |limit: Option<u64>, setting: Setting| Setting { optional: limit.is_none(), ..setting };
    vec![
        optional("cpu", "cpu.shares", shares(limits.cpu_request)),
        optional("cpu", "cpu.cfs_period_us", PERIOD),
        or_none(limits.cpu, setting("cpu", "cpu.cfs_quota_us", most(limits.cpu.map(quota)))),
        or_none(limits.memory, setting("memory", "memory.limit_in_bytes", most(limits.memory))),
        or_none(limits.pids, setting("pids", "pids.max", pids)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(settings: Vec<Setting>) -> Vec<String> {
        settings.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn limits_are_told_in_the_words_of_each_interface() {
        let limits = Limits { cpu_request: 250, cpu: Some(500), memory: Some(1 << 20), pids: Some(64) };
        let of_both = ["cpu.max=50000 100000", "memory.max=1048576", "pids.max=64"];
        let alone = ["memory.swap.max=0", "memory.oom.group=1"];
        let want = [&["cpu.weight=35"], &of_both[..], &alone].concat();
        assert_eq!(told(unified(Whose::Container, &limits)), want);
        assert_eq!(told(unified(Whose::Pod, &limits)), [&["cpu.weight=10"], &of_both[..]].concat());
        let want = [
            "cpu.shares=256",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "memory.limit_in_bytes=1048576",
            "pids.max=64",
        ];
        assert_eq!(told(split(&limits)), want);
        let none = unified(Whose::Container, &Limits::default());
        assert!(none.iter().all(|setting| setting.optional), "no limit, no complaint");
    }

    #[test]
    fn weights_are_those_of_upstream() {
        for (milli, container, pod) in [
            (0, 1, 1),
            (10, 4, 1),
            (250, 35, 10),
            (1000, 100, 39),
            (2000, 174, 79),
            (64_000, 3023, 2500),
            (1_000_000, 10_000, 10_000),
        ] {
            let found = (weight(Whose::Container, milli), weight(Whose::Pod, milli));
            assert_eq!(found, (container, pod), "{milli} thousandths of a CPU");
        }
    }
}
