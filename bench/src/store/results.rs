//! Pairs of runs and what is said about them: medians of ratios, and whether they reach what we aim at.

use super::server::Side;
use super::workload::{Figures, Metric, Workload};
use crate::statistics::Samples;
use std::collections::BTreeMap;

/// All pairs of one workload.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub workload: Workload,
    /// What each side did.
    pub sides: BTreeMap<(Side, Metric), Samples>,
    /// Ours divided by etcd's, pair by pair.
    pub ratios: BTreeMap<Metric, Samples>,
    /// Load average after the last pair.
    pub load: f64,
}

/// What we aim at for a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// So much of etcd's, or more.
    AtLeast(f64),
    /// So much of etcd's, or less.
    AtMost(f64),
}

impl Outcome {
    /// No pairs yet.
    pub fn new(workload: Workload) -> Self {
        Outcome { workload, sides: BTreeMap::new(), ratios: BTreeMap::new(), load: f64::NAN }
    }

    /// Adds a pair.
    pub fn add(&mut self, etcd: &Figures, amoeba: &Figures) {
        for (side, figures) in [(Side::Etcd, etcd), (Side::Amoeba, amoeba)] {
            for (metric, value) in figures {
                self.sides.entry((side, *metric)).or_default().push(*value);
            }
        }
        for ((metric, theirs), (_, ours)) in etcd.iter().zip(amoeba) {
            self.ratios.entry(*metric).or_default().push(ours / theirs);
        }
    }

    /// The median of a side's figures.
    pub fn median(&self, side: Side, metric: Metric) -> Option<f64> {
        Some(self.sides.get(&(side, metric))?.summary()?.median)
    }

    /// The median of the ratios.
    pub fn ratio(&self, metric: Metric) -> Option<f64> {
        Some(self.ratios.get(&metric)?.summary()?.median)
    }

    /// What we aim at, if we do.
    pub fn target(&self, metric: Metric) -> Option<Target> {
        match (self.workload, metric) {
            (Workload::Put { clients, .. }, Metric::Rate) if clients >= 64 => Some(Target::AtLeast(3.0)),
            (Workload::Put { clients: 1, .. }, Metric::P50) => Some(Target::AtMost(0.6)),
            (Workload::Put { .. }, Metric::Cpu) => Some(Target::AtMost(0.25)),
            (Workload::Read { .. }, Metric::Rate) => Some(Target::AtLeast(3.0)),
            (Workload::Watch { .. }, Metric::Rate) => Some(Target::AtLeast(4.0)),
            (Workload::Memory { .. }, Metric::Rss) => Some(Target::AtMost(0.6)),
            _ => None,
        }
    }
}

impl Target {
    /// Whether a ratio reaches it.
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Target::AtLeast(bound) => ratio >= bound,
            Target::AtMost(bound) => ratio <= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let mut outcome = Outcome::new(Workload::Watch { watchers: 1, streams: 1 });
        for (theirs, ours) in [(1.0, 4.0), (10.0, 20.0), (100.0, 300.0)] {
            outcome.add(&vec![(Metric::Rate, theirs)], &vec![(Metric::Rate, ours)]);
        }
        assert_eq!(outcome.ratio(Metric::Rate), Some(3.0), "the median of 4, 2 and 3, not 20 / 10");
        assert_eq!(outcome.median(Side::Amoeba, Metric::Rate), Some(20.0));
        assert_eq!(outcome.target(Metric::Rate).map(|target| target.is_met(3.0)), Some(false));
    }
}
