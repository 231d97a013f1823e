//! A whole member without threads and sockets: Raft, apply, waiting callers and timers over a disk.
//!
//! [`Replica::handle`] takes a batch of inputs and does everything that follows from it: one synced write
//! for all proposals of the batch, one apply batch, all answers. The driver runs it on a thread over
//! RocksDB; the simulation runs the same code over a disk that crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::eraftpb::{Message, Snapshot};

use super::changes::{self, Heard, Payload, Verdict};
use super::health::Health;
use super::lease_desk::{self, LeaseAsk, LeaseDesk, LeaseLeft, Question};
use super::leases::{LeaseTimers, Renewal};
use super::member::{Advanced, Leadership, Member};
use super::newcomer::{Newcomer, record};
use super::persist::{self, Identity, RecoverError};
use super::proposals::{Proposals, Ticket};
use super::reads::Reads;
use crate::alarm::AlarmKind;
use crate::command::Command;
use crate::disk::{Disk, Durability};
use crate::failpoint::failpoint;
use crate::kv::{KvError, MemberId};
use crate::membership::Membership;
use crate::mvcc::apply;
use crate::mvcc::state::State;

mod applying;
mod arrival;
mod config;
mod interface;
mod keep;
mod lease_service;
mod members;
mod time;

pub use config::{LogKeep, ReplicaConfig};
use config::{desk_limits, lease_times};
pub use interface::{Fatal, Input, Now, Output, StartError};
use members::Dismissal;

/// A member that was heard of within so many election timeouts is healthy: it answers several heartbeats in
/// one.
const HEARD_ELECTIONS: u32 = 2;

/// Who waits for a confirmed read.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    /// A caller who wants to read.
    Caller(Ticket),
    /// A batch of questions about leases.
    Leases(u64),
}

/// A member over its disk.
pub struct Replica<D> {
    config: ReplicaConfig,
    boot: u64,
    disk: D,
    member: Member,
    state: State,
    proposals: Proposals,
    reads: Reads<Waiter>,
    leases: LeaseTimers,
    desk: LeaseDesk,
    leadership: Leadership,
    /// Messages that wait until a committed change of who votes is applied, and durable, here.
    held: Vec<Message>,
    /// The term in which this group began, while this member has yet to make it elect someone.
    founding_term: Option<u64>,
    /// The number of this member's directory.
    incarnation: u64,
    /// Whether it is new, and who vouches for it so far.
    newcomer: Option<Newcomer>,
    /// Whom it asked: before it has a log, it knows nobody else.
    introduced: BTreeSet<MemberId>,
    /// The incarnations of others that it has heard of.
    acquainted: BTreeMap<MemberId, u64>,
    /// When it next records its incarnation.
    identify_at: Duration,
    /// Who has told it that it is removed.
    dismissal: Dismissal,
    /// When others were last heard of; the leader judges their health by it.
    heard: Heard,
    /// Who was sent a snapshot, of which index.
    receivers: BTreeMap<MemberId, u64>,
    now: Now,
    next_compaction: Duration,
    health: Health,
    output: Output,
}

impl<D: Disk> Replica<D> {
    /// Recovers what the disk holds, claims it, and is ready for inputs.
    ///
    /// # Errors
    /// If the disk belongs to another member, isn't whole, or can't be used.
    pub fn start(config: ReplicaConfig, disk: D, now: Now) -> Result<Self, StartError> {
        let id = config.member.id;
        let identity = Identity { cluster: config.cluster, member: id };
        failpoint!("start_before_claim");
        let (boot, mut claim) = persist::claim(&disk, identity, &config.founders)?;
        let own = record::claim(&disk, config.incarnation, &mut claim).map_err(RecoverError::from)?;
        disk.write(&claim, Durability::Synced).map_err(RecoverError::from)?;
        failpoint!("start_after_claim");
        let log = persist::recover(&disk)?;
        let state = State::load(&disk).map_err(RecoverError::from)?;
        failpoint!("start_after_recover");
        if let Some(detail) = state.alarms.get(&(AlarmKind::Corrupt, id)) {
            return Err(RecoverError::Fenced { member: id, detail: detail.clone() }.into());
        }
        let mut member =
            Member::new(config.member.clone(), log, state.head.index).map_err(StartError::Config)?;
        let voters = state.membership.voters();
        if voters == [id] {
            // Nobody else can lead: don't wait for an election timeout.
            member.campaign();
        }
        let is_new = boot == 1 && member.log().len() == 0 && voters.first() == Some(&id);
        let founding_term = is_new.then_some(member.leadership().term);
        let retry = config.tick * u32::try_from(config.member.heartbeat_ticks * 2).unwrap_or(u32::MAX);
        let newcomer = || {
            let mut newcomer = Newcomer::new(id, own.incarnation, state.head.index, voters);
            config.introduced.iter().for_each(|member| newcomer.may_ask(*member));
            newcomer
        };
        let mut replica = Self {
            incarnation: own.incarnation,
            newcomer: own.is_newcomer.then(newcomer),
            acquainted: record::acquainted(&disk).map_err(RecoverError::from)?,
            identify_at: now.mono,
            proposals: Proposals::new(id, boot, config.proposals),
            reads: Reads::new(id, boot, config.proposals.timeout, retry.max(config.tick * 2)),
            leases: LeaseTimers::new(lease_times(&config)),
            desk: LeaseDesk::new(id, boot, desk_limits(&config.proposals)),
            leadership: Leadership::default(),
            next_compaction: now.mono + config.compact_every,
            health: Health::new(id, lease_times(&config).grace),
            output: Output::default(),
            heard: Heard::default(),
            dismissal: Dismissal::default(),
            introduced: config.introduced.clone(),
            founding_term,
            held: Vec::new(),
            receivers: BTreeMap::new(),
            now,
            config,
            boot,
            disk,
            member,
            state,
        };
        // Alone it needs nobody's word.
        replica.admit_if_vouched().map_err(RecoverError::from)?;
        Ok(replica)
    }

    /// Does everything that follows from `inputs`. `send` is called in order; a leader's messages leave
    /// before its own write.
    ///
    /// # Errors
    /// If the member can't go on. Nothing may be answered then.
    pub fn handle(
        &mut self,
        now: Now,
        inputs: impl IntoIterator<Item = Input>,
        send: &mut dyn FnMut(Message),
    ) -> Result<Output, Fatal> {
        self.now = now;
        for input in inputs {
            self.take(input)?;
        }
        loop {
            self.notice_leadership()?;
            self.release_reads();
            self.hand_over();
            self.desk.take_replies().into_iter().for_each(&mut *send);
            let Some(mut ready) = self.member.ready() else { break };
            failpoint!("raft_before_leader_send");
            self.send(ready.take_messages(), send);
            failpoint!("raft_after_leader_send");
            let persisted = ready.persist(&self.disk)?;
            failpoint!("raft_before_advance");
            let advanced = self.member.advance(persisted);
            failpoint!("raft_after_advance");
            self.follow_up(advanced, send)?;
        }
        if let Some(detail) = self.state.alarms.get(&(AlarmKind::Corrupt, self.config.member.id)) {
            return Err(Fatal::Fenced(detail.clone()));
        }
        self.send(Vec::new(), send);
        self.send_questions(send);
        self.output.leases.extend(self.desk.take_settled());
        self.truncate_log()?;
        self.output.snapshot_wanted |= self.member.log().take_snapshot_wanted();
        Ok(std::mem::take(&mut self.output))
    }

    /// What it was told at start.
    pub fn config(&self) -> &ReplicaConfig {
        &self.config
    }

    /// This member.
    pub fn id(&self) -> MemberId {
        self.config.member.id
    }

    /// Who belongs to the group, as far as applied here.
    pub fn membership(&self) -> &Membership {
        &self.state.membership
    }

    /// This member, and those it has heard of lately: on a leader all that are well, as they answer its
    /// heartbeats.
    pub fn healthy(&self) -> BTreeSet<MemberId> {
        let patience = self.leases.times().grace * HEARD_ELECTIONS;
        let mut healthy = self.heard.since(self.now.mono.saturating_sub(patience));
        healthy.insert(self.id());
        healthy
    }

    /// The disk, for reading.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// How far apply is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Raft's view.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// An empty snapshot message body for the state as it is now; its data is to be filled in.
    pub fn snapshot_header(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.state.head.index;
        metadata.term = self.state.head.term;
        metadata.set_conf_state(self.state.membership.conf_state());
        snapshot
    }

    fn take(&mut self, input: Input) -> Result<(), Fatal> {
        match input {
            Input::Tick => self.tick()?,
            Input::Message(message) => self.receive(message)?,
            Input::Propose(ticket, command) => drop(self.propose(Some(ticket), command)),
            Input::Read(ticket) => self.read(ticket),
            Input::Lease(ticket, ask) => self.desk.ask(ticket, ask, self.now.mono),
            Input::Unreachable(id) => {
                self.heard.lost(id);
                self.member.report_unreachable(id);
            }
            Input::Disconnected(id) => {
                self.heard.lost(id);
                self.member.connection_ended(id);
            }
            Input::SnapshotSent(id, delivered) => {
                if !delivered {
                    self.receivers.remove(&id);
                }
                self.member.report_snapshot(id, delivered);
                self.member.log().set_snapshot(None);
            }
            Input::SnapshotMade(snapshot) => self.member.log().set_snapshot(snapshot),
            Input::Space(low) => self.health.note_space(low),
            Input::DiskFailed(error) => return Err(error.into()),
            Input::Damaged(detail) => self.health.note_damage(detail),
            Input::TransferLeader(to) => self.member.transfer_leader(to),
            Input::Compact(revision) => drop(self.propose(None, Command::Compact(revision))),
            Input::Removed { by, voters } => self.removed(by, voters)?,
        }
        Ok(())
    }

    fn read(&mut self, ticket: Ticket) {
        if self.reads.len() < self.config.proposals.max_waiting {
            self.reads.add(Waiter::Caller(ticket), self.now.mono);
        } else {
            self.output.reads.push((ticket, Err(KvError::Overloaded)));
        }
    }

    /// Queues a proposal; false if it was refused.
    fn propose(&mut self, ticket: Option<Ticket>, command: Command) -> bool {
        failpoint!("raft_before_propose");
        if let (Some(error), Some(ticket)) = (self.refusal(&command), ticket) {
            self.output.results.push((ticket, Err(error)));
            return false;
        }
        let added = self.proposals.add(ticket, command, self.now.mono, self.now.wall_ms);
        let accepted = added.is_ok();
        if let (Err(error), Some(ticket)) = (added, ticket) {
            self.output.results.push((ticket, Err(error)));
        }
        accepted
    }

    /// Whether a full disk somewhere forbids the command; apply asks again.
    fn refusal(&self, command: &Command) -> Option<KvError> {
        self.state.no_space().filter(|_| command.grows())
    }

    /// Reacts to another leader or term.
    fn notice_leadership(&mut self) -> Result<(), Fatal> {
        let leadership = self.member.leadership();
        if leadership != self.leadership {
            failpoint!("raft_leader_changed");
            self.leadership = leadership;
            self.reads.give_up_round();
            self.desk.ask_again();
            if leadership.leader.is_some() {
                self.proposals.send_all_again();
            }
        }
        let leads = self.member.leads_surely().then_some(leadership.term);
        if leads != self.leases.leading() {
            self.desk.stop_leading();
            match leads {
                Some(term) => {
                    // What was asked before the first commit of the term was dropped without a word.
                    self.reads.give_up_round();
                    failpoint!("lease_promote");
                    self.leases.lead(term, apply::leases(&self.disk)?, self.now.mono);
                }
                None => self.leases.follow(),
            }
        }
        Ok(())
    }

    /// Gives Raft what waits: proposals as one message, reads as one request.
    fn hand_over(&mut self) {
        if self.leadership.leader.is_none() {
            return;
        }
        let max_bytes = usize::try_from(self.config.member.max_message_bytes).unwrap_or(usize::MAX);
        loop {
            let due = self.proposals.due(self.now.mono, max_bytes);
            let (seqs, payloads): (Vec<u64>, Vec<Payload>) = due.into_iter().unzip();
            if seqs.is_empty() || !self.step(self.member.proposal(payloads)) {
                break;
            }
            failpoint!("raft_after_propose");
            self.proposals.sent(seqs, self.now.mono);
        }
        self.queue_questions();
        if let Some(context) = self.reads.next_request(self.now.mono) {
            failpoint!("raft_before_read_index");
            self.member.read_index(context);
        }
    }

    /// Lets those read, and answers those questions about leases, that were confirmed and whose index is
    /// applied.
    fn release_reads(&mut self) {
        for waiter in self.reads.released(self.state.head.index) {
            match waiter {
                Waiter::Caller(ticket) => self.output.reads.push((ticket, Ok(()))),
                Waiter::Leases(batch) => self.answer_batch(batch),
            }
        }
    }
}
