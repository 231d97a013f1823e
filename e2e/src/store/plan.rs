//! Faults drawn from a seed and printed before they happen.

use std::fmt;
use std::time::Duration;

use super::random::Random;

/// Whom a fault hits; roles are looked up when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The leader at that time.
    Leader,
    /// The member after the leader.
    Follower,
    /// This member.
    Member(usize),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => write!(f, "the leader"),
            Self::Follower => write!(f, "a follower"),
            Self::Member(number) => write!(f, "m{}", number + 1),
        }
    }
}

/// What happens to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start afterwards.
    Kill(Target),
    /// SIGKILL to all at once, and all started again.
    PowerOff,
    /// SIGSTOP, and SIGCONT afterwards: to itself, no time has passed.
    Pause(Target),
    /// Nothing passes between it and the other members; clients still reach it.
    Isolate(Target),
    /// What it sends doesn't reach the others; it hears them.
    Mute(Target),
    /// It hears nothing of the others; they hear it.
    Deafen(Target),
    /// No way between two members, while both see the third.
    Bridge(usize, usize),
    /// Neither members nor clients reach it.
    Unplug(Target),
    /// Its next sync fails with EIO: it must end before it acknowledges anything, and is started again.
    FailSync(Target),
    /// SIGKILL inside one of its next system calls that write.
    KillInWrite(Target, u32),
    /// SIGKILL inside one of its next syncs.
    KillInSync(Target, u32),
    /// No byte is free on its disk.
    FillDisk(Target),
    /// No byte is free on any disk.
    FillAllDisks,
    /// Leadership is handed to another member.
    MoveLeader,
    /// Removed, its disk wiped, and a new member added in its place.
    Replace(Target),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(who) => write!(f, "kill {who}"),
            Self::PowerOff => write!(f, "kill all at once"),
            Self::Pause(who) => write!(f, "pause {who}"),
            Self::Isolate(who) => write!(f, "isolate {who} from the other members"),
            Self::Mute(who) => write!(f, "cut what {who} sends to the others"),
            Self::Deafen(who) => write!(f, "cut what the others send to {who}"),
            Self::Bridge(one, other) => write!(f, "cut m{} from m{}", one + 1, other + 1),
            Self::Unplug(who) => write!(f, "unplug {who}"),
            Self::FailSync(who) => write!(f, "fail the syncs of {who} with EIO"),
            Self::KillInWrite(who, nth) => write!(f, "kill {who} inside a thread's write {nth} from now"),
            Self::KillInSync(who, nth) => write!(f, "kill {who} inside a thread's sync {nth} from now"),
            Self::FillDisk(who) => write!(f, "fill the disk of {who}"),
            Self::FillAllDisks => write!(f, "fill all disks"),
            Self::MoveLeader => write!(f, "move leadership"),
            Self::Replace(who) => write!(f, "replace {who} by a fresh member"),
        }
    }
}

/// A fault, how long it lasts, and the rest until the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What happens.
    pub fault: Fault,
    /// How long it lasts.
    pub hold: Duration,
    /// From its end to the next.
    pub rest: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:?}, then rest for {:?}", self.fault, self.hold, self.rest)
    }
}

/// Kinds of schedules: disks of their own cost memory and change what a fault does, so not all have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Kills, pauses and cuts.
    Mixed,
    /// Also full disks, on small file systems.
    Disks,
    /// Also members removed and added.
    Members,
}

impl Theme {
    /// Of a seed: one in four has disks, one in four members.
    pub fn of(seed: u64) -> Self {
        match seed % 4 {
            1 => Self::Disks,
            3 => Self::Members,
            _ => Self::Mixed,
        }
    }
}

/// The faults of a seed, for about `length`.
pub fn plan(seed: u64, members: usize, length: Duration) -> Vec<Step> {
    let (mut random, theme) = (Random::stream(seed, 9000), Theme::of(seed));
    let mut steps = Vec::new();
    let mut planned = Duration::ZERO;
    while planned < length {
        let step = Step {
            fault: fault(&mut random, theme, members),
            hold: random.milliseconds(200, 3000),
            rest: random.milliseconds(100, 1200),
        };
        planned += step.hold + step.rest;
        steps.push(step);
    }
    // What makes the theme happens at least once.
    let middle = steps.len() / 2;
    match theme {
        Theme::Disks if random.below(2) == 0 => steps[middle].fault = Fault::FillAllDisks,
        Theme::Disks => steps[middle].fault = Fault::FillDisk(target(&mut random, members)),
        Theme::Members => steps[middle].fault = Fault::Replace(target(&mut random, members)),
        Theme::Mixed => {}
    }
    steps
}

fn target(random: &mut Random, members: usize) -> Target {
    match random.below(5) {
        0 | 1 => Target::Leader,
        2 => Target::Follower,
        _ => Target::Member(random.index(members)),
    }
}

fn fault(random: &mut Random, theme: Theme, members: usize) -> Fault {
    let who = target(random, members);
    match random.below(22) {
        0..4 => Fault::Kill(who),
        4..6 => Fault::PowerOff,
        6..9 => Fault::Pause(who),
        9..11 => Fault::Isolate(who),
        11 => Fault::Mute(who),
        12 => Fault::Deafen(who),
        13 => {
            let one = random.index(members);
            Fault::Bridge(one, (one + 1) % members)
        }
        14 => Fault::Unplug(who),
        15 => Fault::FailSync(who),
        16 => Fault::KillInWrite(who, nth(random)),
        17 => Fault::KillInSync(who, nth(random)),
        18 => Fault::MoveLeader,
        _ => themed(random, theme, who),
    }
}

fn themed(random: &mut Random, theme: Theme, who: Target) -> Fault {
    match theme {
        Theme::Mixed => Fault::Kill(who),
        Theme::Disks if random.below(3) == 0 => Fault::FillAllDisks,
        Theme::Disks => Fault::FillDisk(who),
        Theme::Members => Fault::Replace(who),
    }
}

fn nth(random: &mut Random) -> u32 {
    u32::try_from(1 + random.below(40)).expect("small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let length = Duration::from_secs(10);
        assert_eq!(plan(7, 3, length), plan(7, 3, length));
        assert_ne!(plan(7, 3, length), plan(8, 3, length));
    }

    #[test]
    fn every_fault_is_drawn_by_some_seed() {
        let texts: std::collections::BTreeSet<_> = (0..400)
            .flat_map(|seed| plan(seed, 3, Duration::from_secs(10)))
            .map(|step| format!("{:?}", step.fault).split('(').next().expect("a name").to_owned())
            .collect();
        assert_eq!(texts.len(), 15, "{texts:?}");
    }
}
