//! Replicas over simulated disks, on a network that is instant but for links that are cut.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::eraftpb::{Message, MessageType};

use super::sim::disk::SimDisk;
use super::sim::node::make_snapshot;
use super::single::put;
use crate::command::{Applied, Command};
use crate::kv::MemberId;
use crate::membership::{MemberChange, MemberInfo};
use crate::raft::member::MemberConfig;
use crate::raft::proposals::{ProposalLimits, Ticket};
use crate::raft::replica::{Fatal, Input, LogKeep, Now, Replica, ReplicaConfig};

const TICK: Duration = Duration::from_millis(50);
pub const ELECTION_TICKS: usize = 6;
/// Entries of the log that are kept without need.
pub const KEEP: usize = 50;

pub struct Network {
    pub members: Vec<Replica<SimDisk>>,
    disks: Vec<SimDisk>,
    founders: u64,
    seed: u64,
    ticks: u32,
    /// Links that lose everything, from and to.
    pub cut: BTreeSet<(u64, u64)>,
    /// A link, from and to, that loses everything after so many messages.
    pub failing: Option<(u64, u64, usize)>,
    /// What has come of proposals.
    results: BTreeMap<Ticket, Applied>,
    /// Who was removed and has ended, or stands still.
    pub gone: BTreeSet<MemberId>,
    /// Who has found that it must not go on.
    pub fenced: BTreeSet<MemberId>,
    /// Snapshots that have arrived.
    pub snapshots: usize,
    /// While there is a list, snapshots wait in it.
    pub held: Option<Vec<Message>>,
    /// Inputs that are handled before the power fails; afterwards nothing happens any more.
    power: Option<usize>,
}

impl Network {
    pub fn new(members: u64, seed: u64) -> Self {
        let disks: Vec<SimDisk> = (0..members).map(|_| SimDisk::default()).collect();
        let mut network = Self {
            members: Vec::new(),
            disks,
            founders: members,
            seed,
            ticks: 0,
            cut: BTreeSet::new(),
            failing: None,
            results: BTreeMap::new(),
            gone: BTreeSet::new(),
            fenced: BTreeSet::new(),
            snapshots: 0,
            held: None,
            power: None,
        };
        network.members = (1..=members).map(|id| network.start(MemberId(id))).collect();
        network
    }

    /// A group that has settled, and its leader.
    pub fn settled(members: u64, seed: u64) -> (Self, MemberId) {
        let mut network = Self::new(members, seed);
        network.until(30, |network| network.agreed().is_some());
        network.until(10, |network| network.members.iter().all(is_identified));
        // Everyone has answered a heartbeat, and knows that it is led.
        (0..4).for_each(|_| network.tick());
        let leader = network.agreed().unwrap();
        (network, leader)
    }

    fn start(&self, member: MemberId) -> Replica<SimDisk> {
        let founders = if member.0 <= self.founders { self.founders } else { 0 };
        let config = config(member, founders, self.seed, self.ticks);
        Replica::start(config, self.disks[place(member)].clone(), self.now()).unwrap()
    }

    fn now(&self) -> Now {
        Now { mono: TICK * self.ticks, wall_ms: 50 * u64::from(self.ticks) }
    }

    /// A tick for everyone, and every message that follows from it.
    pub fn tick(&mut self) {
        self.ticks += 1;
        for id in 1..=self.members.len() as u64 {
            self.give(MemberId(id), Input::Tick);
        }
    }

    /// Hands an input to a member, and delivers every message that follows from it.
    pub fn give(&mut self, member: MemberId, input: Input) {
        let mut waiting = self.handle(member, input);
        while !waiting.is_empty() {
            for message in std::mem::take(&mut waiting) {
                if !self.loses(&message) {
                    waiting.extend(self.deliver(message));
                }
            }
        }
    }

    fn loses(&mut self, message: &Message) -> bool {
        let link = (message.from, message.to);
        if let Some((from, to, left)) = &mut self.failing
            && (*from, *to) == link
        {
            let lost = *left == 0;
            *left = left.saturating_sub(1);
            return lost;
        }
        self.cut.contains(&link)
    }

    fn deliver(&mut self, message: Message) -> Vec<Message> {
        let (from, to) = (MemberId(message.from), MemberId(message.to));
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.snapshots += usize::from(self.held.is_none());
            if let Some(held) = &mut self.held {
                held.push(message);
                return Vec::new();
            }
            let sent = self.handle(from, Input::SnapshotSent(to, true));
            return sent.into_iter().chain(self.handle(to, Input::Message(message))).collect();
        }
        let receiver = &self.members[place(to)];
        if receiver.membership().was_removed(from) && !self.gone.contains(&to) {
            let voters = receiver.membership().voters();
            return self.handle(from, Input::Removed { by: to, voters });
        }
        self.handle(to, Input::Message(message))
    }

    /// What the member sends.
    fn handle(&mut self, member: MemberId, input: Input) -> Vec<Message> {
        if self.gone.contains(&member) || self.power == Some(0) {
            return Vec::new();
        }
        self.power = self.power.map(|left| left - 1);
        let (now, mut sent) = (self.now(), Vec::new());
        let handled = self.members[place(member)].handle(now, [input], &mut |message| sent.push(message));
        let output = match handled {
            Err(Fatal::Fenced(why)) => {
                assert!(why.contains("`amoeba member remove`") && why.contains("as a new member"), "{why}");
                self.fenced.insert(member);
                self.gone.insert(member);
                return sent;
            }
            handled => handled.unwrap(),
        };
        self.results.extend(output.results);
        if output.snapshot_wanted {
            let made = make_snapshot(&self.members[place(member)], &self.disks[place(member)]);
            self.members[place(member)].handle(now, [made], &mut |message| sent.push(message)).unwrap();
        }
        if output.removed {
            self.gone.insert(member);
        }
        sent
    }

    /// The power will fail, for everyone, after so many inputs.
    pub fn fail_in(&mut self, inputs: usize) {
        self.power = Some(inputs);
    }

    /// Everyone who hasn't ended starts again with what was synced.
    pub fn power_returns(&mut self) {
        self.power = None;
        for id in (1..=self.members.len() as u64).map(MemberId).filter(|id| !self.gone.contains(id)) {
            self.disks[place(id)].crash(0);
            self.members[place(id)] = self.start(id);
        }
    }

    /// A member's directory is lost, and it starts again with an empty one.
    pub fn lose_disk(&mut self, member: MemberId) {
        self.disks[place(member)] = SimDisk::default();
        self.members[place(member)] = self.start(member);
    }

    /// A member's directory, to be put back later.
    pub fn copy_disk(&self, member: MemberId) -> SimDisk {
        self.disks[place(member)].copy()
    }

    /// A member starts again with an earlier state of its directory.
    pub fn put_back(&mut self, member: MemberId, disk: SimDisk) {
        self.disks[place(member)] = disk;
        self.members[place(member)] = self.start(member);
    }

    /// Asks a member to let in another, which starts with nothing.
    pub fn add_learner(&mut self, asked: MemberId) -> MemberId {
        let id = MemberId(self.members.len() as u64 + 1);
        let change = MemberChange::Add { id, peer_address: format!("member:{id}"), learner: true };
        self.disks.push(SimDisk::default());
        let mut config = config(id, 0, self.seed, self.ticks);
        config.introduced = self.members.iter().map(Replica::id).collect();
        let member = Replica::start(config, self.disks[place(id)].clone(), self.now());
        self.members.push(member.unwrap());
        self.give(asked, Input::Propose(Ticket(u64::from(self.ticks)), Command::Member(change)));
        id
    }

    /// Asks a member to remove one.
    pub fn remove(&mut self, asked: MemberId, removed: MemberId) {
        let change = Command::Member(MemberChange::Remove(removed));
        self.give(asked, Input::Propose(Ticket(u64::from(self.ticks)), change));
    }

    /// The snapshots that were held up arrive now.
    pub fn release_snapshots(&mut self) {
        let mut waiting = self.held.take().unwrap_or_default();
        while !waiting.is_empty() {
            waiting = waiting.into_iter().flat_map(|message| self.deliver(message)).collect();
        }
    }

    /// Whether a put through the member is accepted within a few ticks.
    pub fn writes(&mut self, member: MemberId) -> bool {
        let ticket = Ticket(u64::from(self.ticks));
        self.give(member, Input::Propose(ticket, Command::Txn(put("k", "v"))));
        (0..4).for_each(|_| self.tick());
        self.results.remove(&ticket).is_some_and(|result| result.is_ok())
    }

    /// Ticks until the condition holds; how many it took.
    pub fn until(&mut self, limit: u32, holds: impl Fn(&Self) -> bool) -> u32 {
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

    /// The leader in which all believe.
    pub fn agreed(&self) -> Option<MemberId> {
        let first = self.members[0].member().leadership();
        let same = |m: &Replica<SimDisk>| m.member().leadership() == first;
        first.leader.filter(|_| self.members.iter().all(same))
    }

    /// Whoever leads for sure and is still there.
    pub fn leader(&self) -> Option<MemberId> {
        let there = self.members.iter().filter(|m| !self.gone.contains(&m.id()));
        there.filter(|m| m.member().leads_surely()).map(Replica::id).next()
    }

    pub fn term(&self) -> u64 {
        self.members.iter().map(|m| m.member().leadership().term).max().unwrap()
    }

    pub fn leads(&self, id: MemberId) -> bool {
        self.members[place(id)].member().is_leader()
    }

    pub fn member(&self, id: MemberId) -> &Replica<SimDisk> {
        &self.members[place(id)]
    }
}

fn place(id: MemberId) -> usize {
    usize::try_from(id.0 - 1).unwrap()
}

/// Whether the member knows that everyone knows its directory.
fn is_identified(member: &Replica<SimDisk>) -> bool {
    member.membership().get(member.id()).is_some_and(|own| own.incarnation != 0)
}

/// What a founder among so many `members`, or one that joins a group (0), is told when it starts at this tick.
fn config(id: MemberId, members: u64, seed: u64, ticks: u32) -> ReplicaConfig {
    ReplicaConfig {
        member: MemberConfig {
            id,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 2,
            max_message_bytes: 1000,
            max_inflight: 8,
            max_uncommitted_bytes: 1 << 20,
            max_apply_bytes: 1 << 20,
            seed,
        },
        tick: TICK,
        cluster: 1,
        founders: (1..=members).map(|id| MemberInfo::new(MemberId(id), format!("member:{id}"))).collect(),
        introduced: BTreeSet::new(),
        incarnation: 100 * u64::from(ticks) + id.0,
        proposals: ProposalLimits {
            max_waiting: 10,
            max_bytes: 1000,
            timeout: Duration::from_secs(5),
            resend_after: Duration::from_millis(600),
        },
        log_keep: LogKeep { entries: KEEP, bytes: 100_000, for_snapshot_bytes: 1_000_000 },
        history: Duration::from_secs(3600),
        compact_every: Duration::from_secs(60),
        lease_checkpoint: Duration::from_secs(60),
    }
}
