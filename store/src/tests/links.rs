//! What becomes of a group whose links are cut in one direction: replicas over simulated disks, on a network
//! that is otherwise instant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::eraftpb::Message;

use super::sim::disk::SimDisk;
use super::single::put;
use crate::command::{Applied, Command};
use crate::kv::MemberId;
use crate::membership::MemberInfo;
use crate::raft::member::MemberConfig;
use crate::raft::proposals::{ProposalLimits, Ticket};
use crate::raft::replica::{Input, LogKeep, Now, Replica, ReplicaConfig};

const TICK: Duration = Duration::from_millis(50);
const ELECTION_TICKS: usize = 6;

struct Network {
    members: Vec<Replica<SimDisk>>,
    ticks: u32,
    /// Links that lose everything, from and to.
    cut: BTreeSet<(u64, u64)>,
    /// What has come of proposals.
    results: BTreeMap<Ticket, Applied>,
}

impl Network {
    fn new(seed: u64) -> Self {
        let now = Now { mono: Duration::ZERO, wall_ms: 0 };
        let start = |id| Replica::start(config(id, seed), SimDisk::default(), now).unwrap();
        Self {
            members: (1..=3).map(start).collect(),
            ticks: 0,
            cut: BTreeSet::new(),
            results: BTreeMap::new(),
        }
    }

    /// A tick for everyone, and every message that follows from it.
    fn tick(&mut self) {
        self.ticks += 1;
        for id in 1..=self.members.len() as u64 {
            self.give(MemberId(id), Input::Tick);
        }
    }

    /// Hands an input to a member, and delivers every message that follows from it.
    fn give(&mut self, member: MemberId, input: Input) {
        let mut waiting = self.handle(member, input);
        while !waiting.is_empty() {
            for message in std::mem::take(&mut waiting) {
                if self.cut.contains(&(message.from, message.to)) {
                    continue;
                }
                waiting.extend(self.handle(MemberId(message.to), Input::Message(message)));
            }
        }
    }

    /// What the member sends.
    fn handle(&mut self, member: MemberId, input: Input) -> Vec<Message> {
        let now = Now { mono: TICK * self.ticks, wall_ms: 50 * u64::from(self.ticks) };
        let at = usize::try_from(member.0 - 1).unwrap();
        let mut sent = Vec::new();
        let output = self.members[at].handle(now, [input], &mut |message| sent.push(message)).unwrap();
        self.results.extend(output.results);
        sent
    }

    /// Whether a put through the member is accepted within a few ticks.
    fn writes(&mut self, member: MemberId) -> bool {
        let ticket = Ticket(u64::from(self.ticks));
        self.give(member, Input::Propose(ticket, Command::Txn(put("k", "v"))));
        (0..4).for_each(|_| self.tick());
        self.results.remove(&ticket).is_some_and(|result| result.is_ok())
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
fn a_full_member_that_the_leader_does_not_hear_stops_nobody_for_long() {
    for seed in 0..20 {
        let (mut network, leader) = settled(seed);
        let full = MemberId(leader.0 % 3 + 1);
        network.give(full, Input::Space(Some("full".into())));
        network.until(4, |network| network.members.iter().all(|member| member.state().no_space().is_some()));
        (0..100).for_each(|_| network.tick());
        assert!(!network.writes(leader), "seed {seed}: as long as it is heard, its alarm counts");
        network.cut = BTreeSet::from([(full.0, leader.0)]);
        network.give(full, Input::Space(None));
        network.until(20 * ELECTION_TICKS as u32, |network| network.members[0].state().no_space().is_none());
        let leader = network.members.iter().find(|member| member.member().is_leader()).unwrap().id();
        assert!(network.writes(leader), "seed {seed}");
    }
}

#[test]
fn a_full_member_that_does_not_hear_the_leader_stops_nobody_for_long() {
    for seed in 0..20 {
        let (mut network, leader) = settled(seed);
        let full = MemberId(leader.0 % 3 + 1);
        network.give(full, Input::Space(Some("full".into())));
        network.until(4, |network| network.members.iter().all(|member| member.state().no_space().is_some()));
        network.cut = BTreeSet::from([(leader.0, full.0)]);
        let at = usize::try_from(leader.0 - 1).unwrap();
        network.until(20 * ELECTION_TICKS as u32, |network| network.members[at].state().no_space().is_none());
        assert!(network.leads(leader) && network.writes(leader), "seed {seed}");
        network.cut.clear();
        network.until(40, |network| network.members.iter().all(|member| member.state().no_space().is_some()));
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
