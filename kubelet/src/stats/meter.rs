//! From counters to rates.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::pod::ContainerId;
use crate::stats::{Sample, Stats};

/// A shorter time says too little.
const SHORTEST: Duration = Duration::from_secs(1);

/// Compares each sample with the one before.
#[derive(Debug, Default)]
pub struct Meter {
    before: Option<Sample>,
}

impl Meter {
    /// Takes the next sample. A container that wasn't in the one before is measured from its start.
    pub fn feed(&mut self, sample: Sample) -> Stats {
        let before = self.before.replace(sample.clone());
        let known: BTreeMap<&ContainerId, (Timestamp, Duration)> = before
            .iter()
            .flat_map(|before| before.containers.iter().map(|c| (&c.id, (before.at, c.usage.cpu))))
            .collect();
        let rate = |container: &crate::stats::ContainerUsage| {
            let from = known.get(&container.id).copied().unwrap_or((container.started_at, Duration::ZERO));
            growth(from, (sample.at, container.usage.cpu))
        };
        let rates = sample.containers.iter().map(rate).collect();
        let machine_rate = before.as_ref().and_then(|before| {
            growth((before.at, before.machine.usage.cpu), (sample.at, sample.machine.usage.cpu))
        });
        Stats { sample, machine_rate, rates }
    }
}

/// Billionths of a core; `None` if the time was too short. A counter that fell (processes that left the
/// container took theirs along) counts as one that stood still.
fn growth((then, before): (Timestamp, Duration), (now, after): (Timestamp, Duration)) -> Option<u64> {
    let time = Duration::try_from(now.duration_since(then)).ok().filter(|time| *time >= SHORTEST)?;
    let used = after.saturating_sub(before);
    Some((used.as_secs_f64() / time.as_secs_f64() * 1e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{ContainerName, PodRef, PodUid};
    use crate::stats::{ContainerUsage, MachineUsage, Stalls, Usage};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    fn sample(second: i64, machine: u64, containers: &[(&str, i64, u64)]) -> Sample {
        let usage = |cpu| Usage { cpu: Duration::from_millis(cpu), ..Usage::default() };
        let container = |(id, started, cpu): &(&str, i64, u64)| ContainerUsage {
            id: ContainerId((*id).to_owned()),
            pod: PodRef { namespace: "a".to_owned(), name: "web".to_owned(), uid: PodUid("u".to_owned()) },
            container: ContainerName("main".to_owned()),
            group: String::new(),
            started_at: at(*started),
            usage: usage(*cpu),
            stalls: Stalls::default(),
            pod_stalls: Stalls::default(),
        };
        let machine = MachineUsage { usage: usage(machine), ..MachineUsage::default() };
        Sample { at: at(second), machine, containers: containers.iter().map(container).collect() }
    }

    #[test]
    fn rates_are_growth_over_time() {
        let mut meter = Meter::default();
        let first = meter.feed(sample(100, 5_000, &[("a", 90, 1_000), ("b", 100, 10)]));
        assert_eq!((first.machine_rate, first.rates), (None, vec![Some(100_000_000), None]));
        let next = meter.feed(sample(110, 25_000, &[("a", 90, 6_000), ("b", 100, 5), ("c", 105, 500)]));
        assert_eq!(next.machine_rate, Some(2_000_000_000));
        assert_eq!(next.rates, [Some(500_000_000), Some(0), Some(100_000_000)]);
    }
}
