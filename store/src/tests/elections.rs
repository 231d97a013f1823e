//! Who leads when links are cut in one direction: replicas over simulated disks, on a network that is
//! otherwise instant.

use std::collections::BTreeSet;
use std::time::Duration;

use raft::eraftpb::Message;

use super::sim::disk::SimDisk;
use crate::kv::MemberId;
use crate::membership::MemberInfo;
use crate::raft::member::MemberConfig;
use crate::raft::proposals::ProposalLimits;
use crate::raft::replica::{Input, LogKeep, Now, Replica, ReplicaConfig};

const TICK: Duration = Duration::from_millis(50);
const ELECTION_TICKS: usize = 6;

struct Network {
    members: Vec<Replica<SimDisk>>,
    ticks: u32,
    /// Links that lose everything, from and to.
    cut: BTreeSet<(u64, u64)>,
}

impl Network {
    fn new(seed: u64) -> Self {
        let now = Now { mono: Duration::ZERO, wall_ms: 0 };
        let start = |id| Replica::start(config(id, seed), SimDisk::default(), now).unwrap();
        Self { members: (1..=3).map(start).collect(), ticks: 0, cut: BTreeSet::new() }
    }

    /// A tick for everyone, and every message that follows from it.
    fn tick(&mut self) {
        self.ticks += 1;
        let now = Now { mono: TICK * self.ticks, wall_ms: 50 * u64::from(self.ticks) };
        let mut waiting: Vec<Message> = Vec::new();
        for member in &mut self.members {
            member.handle(now, [Input::Tick], &mut |message| waiting.push(message)).unwrap();
        }
        while !waiting.is_empty() {
            for message in std::mem::take(&mut waiting) {
                if self.cut.contains(&(message.from, message.to)) {
                    continue;
                }
                let to = usize::try_from(message.to - 1).unwrap();
                let mut send = |answer| waiting.push(answer);
                self.members[to].handle(now, [Input::Message(message)], &mut send).unwrap();
            }
        }
    }

    /// Ticks until the condition holds; how many it took.
    fn until(&mut self, limit: u32, holds: impl Fn(&Self) -> bool) -> u32 {
        (1..=limit)
            .find(|_| {
                self.tick();
                holds(self)
            })
            .unwrap_or_else(|| panic!("not within {limit} ticks: {:?}", self.views()))
    }

    fn views(&self) -> Vec<(u64, Option<MemberId>, bool)> {
        let view = |m: &Replica<SimDisk>| {
            let leadership = m.member().leadership();
            (leadership.term, leadership.leader, m.member().is_leader())
        };
        self.members.iter().map(view).collect()
    }

    fn agreed(&self) -> Option<MemberId> {
        let first = self.members[0].member().leadership();
        let same = |m: &Replica<SimDisk>| m.member().leadership() == first;
        first.leader.filter(|_| self.members.iter().all(same))
    }

    fn term(&self) -> u64 {
        self.members.iter().map(|m| m.member().leadership().term).max().unwrap()
    }

    fn leads(&self, id: MemberId) -> bool {
        self.members.iter().any(|m| m.id() == id && m.member().is_leader())
    }
}

fn config(id: u64, seed: u64) -> ReplicaConfig {
    ReplicaConfig {
        member: MemberConfig {
            id: MemberId(id),
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 2,
            max_message_bytes: 1 << 20,
            max_inflight: 8,
            max_uncommitted_bytes: 1 << 20,
            max_apply_bytes: 1 << 20,
            seed,
        },
        tick: TICK,
        cluster: 1,
        founders: (1..=3).map(|id| MemberInfo::new(MemberId(id), format!("member:{id}"))).collect(),
        proposals: ProposalLimits {
            max_waiting: 10,
            max_bytes: 1000,
            timeout: Duration::from_secs(5),
            resend_after: Duration::from_millis(600),
        },
        log_keep: LogKeep { entries: 100, bytes: 100_000, for_snapshot_bytes: 1_000_000 },
        history: Duration::from_secs(3600),
        compact_every: Duration::from_secs(60),
        lease_checkpoint: Duration::from_secs(60),
    }
}

/// A settled group and its leader.
fn settled(seed: u64) -> (Network, MemberId) {
    let mut network = Network::new(seed);
    network.until(30, |network| network.agreed().is_some());
    // Everyone has answered a heartbeat, and knows that it is led.
    (0..4).for_each(|_| network.tick());
    let leader = network.agreed().unwrap();
    (network, leader)
}

#[test]
fn a_new_group_elects_its_first_leader_at_once() {
    for seed in 0..50 {
        let mut network = Network::new(seed);
        let ticks = network.until(30, |network| network.agreed().is_some());
        assert!(ticks <= 3, "seed {seed}: {ticks} ticks, an election timeout is {ELECTION_TICKS}");
    }
}

#[test]
fn a_leader_that_hears_nobody_steps_down_and_the_term_grows_by_one() {
    for seed in 0..50 {
        let (mut network, deaf) = settled(seed);
        let term = network.term();
        network.cut = (1..=3).filter(|id| *id != deaf.0).map(|id| (id, deaf.0)).collect();
        // Two check-quorum rounds at most: the first may still have what came before the cut.
        network.until(2 * ELECTION_TICKS as u32 + 1, |network| !network.leads(deaf));
        let others =
            |network: &Network| network.members.iter().any(|m| m.id() != deaf && m.member().is_leader());
        network.until(3 * ELECTION_TICKS as u32, others);
        (0..200).for_each(|_| network.tick());
        assert!(network.term() <= term + 1, "seed {seed}: {} after {term}", network.term());
        network.cut.clear();
        network.until(20, |network| network.agreed().is_some());
        assert!(network.term() <= term + 1, "seed {seed}: coming back deposes nobody");
        assert_ne!(network.agreed(), Some(deaf));
    }
}

#[test]
fn a_leader_that_nobody_hears_is_replaced_and_the_term_grows_by_one() {
    for seed in 0..50 {
        let (mut network, mute) = settled(seed);
        let term = network.term();
        network.cut = (1..=3).filter(|id| *id != mute.0).map(|id| (mute.0, id)).collect();
        let replaced = |network: &Network| !network.leads(mute) && network.agreed().is_some();
        network.until(4 * ELECTION_TICKS as u32, replaced);
        (0..200).for_each(|_| network.tick());
        network.cut.clear();
        (0..20).for_each(|_| network.tick());
        assert!(network.agreed().is_some());
        assert_eq!(network.term(), term + 1, "seed {seed}");
    }
}

#[test]
fn a_follower_that_does_not_hear_the_leader_disturbs_nobody() {
    for seed in 0..50 {
        let (mut network, leader) = settled(seed);
        let term = network.term();
        let follower = (1..=3).find(|id| *id != leader.0).unwrap();
        network.cut = BTreeSet::from([(leader.0, follower)]);
        (0..200).for_each(|_| network.tick());
        assert!(network.leads(leader), "seed {seed}");
        network.cut.clear();
        (0..20).for_each(|_| network.tick());
        assert_eq!((network.agreed(), network.term()), (Some(leader), term), "seed {seed}");
    }
}
