//! Thresholds as they are written in flags: `memory.available<100Mi`, `nodefs.available<10%`.

use std::fmt;
use std::time::Duration;

use api::quantity::Quantity;

use crate::eviction::Supply;

/// What is measured of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory that can be had without hurting anybody, in bytes.
    MemoryAvailable,
    /// The disk of pods' volumes, logs and files, in bytes.
    NodeFsAvailable,
    /// Its files.
    NodeFsInodesFree,
    /// The disk of images, in bytes.
    ImageFsAvailable,
    /// Its files.
    ImageFsInodesFree,
    /// Numbers for processes.
    PidAvailable,
}

/// What a node can be short of, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `memory`.
    Memory,
    /// `ephemeral-storage` or `inodes`.
    Disk,
    /// `pids`.
    Processes,
}

impl Resource {
    /// The node's condition.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Processes => "PIDPressure",
        }
    }
}

const SIGNALS: [(Signal, &str, &str); 6] = [
    (Signal::MemoryAvailable, "memory.available", "memory"),
    (Signal::NodeFsAvailable, "nodefs.available", "ephemeral-storage"),
    (Signal::NodeFsInodesFree, "nodefs.inodesFree", "inodes"),
    (Signal::ImageFsAvailable, "imagefs.available", "ephemeral-storage"),
    (Signal::ImageFsInodesFree, "imagefs.inodesFree", "inodes"),
    (Signal::PidAvailable, "pid.available", "pids"),
];

impl Signal {
    /// As flags spell it.
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(signal, ..)| *signal == self).map_or("", |(_, name, _)| name)
    }

    /// What the eviction's message says that the node was low on.
    pub fn starved(self) -> &'static str {
        SIGNALS.iter().find(|(signal, ..)| *signal == self).map_or("", |(.., starved)| starved)
    }

    /// What it is about.
    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable => Resource::Memory,
            Self::PidAvailable => Resource::Processes,
            _ => Resource::Disk,
        }
    }

    /// Whether a quantity of it is counted in bytes.
    fn parse(text: &str) -> Option<Self> {
        SIGNALS.iter().find(|(_, name, _)| *name == text).map(|(signal, ..)| *signal)
    }
}

/// So much, or a part of all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// Bytes, files or processes.
    Absolute(u64),
    /// Of the capacity, from 0 to 1.
    Part(f64),
}

impl Level {
    /// In the supply's own unit.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount,
            Self::Part(part) => (capacity as f64 * part) as u64,
        }
    }
}

/// When there is too little of something.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What is measured.
    pub signal: Signal,
    /// With less than this.
    pub level: Level,
    /// A soft one: how long it may last. `None`: a hard one.
    pub grace: Option<Duration>,
    /// How much more than the level is to be had again before it is over.
    pub reclaim: Option<Level>,
}

impl Threshold {
    /// `was`: it has been before.
    pub fn is_crossed(&self, supply: Supply, was: bool) -> bool {
        let more = self.reclaim.filter(|_| was).map_or(0, |reclaim| reclaim.of(supply.capacity));
        supply.available < self.level.of(supply.capacity).saturating_add(more)
    }
}

/// Why a threshold can't be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

fn known() -> String {
    let names: Vec<&str> = SIGNALS.iter().map(|(_, name, _)| *name).collect();
    names.join(", ")
}

fn signal(name: &str) -> Result<Signal, Malformed> {
    let unknown = || Malformed(format!("{name:?} is not a signal: use one of {}", known()));
    Signal::parse(name).ok_or_else(unknown)
}

fn level(text: &str) -> Result<Level, Malformed> {
    let unclear = |why: &str| {
        Malformed(format!("{text:?} {why}: write an amount such as 100Mi, or a part such as 10%"))
    };
    if let Some(part) = text.strip_suffix('%') {
        let part: f64 = part.parse().map_err(|_| unclear("is not a percentage"))?;
        return match part {
            0.0..=100.0 => Ok(Level::Part(part / 100.0)),
            _ => Err(unclear("is not between 0% and 100%")),
        };
    }
    let amount = Quantity::parse(text).map_err(|_| unclear("is not a quantity"))?;
    u64::try_from(amount.value()).map(Level::Absolute).map_err(|_| unclear("is negative"))
}

fn pairs(text: &str, separator: char) -> Result<Vec<(Signal, &str)>, Malformed> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &'_ str| -> Result<(usize, usize), Malformed> {
        let place = part.find(separator);
        let place =
            place.ok_or_else(|| Malformed(format!("{part:?} is not of the form SIGNAL{separator}VALUE")))?;
        Ok((place, place + 1))
    };
    parts
        .map(|part| {
            let (end, begin) = pair(part)?;
            Ok((signal(part[..end].trim())?, part[begin..].trim()))
        })
        .collect()
}

/// `--eviction-hard`: a list of `SIGNAL<VALUE`. A value of 0 or 0% watches nothing.
///
/// # Errors
/// An unknown signal or a value that is none, with what would be right.
pub fn hard(text: &str) -> Result<Vec<Threshold>, Malformed> {
    let all = pairs(text, '<')?
        .into_iter()
        .map(|(signal, value)| Ok(Threshold { signal, level: level(value)?, grace: None, reclaim: None }));
    let all: Vec<Threshold> = all.collect::<Result<_, Malformed>>()?;
    Ok(all.into_iter().filter(|t| t.level.of(u64::MAX) > 0).collect())
}

/// Soft thresholds: `--eviction-soft` with the grace of each from `--eviction-soft-grace-period`, a list of
/// `SIGNAL=TIME`, read by `time`.
///
/// # Errors
/// As for hard ones, and a threshold without its grace.
pub fn soft(
    text: &str,
    graces: &str,
    time: impl Fn(&str) -> Result<Duration, String>,
) -> Result<Vec<Threshold>, Malformed> {
    let graces: Vec<(Signal, Duration)> = pairs(graces, '=')?
        .into_iter()
        .map(|(signal, value)| Ok((signal, time(value).map_err(Malformed)?)))
        .collect::<Result<_, Malformed>>()?;
    let with_grace = |threshold: Threshold| {
        let found = graces.iter().find(|(signal, _)| *signal == threshold.signal).map(|(_, grace)| *grace);
        let name = threshold.signal.name();
        let missing =
            || Malformed(format!("grace period must be specified for the soft eviction threshold {name}"));
        Ok(Threshold { grace: Some(found.ok_or_else(missing)?), ..threshold })
    };
    hard(text)?.into_iter().map(with_grace).collect()
}

/// `--eviction-minimum-reclaim`: a list of `SIGNAL=VALUE`, put into the thresholds of these signals.
///
/// # Errors
/// An unknown signal or a value that is none.
pub fn reclaim(thresholds: &mut [Threshold], text: &str) -> Result<(), Malformed> {
    for (signal, value) in pairs(text, '=')? {
        let wanted = level(value)?;
        thresholds.iter_mut().filter(|t| t.signal == signal).for_each(|t| t.reclaim = Some(wanted));
    }
    Ok(())
}

/// What upstream's kubelet watches unless it is told otherwise.
pub const DEFAULT_HARD: &str = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,\
    imagefs.available<15%,imagefs.inodesFree<5%";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_or_refused_with_what_would_be_right() {
        let all = hard(DEFAULT_HARD).expect("the defaults");
        assert_eq!(all.len(), 5);
        assert_eq!(all[0].level, Level::Absolute(100 << 20));
        assert_eq!(all[1].level, Level::Part(0.1));
        assert_eq!(hard("nodefs.available<0%, pid.available<0"), Ok(Vec::new()));
        assert_eq!(hard(""), Ok(Vec::new()));
        for (text, why) in [
            (
                "memory<1Gi",
                "\"memory\" is not a signal: use one of memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available",
            ),
            ("memory.available=1Gi", "\"memory.available=1Gi\" is not of the form SIGNAL<VALUE"),
            (
                "memory.available<much",
                "\"much\" is not a quantity: write an amount such as 100Mi, or a part such as 10%",
            ),
            (
                "memory.available<120%",
                "\"120%\" is not between 0% and 100%: write an amount such as 100Mi, or a part such as 10%",
            ),
            (
                "memory.available<-1",
                "\"-1\" is negative: write an amount such as 100Mi, or a part such as 10%",
            ),
        ] {
            assert_eq!(hard(text).expect_err(text).to_string(), why);
        }
        let time = |text: &str| {
            text.trim_end_matches('s').parse().map(Duration::from_secs).map_err(|_| "no time".to_owned())
        };
        let one = soft("memory.available<1Gi", "memory.available=90s", time).expect("a soft one");
        assert_eq!(one[0].grace, Some(Duration::from_secs(90)));
        let why = soft("memory.available<1Gi", "", time).expect_err("no grace").to_string();
        assert_eq!(why, "grace period must be specified for the soft eviction threshold memory.available");
    }
}
