//! Three members, their network, their disks and their clients, all driven by one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};

use super::check::{Operation, Oracle, What};
use super::disk::SimDisk;
use crate::command::{Applied, Command, Outcome};
use crate::kv::{Compare, KeyRange, KvError, MemberId, Op, RangeRequest, Revision, Txn, WatchMessage};
use crate::membership::MemberInfo;
use crate::mvcc::read;
use crate::mvcc::state::Head;
use crate::mvcc::view::DiskError;
use crate::raft::member::MemberConfig;
use crate::raft::persist::RecoverError;
use crate::raft::proposals::{ProposalLimits, Ticket};
use crate::raft::replica::{Input, LogKeep, Now, Output, Replica, ReplicaConfig, StartError};
use crate::snapshot;
use crate::watch::hub::{Hub, Step, WatchId};

const MEMBERS: u64 = 3;
const CLIENTS: u64 = 4;
const KEYS: u64 = 4;
const STORM_STEPS: u64 = 1200;
/// Steps in which a healed group must have made progress everywhere.
const HEAL_STEPS: u64 = 800;
/// Entries of the log that are kept without need.
const LOG_KEEP: usize = 12;
const STEP: Duration = Duration::from_millis(10);

/// SplitMix64: all randomness of a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub writes: u64,
    pub reads: u64,
    pub watched: u64,
    pub crashes: u64,
    pub installs: u64,
    pub leaders: u64,
    pub digest: u64,
}

impl Summary {
    pub fn add(&mut self, other: Summary) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.watched += other.watched;
        self.crashes += other.crashes;
        self.installs += other.installs;
        self.leaders += other.leaders;
    }
}

struct Node {
    disk: SimDisk,
    running: Option<Running>,
    starts_at: u64,
    inbox: Vec<Input>,
    /// The member's wall clock is off by this many milliseconds.
    skew_ms: u64,
}

struct Running {
    replica: Replica<SimDisk>,
    hub: Hub,
    watch: WatchId,
    /// What the watcher here needs next.
    needs: Revision,
    range: KeyRange,
}

/// A client with at most one operation on its way.
#[derive(Clone, Debug)]
struct Client {
    busy: Option<(u64, u64, Want)>,
    /// The last revision it saw of each key, for comparisons.
    seen: BTreeMap<Bytes, Revision>,
}

#[derive(Clone, Debug)]
enum Want {
    Write { key: Bytes, value: Bytes },
    Read { key: Bytes },
}

pub struct World {
    random: Random,
    step: u64,
    nodes: Vec<Node>,
    network: Vec<(u64, Message)>,
    /// Cut links, from and to.
    cut: Vec<(u64, u64)>,
    calm: bool,
    clients: Vec<Client>,
    writes_begun: u64,
    oracle: Oracle,
    summary: Summary,
    /// Print every message and crash.
    traced: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let node = |_| Node {
            disk: SimDisk::default(),
            running: None,
            starts_at: 0,
            inbox: Vec::new(),
            skew_ms: random.below(100_000),
        };
        let nodes = (0..MEMBERS).map(node).collect();
        let clients = vec![Client { busy: None, seen: BTreeMap::new() }; CLIENTS as usize];
        Self {
            random,
            step: 0,
            nodes,
            network: Vec::new(),
            cut: Vec::new(),
            calm: false,
            clients,
            writes_begun: 0,
            oracle: Oracle::default(),
            summary: Summary::default(),
            traced: std::env::var_os("SIM_TRACE").is_some(),
        }
    }

    /// Faults of all kinds.
    pub fn storm(&mut self) {
        for _ in 0..STORM_STEPS {
            self.cause_faults();
            self.one_step();
        }
    }

    /// No more faults: everything must come together and go on.
    pub fn heal(&mut self) {
        self.calm = true;
        self.cut.clear();
        self.nodes.iter_mut().for_each(|node| node.starts_at = 0);
        let begun = self.oracle.operations.len();
        for _ in 0..HEAL_STEPS {
            self.one_step();
        }
        let after = self.oracle.operations.len();
        assert!(after > begun + 20, "the healed group makes no progress: {begun} then {after} operations");
        self.invariant_members_converge();
        self.oracle.invariant_no_acknowledged_write_lost();
        self.oracle.invariant_linearizable();
    }

    pub fn summary(&self) -> Summary {
        let digest = self.nodes[0].running.as_ref().map_or(0, |r| r.replica.state().head.digest);
        Summary { leaders: self.oracle.leaders() as u64, digest, ..self.summary }
    }

    fn cause_faults(&mut self) {
        if self.random.below(150) == 0 {
            let (a, b) = (self.random.below(MEMBERS), self.random.below(MEMBERS));
            // One way only, half of the time.
            self.cut.push((a, b));
            if self.random.percent(50) {
                self.cut.push((b, a));
            }
        }
        if self.random.below(100) == 0 {
            self.cut.clear();
        }
        if self.random.below(200) == 0 {
            // A connection breaks, and neither end has died.
            let (at, peer) = (self.random.below(MEMBERS) as usize, self.random.below(MEMBERS) + 1);
            self.nodes[at].inbox.push(Input::Disconnected(MemberId(peer)));
        }
        if self.random.below(120) == 0 {
            let node = self.random.below(MEMBERS) as usize;
            let writes = self.random.below(8);
            self.nodes[node].disk.break_in(writes);
        }
    }

    fn one_step(&mut self) {
        self.step += 1;
        self.deliver();
        for at in 0..self.nodes.len() {
            self.start_if_due(at);
            self.ask_as_clients(at);
            self.turn(at);
        }
        for at in 0..self.nodes.len() {
            self.serve_watcher(at);
        }
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{}: {}", self.step, text());
        }
    }

    fn now(&self, at: usize) -> Now {
        let mono = STEP * u32::try_from(self.step).unwrap();
        Now { mono, wall_ms: 1_000_000 + self.nodes[at].skew_ms + self.step * 10 }
    }

    fn start_if_due(&mut self, at: usize) {
        if self.nodes[at].running.is_some() || self.step < self.nodes[at].starts_at {
            return;
        }
        let now = self.now(at);
        let disk = self.nodes[at].disk.clone();
        let replica = match Replica::start(config(at), disk, now) {
            Ok(replica) => replica,
            Err(StartError::Recover(RecoverError::Disk(DiskError::Engine { .. }))) => return self.crash(at),
            Err(error) => panic!("a crashed disk isn't whole: {error:?}"),
        };
        let head = replica.state().head;
        let mut hub = Hub::new(head.revision, head.compacted, 2000);
        // Anywhere from the compaction to a little beyond the newest revision.
        let above = self.random.below(head.revision.0 - head.compacted.0 + 3);
        let range = KeyRange::key(key(self.random.below(KEYS)));
        let needs = Revision(head.compacted.0 + 1 + above);
        let (watch, _) = hub.register(range.clone(), Some(needs)).expect("above the compaction");
        self.nodes[at].inbox.clear();
        self.nodes[at].running = Some(Running { replica, hub, watch, needs, range });
    }

    fn crash(&mut self, at: usize) {
        self.summary.crashes += 1;
        self.trace(|| format!("crash {}", at + 1));
        let node = &mut self.nodes[at];
        let survivors = self.random.below(node.disk.pending() as u64 + 1);
        node.disk.crash(usize::try_from(survivors).unwrap());
        node.running = None;
        node.starts_at = if self.calm { 0 } else { self.step + self.random.below(150) };
        // The others notice their broken connections, perhaps.
        for other in 0..self.nodes.len() {
            if self.random.percent(70) {
                self.nodes[other].inbox.push(Input::Disconnected(MemberId(at as u64 + 1)));
            }
        }
        let node = &mut self.nodes[at];
        node.inbox.clear();
        // Who waited there will never know.
        for client in &mut self.clients {
            client.busy.take_if(|(node, _, _)| *node == at as u64);
        }
    }

    fn turn(&mut self, at: usize) {
        let now = self.now(at);
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return };
        let mut inputs = std::mem::take(&mut node.inbox);
        inputs.push(Input::Tick);
        let mut sent = Vec::new();
        let handled = running.replica.handle(now, inputs, &mut |message| sent.push(message));
        sent.into_iter().for_each(|message| self.send(message));
        match handled {
            Ok(output) => self.settle(at, output),
            Err(_) => self.crash(at),
        }
    }

    fn settle(&mut self, at: usize, output: Output) {
        let running = self.nodes[at].running.as_mut().expect("it has just run");
        let head = running.replica.state().head;
        let member = running.replica.member();
        if member.is_leader() {
            self.oracle.invariant_one_leader_per_term(member.leadership().term, running.replica.id());
        }
        self.oracle.invariant_same_digest_at_same_index(head.index, head.digest);
        invariant_log_is_bounded(member.log().truncated().0, head.index);
        for (revision, events) in &output.events {
            self.oracle.invariant_one_history(*revision, events);
        }
        if output.installed {
            self.summary.installs += 1;
            running.hub.reset(head.revision, head.compacted);
        }
        running.hub.publish(output.events, head.revision, head.compacted);
        if output.snapshot_wanted {
            let mut made = running.replica.snapshot_header();
            let mut data = Vec::new();
            let mut collect = |block: &[u8]| {
                data.extend_from_slice(block);
                Ok(())
            };
            snapshot::encode(running.replica.disk(), &mut collect).expect("memory can be read");
            made.data = data.into();
            self.nodes[at].inbox.push(Input::SnapshotMade(Some(made)));
        } else if self.step.is_multiple_of(7) && running.replica.scrub(3).is_err() {
            return self.crash(at);
        }
        for (ticket, result) in output.results {
            self.answer_write(ticket, result);
        }
        for (ticket, result) in output.reads {
            self.answer_read(at, ticket, result);
        }
    }

    fn ask_as_clients(&mut self, at: usize) {
        if self.nodes[at].running.is_none() {
            return;
        }
        for client in 0..CLIENTS {
            if self.clients[client as usize].busy.is_some() || !self.random.percent(8) {
                continue;
            }
            // A ticket names the client and the step, so that a late answer finds nobody.
            let ticket = Ticket(self.step * CLIENTS + client);
            let key = key(self.random.below(KEYS));
            let (want, input) = if self.random.percent(50) {
                (Want::Read { key }, Input::Read(ticket))
            } else {
                self.writes_begun += 1;
                let value = Bytes::from(format!("value-{}", self.writes_begun));
                let txn = self.write_of(client, &key, &value);
                (Want::Write { key, value }, Input::Propose(ticket, Command::Txn(txn)))
            };
            self.clients[client as usize].busy = Some((at as u64, self.step, want));
            self.nodes[at].inbox.push(input);
        }
        if self.random.below(400) == 0 {
            let newest = self.oracle.newest().0;
            let revision = Revision(newest.saturating_sub(self.random.below(20)));
            self.nodes[at].inbox.push(Input::Compact(revision));
        }
    }

    /// A write, one in three with a comparison.
    fn write_of(&mut self, client: u64, key: &Bytes, value: &Bytes) -> Txn {
        let op = Op::Put { key: key.clone(), value: value.clone(), lease: None };
        let seen = self.clients[client as usize].seen.get(key).copied().unwrap_or_default();
        let compare =
            if self.random.percent(33) { vec![Compare::mod_revision(key.clone(), seen)] } else { vec![] };
        Txn { compare, success: vec![op], ..Txn::default() }
    }

    fn take_client(&mut self, ticket: Ticket) -> Option<(usize, u64, Want)> {
        let (step, client) = (ticket.0 / CLIENTS, usize::try_from(ticket.0 % CLIENTS).unwrap());
        let (_, began, want) = self.clients[client].busy.take_if(|(_, began, _)| *began == step)?;
        Some((client, began, want))
    }

    fn answer_write(&mut self, ticket: Ticket, result: Applied) {
        let Some((client, began, Want::Write { key, value })) = self.take_client(ticket) else { return };
        let Ok(Outcome::Txn(response)) = result else { return };
        if response.succeeded {
            self.summary.writes += 1;
            self.clients[client].seen.insert(key.clone(), response.revision);
            let what = What::Write { key, value };
            let (ended, revision) = (self.step, response.revision);
            self.oracle.operations.push(Operation { began, ended, revision, what });
        }
    }

    fn answer_read(&mut self, at: usize, ticket: Ticket, result: Result<(), KvError>) {
        let Some((client, began, Want::Read { key })) = self.take_client(ticket) else { return };
        if result.is_err() {
            return;
        }
        let running = self.nodes[at].running.as_ref().expect("it has just answered");
        let disk = running.replica.disk();
        let head = Head::load(disk).expect("memory can be read");
        let request = RangeRequest::new(KeyRange::key(key.clone()));
        let mut response = read::range(disk, head.revision, &request).expect("memory can be read");
        let kv = response.kvs.pop();
        self.summary.reads += 1;
        let seen = kv.as_ref().map_or(Revision(0), |kv| kv.mod_revision);
        self.clients[client].seen.insert(key.clone(), seen);
        let what = What::Read { key, value: kv.map(|kv| kv.value) };
        let (ended, revision) = (self.step, response.revision);
        self.oracle.operations.push(Operation { began, ended, revision, what });
    }

    fn serve_watcher(&mut self, at: usize) {
        let speed = self.random.below(4);
        let Some(running) = &mut self.nodes[at].running else { return };
        let (oracle, range, needs) = (&self.oracle, &running.range, &mut running.needs);
        running.hub.progress(|_, message| {
            *needs = oracle.invariant_watch(range, *needs, &message);
            true
        });
        for _ in 0..speed {
            match running.hub.next(running.watch) {
                None | Some(Step::Wait) => break,
                Some(Step::Send(message)) => {
                    self.summary.watched += 1;
                    running.needs = self.oracle.invariant_watch(&running.range, running.needs, &message);
                }
                Some(Step::Load(from)) => {
                    let disk = running.replica.disk();
                    let newest = Head::load(disk).expect("memory can be read").revision;
                    let events = read::events(disk, from, 300).expect("memory can be read");
                    running.hub.loaded(running.watch, events, newest);
                }
                Some(Step::End(message)) => {
                    assert!(matches!(message, WatchMessage::Compacted(_)));
                    let needs = self.oracle.invariant_watch(&running.range, running.needs, &message);
                    let again = running.hub.register(running.range.clone(), Some(needs));
                    (running.watch, _) = again.expect("above the compaction");
                    running.needs = needs;
                }
            }
        }
    }

    fn send(&mut self, message: Message) {
        self.trace(|| format!("send {message:?}"));
        let link = (message.from - 1, message.to - 1);
        let lost = self.cut.contains(&link) || (!self.calm && self.random.percent(5));
        if lost {
            return self.report_snapshot(&message, false);
        }
        let slowest = if self.calm { 2 } else { 12 };
        self.network.push((self.step + 1 + self.random.below(slowest), message.clone()));
        if !self.calm && self.random.percent(3) {
            self.network.push((self.step + 1 + self.random.below(60), message));
        }
    }

    fn report_snapshot(&mut self, message: &Message, delivered: bool) {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let sender = usize::try_from(message.from - 1).unwrap();
            self.nodes[sender].inbox.push(Input::SnapshotSent(MemberId(message.to), delivered));
        }
    }

    fn deliver(&mut self) {
        let step = self.step;
        let due: Vec<Message> = self.network.extract_if(.., |(at, _)| *at <= step).map(|(_, m)| m).collect();
        for message in due {
            self.trace(|| format!("recv {message:?}"));
            let to = usize::try_from(message.to - 1).unwrap();
            let alive = self.nodes[to].running.is_some();
            self.report_snapshot(&message, alive);
            if alive {
                self.nodes[to].inbox.push(Input::Message(message));
            }
        }
    }

    fn invariant_members_converge(&self) {
        let state = |node: &Node| {
            let head = node.running.as_ref().expect("all run after healing").replica.state().head;
            (head.index, head.revision, head.compacted, head.digest)
        };
        // Clients still write, so members may be an entry apart: those at one index are compared.
        let newest = self.nodes.iter().map(|node| state(node).0).max().unwrap();
        for node in &self.nodes {
            assert!(newest - state(node).0 < 50, "a member lags behind {newest}: {:?}", state(node));
        }
        for (a, b) in [(0, 1), (1, 2), (0, 2)] {
            let (a, b) = (&self.nodes[a], &self.nodes[b]);
            if state(a).0 == state(b).0 {
                assert_eq!(state(a), state(b));
                assert_eq!(a.disk.replicated(), b.disk.replicated());
            }
        }
    }
}

/// Whoever lags, leaves or never fetches its snapshot: what is kept for it has an end.
fn invariant_log_is_bounded(truncated: u64, applied: u64) {
    let kept = applied - truncated;
    assert!(kept <= 5 * LOG_KEEP as u64 + 40, "{kept} applied entries are kept in the log");
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number}"))
}

fn config(at: usize) -> ReplicaConfig {
    ReplicaConfig {
        member: MemberConfig {
            id: MemberId(at as u64 + 1),
            election_ticks: 30,
            heartbeat_ticks: 5,
            max_message_bytes: 2000,
            max_inflight: 8,
            max_uncommitted_bytes: 100_000,
            max_apply_bytes: 1000,
            seed: 1,
        },
        tick: STEP,
        cluster: 1,
        founders: (1..=MEMBERS).map(|id| MemberInfo::new(MemberId(id), format!("member:{id}"))).collect(),
        proposals: ProposalLimits {
            max_waiting: 100,
            max_bytes: 10_000,
            timeout: Duration::from_secs(3),
            resend_after: Duration::from_millis(400),
        },
        log_keep: LogKeep { entries: LOG_KEEP, bytes: 100_000 },
        history: Duration::from_secs(1_000_000),
        compact_every: Duration::from_secs(1),
        lease_checkpoint: Duration::from_secs(4),
    }
}
