//! What a run will meet: a list of faults and a workload, made from a seed and nothing else.
//!
//! The list is printed when a run fails, and faults can be left out of it: that is how it is shrunk.

use std::fmt;

use super::random::Random;
use super::world::STEP_MS;

/// Steps in which faults happen.
pub const STORM_STEPS: u64 = 900;

/// Everything that makes a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// 1, 3 or 5.
    pub members: usize,
    pub workload: Workload,
    pub faults: Vec<Planned>,
    /// In the liveness phase this link stays cut one way; at least one of its ends is outside of a majority.
    pub scar: Option<(usize, usize)>,
}

/// A fault at its time.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub at: u64,
    pub target: Target,
    pub fault: Fault,
}

/// Whom it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whoever leads at that moment.
    Leader,
    /// A certain one, from 0.
    Member(usize),
}

/// What happens. Times are in steps.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The power fails at the `writes`-th write from now; a tail of what isn't synced is lost.
    Crash { writes: u64, down: u64 },
    /// The power fails when it has given its next vote.
    CrashAfterVote { down: u64 },
    /// The power fails now, for this member and the `others` after it.
    PowerCut { others: usize, down: u64 },
    /// It stands still while time goes on.
    Pause { steps: u64 },
    /// Nothing goes from it to the member `to` places after it.
    CutOneWay { to: usize, steps: u64 },
    /// Nothing goes from it or to it.
    Isolate { steps: u64 },
    /// It gets nothing, but is heard.
    Deaf { steps: u64 },
    /// Its connection from the member `from` places after it ends.
    Disconnect { from: usize },
    /// The network is worse than usual, for all.
    Weather { loss: u64, duplicates: u64, delay: u64, steps: u64 },
    /// Its monotonic clock runs at so many percent.
    ClockRate { percent: u64, steps: u64 },
    /// Its wall clock jumps.
    WallJump { ms: i64 },
    /// It is asked to hand leadership to the member `to` places after it, perhaps to the next one, too.
    Transfer { to: usize, twice: bool },
    /// Watchers there stop reading.
    SlowWatchers { steps: u64 },
    /// Its disk is nearly full, and after so many writes quite full.
    NoSpace { writes: u64, steps: u64 },
    /// An operator asks it to change who belongs to the group.
    Members(Change),
    /// Its whole disk is lost, and it starts again on an empty one. Only one of a group, and only where nobody
    /// is asked to change the group besides: the others must be able to go on without it.
    LoseDisk { down: u64 },
}

/// A change of the group; members are named by where they stand in the list of those that there are then.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A new member that learns first, or votes at once.
    Add { learner: bool },
    /// A learner votes.
    Promote,
    /// A member goes.
    Remove(usize),
    /// The leader goes.
    RemoveLeader,
    /// A learner takes the place of a voter.
    Replace(usize),
}

/// What the clients do, different in each run (swarm testing: a run that never compacts meets other
/// bugs than one that always does).
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Percent of steps at which an idle client begins something.
    pub eagerness: u64,
    pub keys: u64,
    pub weights: Weights,
    /// Entries of the log that are kept without need.
    pub log_keep: usize,
    /// Bytes of recent events for watchers.
    pub ring_bytes: usize,
    /// Events cleaned up at once after a compaction.
    pub scrub_events: usize,
}

/// How often clients do what.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    pub put: u64,
    pub compare: u64,
    pub delete: u64,
    pub many: u64,
    pub read: u64,
    pub read_past: u64,
    pub read_stale: u64,
    pub compact: u64,
    pub lease: u64,
}

impl Plan {
    /// The plan that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let members = random.weighted(&[(1, 1), (12, 3), (3, 5)]);
        let workload = Workload::new(&mut random);
        // Each run knows only some kinds of faults, some runs many and some few.
        let kinds: Vec<u64> = (0..KINDS).filter(|_| random.percent(45)).collect();
        let count = random.weighted(&[(1, 0), (4, 6), (6, 14), (3, 28)]);
        let mut faults: Vec<Planned> = Vec::new();
        for _ in 0..if kinds.is_empty() { 0 } else { count } {
            let kind = kinds[random.index(kinds.len())];
            faults.push(Planned::new(kind, members, &mut random));
        }
        faults.sort_by_key(|planned| planned.at);
        // Where members come and go, nobody knows beforehand which link a majority can do without.
        let settled = !kinds.contains(&MEMBERSHIP) && !kinds.contains(&LOST_DISK);
        let scar = members > 1 && settled && random.percent(30);
        let scar = scar.then(|| (members - 1, random.index(members - 1)));
        let scar = scar.map(|(a, b)| if random.percent(50) { (a, b) } else { (b, a) });
        Self { seed, members, workload, faults, scar }
    }

    /// The plan with only these of its faults, by position.
    pub fn only(&self, keep: &[usize]) -> Self {
        let faults = keep.iter().filter_map(|at| self.faults.get(*at).copied()).collect();
        Self { faults, ..self.clone() }
    }
}

const KINDS: u64 = 16;
const MEMBERSHIP: u64 = 13;
const LOST_DISK: u64 = 15;

impl Planned {
    fn new(kind: u64, members: usize, random: &mut Random) -> Self {
        let at = random.below(STORM_STEPS);
        let target = if random.percent(40) { Target::Leader } else { Target::Member(random.index(members)) };
        let other = if members > 1 { 1 + random.index(members - 1) } else { 0 };
        let steps = random.weighted(&[(3, 20), (3, 80), (2, 250)]);
        let steps = random.between(1, steps);
        // Back so soon that the others are still where they were, or long away.
        let down = if random.percent(50) { random.between(1, 6) } else { steps };
        let fault = match kind {
            0 => Fault::Crash { writes: random.below(8), down },
            1 => Fault::PowerCut { others: random.index(members), down },
            2 => Fault::Pause { steps },
            3 => Fault::CutOneWay { to: other, steps },
            4 => Fault::Isolate { steps },
            5 => Fault::Deaf { steps },
            6 => Fault::Disconnect { from: other },
            7 => Fault::Weather {
                loss: random.below(40),
                duplicates: random.below(30),
                delay: random.between(1, 40),
                steps,
            },
            8 => Fault::ClockRate { percent: random.between(80, 125), steps: 2 * steps },
            9 => Fault::WallJump {
                ms: i64::try_from(random.below(7_200_000)).expect("two hours fit") - 3_600_000,
            },
            10 => Fault::Transfer { to: other, twice: random.percent(40) },
            11 => Fault::SlowWatchers { steps: 2 * steps },
            12 => Fault::NoSpace { writes: random.between(1, 200), steps: 2 * steps },
            MEMBERSHIP => Fault::Members(Change::new(random)),
            LOST_DISK => Fault::LoseDisk { down },
            _ => Fault::CrashAfterVote { down },
        };
        Self { at, target, fault }
    }
}

impl Change {
    fn new(random: &mut Random) -> Self {
        match random.below(8) {
            0..3 => Change::Add { learner: random.percent(70) },
            3..5 => Change::Promote,
            5 => Change::Remove(random.index(5)),
            6 => Change::RemoveLeader,
            _ => Change::Replace(random.index(5)),
        }
    }
}

impl Workload {
    fn new(random: &mut Random) -> Self {
        let mut some = |usual: u64| if random.percent(25) { 0 } else { random.between(1, usual) };
        let weights = Weights {
            put: 1 + some(40),
            compare: some(30),
            delete: some(15),
            many: some(15),
            read: 5 + some(40),
            read_past: some(12),
            read_stale: some(10),
            compact: some(6),
            lease: some(30),
        };
        Self {
            weights,
            eagerness: random.between(1, 20),
            keys: random.between(1, 6),
            log_keep: random.weighted(&[(1, 4), (2, 12), (1, 60), (1, 1000)]),
            ring_bytes: random.weighted(&[(1, 0), (2, 2000), (1, 20_000)]),
            scrub_events: random.weighted(&[(2, 1), (1, 3), (1, 100)]),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} members, {:?}", self.members, self.workload)?;
        for Planned { at, target, fault } in &self.faults {
            let ms = at * STEP_MS;
            let whom = match target {
                Target::Leader => "the leader".to_string(),
                Target::Member(at) => format!("member {}", at + 1),
            };
            writeln!(f, "  at {:>2}.{:03} s  {whom:<10}  {fault:?}", ms / 1000, ms % 1000)?;
        }
        match self.scar {
            Some((from, to)) => writeln!(f, "  then all heals but the way from {} to {}", from + 1, to + 1),
            None => writeln!(f, "  then all heals"),
        }
    }
}
