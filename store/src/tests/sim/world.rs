//! Members, their disks, clocks and network, driven step by step through a [`Plan`].
//!
//! A run has a storm, in which the plan's faults happen, and a calm, in which the group must make progress
//! and come together. Every member runs the real [`Replica`](crate::raft::replica::Replica) and [`Hub`](crate::watch::hub::Hub); a step in which a member has
//! nothing to do costs nothing.

use super::clients::Clients;
use super::network::{Network, place};
use super::node::{Node, founders};
use super::oracle::Oracle;
use super::plan::{Plan, STORM_STEPS, Workload};
use super::random::Random;
use super::summary::Summary;
use super::verdict::{Judge, ensure};
use super::watchers::Watchers;
use crate::kv::{KeyRange, RangeRequest, Revision};
use crate::mvcc::read;
use crate::raft::newcomer::record;

/// Milliseconds of a step.
pub const STEP_MS: u64 = 10;
pub const TICK_MS: u64 = 50;
pub const ELECTION_TICKS: u64 = 10;
/// Ten of the longest election timeouts: by then a healed group must have answered.
const PROGRESS_STEPS: u64 = 10 * 2 * ELECTION_TICKS * TICK_MS / STEP_MS;
/// By then all members must agree on everything, and leases that nobody keeps alive be gone: two
/// seconds to live by the slowest clock, an election and its grace, and as much again.
const SETTLE_STEPS: u64 = 900;

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
    pub disks: Random,
    next_fault: usize,
    /// Print every message and crash.
    traced: bool,
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

    /// Whether every founder has its say: before that nobody may be missing for good.
    pub fn is_founded(&self) -> bool {
        self.nodes.iter().all(|node| record::is_admitted(&node.disk).expect("memory can be read"))
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
        self.heal(self.plan.scar.filter(|_| self.is_founded()));
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
        match self.network.scar {
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
            node.fails_after_vote = false;
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
            self.nodes[at].pass_time(self.now);
            self.start_if_due(at);
            self.turn(at);
        }
        self.follow_membership();
        self.replace_who_is_lost();
        self.watchers_act();
    }

    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{}: {}", self.now, text());
        }
    }

    /// How far the member has applied.
    pub fn applied(&self, at: usize) -> u64 {
        self.nodes[at].running.as_ref().map_or(0, |running| running.replica.state().head.index)
    }
}
