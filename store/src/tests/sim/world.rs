//! Members, their disks, clocks and network, driven step by step through a [`Plan`].
//!
//! A run has a storm, in which the plan's faults happen, and a calm, in which the group must make progress
//! and come together. Every member runs the real [`Replica`] and [`Hub`]; a step in which a member has
//! nothing to do costs nothing.

use std::time::Duration;

use raft::eraftpb::{Message, MessageType};

use super::clients::Clients;
use super::disk::SimDisk;
use super::network::{Network, place};
use super::oracle::Oracle;
use super::plan::{Plan, STORM_STEPS, Workload};
use super::random::Random;
use super::verdict::{Judge, ensure, violated};
use super::watchers::Watchers;
use crate::kv::{KeyRange, MemberId, RangeRequest, Revision};
use crate::membership::MemberInfo;
use crate::mvcc::read;
use crate::mvcc::view::DiskError;
use crate::raft::member::MemberConfig;
use crate::raft::persist::RecoverError;
use crate::raft::proposals::ProposalLimits;
use crate::raft::replica::{Fatal, Input, LogKeep, Now, Output, Replica, ReplicaConfig, StartError};
use crate::snapshot;
use crate::watch::hub::Hub;

/// Milliseconds of a step.
pub const STEP_MS: u64 = 10;
const TICK_MS: u64 = 50;
const ELECTION_TICKS: u64 = 10;
/// Ten of the longest election timeouts: by then a healed group must have answered.
const PROGRESS_STEPS: u64 = 10 * 2 * ELECTION_TICKS * TICK_MS / STEP_MS;
/// By then all members must agree on everything, and leases that nobody keeps alive be gone: two
/// seconds to live by the slowest clock, an election and its grace, and as much again.
const SETTLE_STEPS: u64 = 900;

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
            (&mut self.changes, other.changes),
            (&mut self.undecided, other.undecided),
        ];
        pairs.iter_mut().for_each(|(sum, more)| **sum += *more);
    }
}

pub struct Node {
    pub disk: SimDisk,
    pub running: Option<Running>,
    pub starts_at: u64,
    /// How long it stays down after the next crash.
    pub down: u64,
    pub inbox: Vec<Input>,
    pub paused_until: u64,
    pub watchers_stall_until: u64,
    /// It has no space until then; `Some` as long as it may still say so.
    pub full_until: Option<u64>,
    /// The group has removed it.
    pub gone: bool,
    /// Percent of real time, and until when.
    pub rate: (u64, u64),
    /// Its wall clock is off by so much.
    pub wall_offset_ms: i64,
    /// Its monotonic clock, in microseconds.
    mono_us: u64,
    next_tick_us: u64,
}

pub struct Running {
    pub replica: Replica<SimDisk>,
    pub hub: Hub,
    /// There may be compacted history to clean up.
    scrubbing: bool,
    /// The newest revision it ever had.
    revision: Revision,
}

impl Node {
    /// What its driver says of the space on its disk.
    fn look_at_space(&mut self, now: u64) -> Option<Input> {
        let until = self.full_until?;
        if now < until {
            return Some(Input::Space(Some("nearly full".into())));
        }
        self.disk.give_space();
        Some(Input::Space(None))
    }
}

pub struct World {
    pub plan: Plan,
    pub now: u64,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub clients: Clients,
    pub watchers: Watchers,
    pub oracle: Oracle,
    pub summary: Summary,
    pub calm: bool,
    /// Which members have acknowledged a write that began in the calm.
    acknowledged: Vec<bool>,
    calm_since: u64,
    quiet: bool,
    disks: Random,
    next_fault: usize,
    /// Print every message and crash.
    traced: bool,
}

impl Node {
    fn new(random: &mut Random) -> Self {
        Self {
            disk: SimDisk::default(),
            running: None,
            starts_at: 0,
            down: 0,
            inbox: Vec::new(),
            paused_until: 0,
            watchers_stall_until: 0,
            full_until: None,
            gone: false,
            rate: (100, 0),
            wall_offset_ms: i64::try_from(random.below(100_000)).expect("a minute fits"),
            mono_us: 0,
            next_tick_us: random.below(TICK_MS * 1000),
        }
    }
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed, 5);
        let nodes = (0..plan.members).map(|_| Node::new(&mut random)).collect();
        Self {
            now: 0,
            nodes,
            network: Network::new(plan.seed),
            clients: Clients::new(plan.seed),
            watchers: Watchers::new(plan.seed),
            oracle: Oracle::new(&founders(plan.members)),
            summary: Summary { schedules: 1, ..Summary::default() },
            calm: false,
            acknowledged: vec![false; plan.members],
            calm_since: 0,
            quiet: false,
            disks: random,
            next_fault: 0,
            traced: std::env::var_os("SIM_TRACE").is_some(),
            plan,
        }
    }

    /// The whole run.
    pub fn run(mut self) -> Summary {
        while self.now < STORM_STEPS {
            self.cause_faults();
            self.one_step();
        }
        self.make_progress();
        self.settle_down();
        self.judge_the_end();
        self.summary
    }

    fn cause_faults(&mut self) {
        while let Some(planned) =
            self.plan.faults.get(self.next_fault).filter(|planned| planned.at <= self.now)
        {
            let planned = *planned;
            self.next_fault += 1;
            self.summary.faults += 1;
            self.cause(planned);
        }
    }

    /// All faults end, but perhaps for one link; whoever can must make progress.
    fn make_progress(&mut self) {
        self.heal(self.plan.scar);
        // Whatever the plan's clients do, they write now.
        let Workload { eagerness, weights, .. } = &mut self.plan.workload;
        (*eagerness, weights.put) = ((*eagerness).max(10), weights.put.max(40));
        let deadline = self.now + PROGRESS_STEPS;
        while !self.has_progressed() {
            ensure!(
                self.now < deadline,
                Judge::Progress,
                "no write is acknowledged: {:?}",
                self.acknowledged
            );
            self.one_step();
        }
    }

    /// With a scar some member may hear no leader; without one each voter must serve.
    fn has_progressed(&self) -> bool {
        match self.plan.scar {
            Some(_) => self.acknowledged.iter().any(|acknowledged| *acknowledged),
            None => self.oracle.replay.membership().voters().iter().all(|id| self.acknowledged[place(id.0)]),
        }
    }

    /// Who belongs to the group in the end.
    fn members(&self) -> impl Iterator<Item = &Node> {
        self.oracle.replay.membership().members().map(|member| &self.nodes[place(member.id.0)])
    }

    /// The group has let another in: it starts with an empty disk.
    pub fn add_node(&mut self) {
        let node = Node::new(&mut self.disks);
        self.nodes.push(node);
        self.acknowledged.push(false);
    }

    /// A member answered a call.
    pub fn progressed(&mut self, node: usize, began: u64, written: bool) {
        self.acknowledged[node] |= written && self.calm && began >= self.calm_since;
    }

    /// Nothing new begins: everyone must come to the same state, and everything that waits must end.
    fn settle_down(&mut self) {
        self.heal(None);
        self.quiet = true;
        let deadline = self.now + SETTLE_STEPS;
        while !self.has_settled() {
            ensure!(self.now < deadline, Judge::Progress, "members don't come together: {}", self.describe());
            self.one_step();
        }
    }

    fn has_settled(&self) -> bool {
        let last = self.oracle.replay.last();
        let there = |node: &Node| node.running.as_ref().is_some_and(|r| r.replica.state().head.index == last);
        self.members().all(there)
            && !self.oracle.replay.is_full()
            && !self.oracle.replay.membership().is_joint()
            && self.clients.idle()
            && self.oracle.replay.leases().next().is_none()
            && self.watchers_are_done()
    }

    fn describe(&self) -> String {
        let state = |node: &Node| {
            let running = node
                .running
                .as_ref()
                .map(|r| (r.replica.state().head.index, r.replica.member().leadership()));
            format!("{running:?}")
        };
        let members: Vec<String> = self.nodes.iter().map(state).collect();
        let leases = self.oracle.replay.leases().count();
        let (idle, done) = (self.clients.idle(), self.watchers_are_done());
        format!("{members:?}, {leases} leases, clients idle {idle}, watchers done {done}")
    }

    fn judge_the_end(&mut self) {
        self.oracle.invariant_history_is_explained();
        self.invariant_watches_kept_their_guarantees();
        let mut digest = 0;
        let first = self.members().next().expect("a group has members").disk.replicated();
        for node in self.members() {
            let running = node.running.as_ref().expect("all run when settled");
            let head = running.replica.state().head;
            let request = RangeRequest::new(KeyRange::prefix(""));
            let contents = read::range(&node.disk, head.revision, &request).expect("memory can be read");
            let from = Revision(head.compacted.0 + 1);
            let events = read::events(&node.disk, from, usize::MAX).expect("memory can be read");
            self.oracle.invariant_contents_follow_from_log(&contents, &events);
            digest = head.digest;
            let same = node.disk.replicated() == first;
            ensure!(
                same,
                Judge::SameState,
                "the first member and {} hold different records",
                running.replica.id()
            );
        }
        self.summary.digest = digest;
        self.summary.changes = self.oracle.replay.changes;
        self.summary.leaders = self.oracle.leaders();
        (self.summary.expired, self.summary.undecided) = (self.oracle.expired, self.oracle.undecided);
        (self.summary.events, self.summary.progress) = self.watchers.delivered;
    }

    fn heal(&mut self, scar: Option<(usize, usize)>) {
        if !self.calm {
            (self.calm, self.calm_since) = (true, self.now);
        }
        self.network.calm(scar);
        for node in &mut self.nodes {
            (node.starts_at, node.paused_until, node.watchers_stall_until) = (0, 0, 0);
            node.rate = (100, 0);
            node.full_until = node.full_until.map(|_| 0);
            node.disk.repair();
        }
    }

    fn one_step(&mut self) {
        self.now += 1;
        self.deliver();
        if !self.quiet {
            self.clients_act();
        }
        for at in 0..self.nodes.len() {
            self.pass_time(at);
            self.start_if_due(at);
            self.turn(at);
        }
        self.follow_membership();
        self.watchers_act();
    }

    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{}: {}", self.now, text());
        }
    }

    fn pass_time(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (rate, until) = node.rate;
        node.mono_us += STEP_MS * 10 * if self.now < until { rate } else { 100 };
    }

    fn now_at(&self, at: usize) -> Now {
        let node = &self.nodes[at];
        let wall = i64::try_from(10_000_000 + self.now * STEP_MS).expect("far below the end of time");
        let wall_ms = u64::try_from(wall + node.wall_offset_ms).expect("jumps are below the start");
        Now { mono: Duration::from_micros(node.mono_us), wall_ms }
    }

    /// How far the member has applied.
    pub fn applied(&self, at: usize) -> u64 {
        self.nodes[at].running.as_ref().map_or(0, |running| running.replica.state().head.index)
    }

    fn start_if_due(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.running.is_some() || node.gone || self.now < node.starts_at {
            return;
        }
        let disk = self.nodes[at].disk.clone();
        let replica = match Replica::start(self.config(at), disk, self.now_at(at)) {
            Ok(replica) => replica,
            Err(StartError::Recover(RecoverError::Disk(DiskError::Engine { .. }))) => return self.crash(at),
            Err(StartError::Recover(RecoverError::Removed(_))) => {
                self.nodes[at].gone = true;
                return;
            }
            Err(error) => violated(Judge::Start, format!("member {}: {error:?}", at + 1)),
        };
        let head = replica.state().head;
        self.oracle.learn(self.now, &self.nodes[at].disk, head.index, &head, true);
        let hub = Hub::new(head.revision, head.compacted, self.plan.workload.ring_bytes);
        self.nodes[at].inbox.clear();
        self.nodes[at].running = Some(Running { replica, hub, scrubbing: true, revision: head.revision });
    }

    /// The power fails.
    pub fn crash(&mut self, at: usize) {
        self.summary.crashes += 1;
        self.trace(|| format!("crash {}", at + 1));
        let node = &mut self.nodes[at];
        // Without space it only halts: what is written stays.
        let full = node.disk.is_full();
        let survivors = if full { node.disk.pending() } else { self.disks.index(node.disk.pending() + 1) };
        node.disk.crash(survivors);
        node.running = None;
        let down = if full { node.full_until.unwrap_or(0) } else { self.now + node.down };
        node.starts_at = if self.calm { 0 } else { down };
        node.inbox.clear();
        // The others notice their broken connections, perhaps.
        for other in 0..self.nodes.len() {
            if other != at && self.disks.percent(70) {
                self.nodes[other].inbox.push(Input::Disconnected(MemberId(at as u64 + 1)));
            }
        }
        self.abandon_calls(at);
        self.watches_break(at);
    }

    /// Lets a member work if there is anything to do.
    fn turn(&mut self, at: usize) {
        let now = self.now_at(at);
        let paused = self.now < self.nodes[at].paused_until;
        let node = &mut self.nodes[at];
        let tick = node.mono_us >= node.next_tick_us;
        if paused || !tick && node.inbox.is_empty() {
            return;
        }
        let space = if tick { node.look_at_space(self.now) } else { None };
        let Some(running) = &mut node.running else { return };
        let mut inputs = std::mem::take(&mut node.inbox);
        if tick {
            inputs.extend(space);
            inputs.push(Input::Tick);
            node.next_tick_us = node.mono_us + TICK_MS * 1000;
        }
        let before = running.replica.state().head.index;
        let mut sent = Vec::new();
        let handled = running.replica.handle(now, inputs, &mut |message| sent.push(message));
        sent.into_iter().for_each(|message| self.send(message));
        match handled {
            Ok(output) => self.settle(at, before, output, tick),
            Err(Fatal::Fenced(why)) => {
                violated(Judge::SameState, format!("member {} is fenced: {why}", at + 1))
            }
            Err(_) => self.crash(at),
        }
    }

    fn settle(&mut self, at: usize, before: u64, output: Output, tick: bool) {
        self.look_at(at, before, &output);
        let Node { running, disk, inbox, .. } = &mut self.nodes[at];
        let running = running.as_mut().expect("it has just run");
        let head = running.replica.state().head;
        running.scrubbing |= output.compacted;
        self.summary.compactions += u64::from(output.compacted);
        if output.installed {
            self.summary.installs += 1;
            running.hub.reset(head.revision, head.compacted);
        }
        running.hub.publish(output.events, head.revision, head.compacted);
        if output.snapshot_wanted {
            inbox.push(make_snapshot(&running.replica, disk));
        }
        for (ticket, result) in output.results {
            self.answer_write(at, ticket, &result);
        }
        for (ticket, result) in output.reads {
            self.answer_read(at, ticket, &result);
        }
        for (ticket, result) in output.leases {
            self.answer_lease(ticket, &result);
        }
        if output.removed {
            return self.end(at);
        }
        if tick {
            self.clean_up(at);
        }
        if tick && self.now.is_multiple_of(16) {
            self.tell_progress(at);
        }
    }

    /// What must hold of a member after each of its turns.
    fn look_at(&mut self, at: usize, before: u64, output: &Output) {
        let Node { running, disk, .. } = &mut self.nodes[at];
        let running = running.as_mut().expect("it has just run");
        let (head, member) = (running.replica.state().head, running.replica.member());
        if member.is_leader() {
            self.oracle.invariant_one_leader_per_term(member.leadership().term, running.replica.id());
        }
        self.oracle.learn(self.now, disk, before, &head, output.installed);
        self.oracle.invariant_events_follow_from_log(&output.events);
        ensure!(
            head.index <= member.commit(),
            Judge::Monotone,
            "applied {} > {}",
            head.index,
            member.commit()
        );
        ensure!(
            head.revision >= running.revision,
            Judge::Monotone,
            "{} < {}",
            head.revision,
            running.revision
        );
        running.revision = head.revision;
        // Whoever lags, leaves or never fetches its snapshot: what is kept for it has an end.
        let (kept, keep) = (head.index - member.log().truncated().0, self.plan.workload.log_keep as u64);
        ensure!(kept <= 5 * keep + 40, Judge::Bounded, "{kept} applied entries are kept in the log");
    }

    /// The group has removed the member: its process ends.
    fn end(&mut self, at: usize) {
        self.crash(at);
        self.nodes[at].gone = true;
    }

    fn clean_up(&mut self, at: usize) {
        let events = self.plan.workload.scrub_events;
        let Some(running) = self.nodes[at].running.as_mut().filter(|running| running.scrubbing) else {
            return;
        };
        match running.replica.scrub(events) {
            Ok(more) => running.scrubbing = more,
            Err(_) => self.crash(at),
        }
    }

    fn send(&mut self, message: Message) {
        self.trace(|| format!("send {message:?}"));
        if !self.network.send(self.now, &message) {
            self.report_snapshot(&message, false);
        }
    }

    /// The sender of a snapshot hears what became of it.
    fn report_snapshot(&mut self, message: &Message, delivered: bool) {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.nodes[place(message.from)].inbox.push(Input::SnapshotSent(MemberId(message.to), delivered));
        }
    }

    fn deliver(&mut self) {
        for message in self.network.arriving(self.now) {
            self.trace(|| format!("recv {message:?}"));
            let to = &self.nodes[place(message.to)];
            let knows = |r: &Running| r.replica.membership().was_removed(MemberId(message.from));
            if to.running.as_ref().is_some_and(knows) {
                // Nobody talks with who is removed, but to say so.
                self.nodes[place(message.from)].inbox.push(Input::Removed);
                continue;
            }
            let alive = to.running.is_some();
            self.report_snapshot(&message, alive);
            if alive {
                self.nodes[place(message.to)].inbox.push(Input::Message(message));
            }
        }
    }

    fn config(&self, at: usize) -> ReplicaConfig {
        ReplicaConfig {
            member: MemberConfig {
                id: MemberId(at as u64 + 1),
                election_ticks: usize::try_from(ELECTION_TICKS).expect("a few"),
                heartbeat_ticks: 2,
                max_message_bytes: 2000,
                max_inflight: 8,
                max_uncommitted_bytes: 100_000,
                max_apply_bytes: 1000,
                seed: self.plan.seed,
            },
            tick: Duration::from_millis(TICK_MS),
            cluster: 1,
            founders: if at < self.plan.members { founders(self.plan.members) } else { Vec::new() },
            proposals: ProposalLimits {
                max_waiting: 100,
                max_bytes: 10_000,
                timeout: Duration::from_millis(1500),
                resend_after: Duration::from_millis(400),
            },
            log_keep: LogKeep {
                entries: self.plan.workload.log_keep,
                bytes: 100_000,
                for_snapshot_bytes: 600 * self.plan.workload.log_keep,
            },
            history: Duration::from_secs(1_000_000),
            compact_every: Duration::from_secs(1),
            lease_checkpoint: Duration::from_secs(1),
        }
    }
}

/// The members of a new group.
pub fn founders(members: usize) -> Vec<MemberInfo> {
    (1..=members as u64).map(|id| MemberInfo::new(MemberId(id), format!("member:{id}"))).collect()
}

fn make_snapshot(replica: &Replica<SimDisk>, disk: &SimDisk) -> Input {
    let mut made = replica.snapshot_header();
    let mut data = Vec::new();
    let mut collect = |block: &[u8]| {
        data.extend_from_slice(block);
        Ok(())
    };
    snapshot::encode(disk, &mut collect).expect("memory can be read");
    made.data = data.into();
    Input::SnapshotMade(Some(made))
}
