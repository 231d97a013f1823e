//! What happened, counted: so that "no violation" means something.

/// What happened in a run, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub schedules: u64,
    pub writes: u64,
    pub reads: u64,
    pub stale_reads: u64,
    pub unknown: u64,
    pub refused: u64,
    pub watches: u64,
    pub events: u64,
    pub progress: u64,
    pub faults: u64,
    pub crashes: u64,
    pub installs: u64,
    pub leaders: u64,
    pub compactions: u64,
    pub renewed: u64,
    pub expired: u64,
    /// Members that started again with an empty disk.
    pub lost_disks: u64,
    /// Of the membership.
    pub changes: u64,
    pub undecided: u64,
    /// Of one run: tells whether it repeats.
    pub digest: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        let mut pairs = [
            (&mut self.schedules, other.schedules),
            (&mut self.writes, other.writes),
            (&mut self.reads, other.reads),
            (&mut self.stale_reads, other.stale_reads),
            (&mut self.unknown, other.unknown),
            (&mut self.refused, other.refused),
            (&mut self.watches, other.watches),
            (&mut self.events, other.events),
            (&mut self.progress, other.progress),
            (&mut self.faults, other.faults),
            (&mut self.crashes, other.crashes),
            (&mut self.installs, other.installs),
            (&mut self.leaders, other.leaders),
            (&mut self.compactions, other.compactions),
            (&mut self.renewed, other.renewed),
            (&mut self.expired, other.expired),
            (&mut self.lost_disks, other.lost_disks),
            (&mut self.changes, other.changes),
            (&mut self.undecided, other.undecided),
        ];
        pairs.iter_mut().for_each(|(sum, more)| **sum += *more);
    }
}
