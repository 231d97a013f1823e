//! A whole member without threads and sockets: Raft, apply, waiting callers and timers over a disk.
//!
//! [`Replica::handle`] takes a batch of inputs and does everything that follows from it: one synced write
//! for all proposals of the batch, one apply batch, all answers. The driver runs it on a thread over
//! RocksDB; the simulation runs the same code over a disk that crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::eraftpb::{ConfState, Message, MessageType, Snapshot};

use super::changes::{self, Heard, Payload, Verdict};
use super::health::Health;
use super::lease_desk::{self, DeskLimits, LeaseAnswer, LeaseAsk, LeaseDesk, LeaseLeft, Question};
use super::leases::{LeaseTimers, LeaseTimes, Renewal};
use super::member::{Advanced, Leadership, Member, MemberConfig};
use super::persist::{self, Identity, RecoverError};
use super::proposals::{ProposalLimits, Proposals, Ticket};
use super::reads::Reads;
use crate::alarm::AlarmKind;
use crate::bug::bug;
use crate::command::{Applied, Command};
use crate::disk::{Disk, Durability};
use crate::failpoint::failpoint;
use crate::kv::{KvError, MemberId, Revision};
use crate::membership::{self, LeaderView, MemberChange, MemberInfo, Membership};
use crate::mvcc::apply::{self, ApplyError};
use crate::mvcc::family::Family;
use crate::mvcc::read::RevisionEvents;
use crate::mvcc::scrub;
use crate::mvcc::state::State;
use crate::mvcc::view::{Batch, DiskError};

mod lease_service;

/// Everything a replica is told at start.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Raft's sizes and times.
    pub member: MemberConfig,
    /// The length of a tick.
    pub tick: Duration,
    /// Which cluster.
    pub cluster: u64,
    /// The founding members of a new group; counts only on a new disk. Without any, the member waits to be
    /// told by the group that it joins.
    pub founders: Vec<MemberInfo>,
    /// Limits of proposals.
    pub proposals: ProposalLimits,
    /// How much log is kept for lagging followers.
    pub log_keep: LogKeep,
    /// How long history is kept.
    pub history: Duration,
    /// How often the leader looks whether history is too old.
    pub compact_every: Duration,
    /// How often what is left of a long lease is written down.
    pub lease_checkpoint: Duration,
}

/// What an entry takes in memory beside its payload, about; bytes.
const ENTRY_OVERHEAD: usize = 128;

/// A member that was heard of within so many election timeouts is healthy: it answers several heartbeats in
/// one.
const HEARD_ELECTIONS: u32 = 2;

/// How much applied log is kept; a follower that needs more gets a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct LogKeep {
    /// At most so many entries.
    pub entries: usize,
    /// At most so many bytes.
    pub bytes: usize,
    /// While members are on their way to a snapshot, at most so many bytes in memory.
    pub for_snapshot_bytes: usize,
}

/// The time of a batch of inputs.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, from any origin.
    pub mono: Duration,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
}

/// What a replica reacts to.
#[derive(Debug)]
pub enum Input {
    /// One tick of time has passed.
    Tick,
    /// A message of another member.
    Message(Message),
    /// A caller wants this done.
    Propose(Ticket, Command),
    /// A caller wants to read what is newest now.
    Read(Ticket),
    /// A caller asks the leader about a lease.
    Lease(Ticket, LeaseAsk),
    /// A message to the member couldn't be sent.
    Unreachable(MemberId),
    /// The connection from the member ended.
    Disconnected(MemberId),
    /// A snapshot was delivered to the member, or failed to be.
    SnapshotSent(MemberId, bool),
    /// The snapshot that was asked for has been made, or couldn't be.
    SnapshotMade(Option<Snapshot>),
    /// Hand leadership to the member.
    TransferLeader(MemberId),
    /// The disk was looked at: why its space is short, if it is.
    Space(Option<String>),
    /// This member's data is not what was applied.
    Damaged(String),
    /// History is too large: compact to this revision.
    Compact(Revision),
    /// Another member says that the group has removed this one.
    Removed,
}

/// What follows from a batch of inputs, besides the messages sent.
#[derive(Debug, Default)]
pub struct Output {
    /// Results of proposals.
    pub results: Vec<(Ticket, Applied)>,
    /// Readers that may read now, or must give up.
    pub reads: Vec<(Ticket, Result<(), KvError>)>,
    /// Answers about leases.
    pub leases: Vec<(Ticket, LeaseAnswer)>,
    /// Events, in revision order.
    pub events: Vec<RevisionEvents>,
    /// A snapshot replaced the state: events were skipped.
    pub installed: bool,
    /// Make a snapshot of the state as it is now, before the next batch.
    pub snapshot_wanted: bool,
    /// There is compacted history to clean up.
    pub compacted: bool,
    /// The membership is another than before.
    pub members_changed: bool,
    /// The group has removed this member: it must end and never start again.
    pub removed: bool,
}

/// Who waits for a confirmed read.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    /// A caller who wants to read.
    Caller(Ticket),
    /// A batch of questions about leases.
    Leases(u64),
}

/// The member can't go on; its process must exit.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The disk failed.
    #[error("the disk failed")]
    Disk(#[from] DiskError),
    /// The log can't be applied.
    #[error("the log can't be applied")]
    Apply(#[from] ApplyError),
    /// This member's data is wrong.
    #[error("this member is fenced: {0}")]
    Fenced(String),
    /// The member can't start again after its disk was full.
    #[error("the member can't start again")]
    Restart(#[source] Box<StartError>),
}

impl Fatal {
    /// Whether the disk is full, rather than broken.
    pub fn is_no_space(&self) -> bool {
        match self {
            Fatal::Disk(error) | Fatal::Apply(ApplyError::Disk(error)) => error.is_no_space(),
            _ => false,
        }
    }
}

/// Why a replica can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk's contents forbid it.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The configuration contradicts itself.
    #[error("the Raft configuration is refused")]
    Config(#[source] raft::Error),
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
        let (boot, claim) = persist::claim(&disk, identity, &config.founders)?;
        disk.write(&claim, Durability::Synced).map_err(RecoverError::from)?;
        failpoint!("start_after_claim");
        let log = persist::recover(&disk)?;
        let state = State::load(&disk).map_err(RecoverError::from)?;
        if state.membership.was_removed(id) {
            return Err(RecoverError::Removed(id).into());
        }
        failpoint!("start_after_recover");
        if let Some(detail) = state.alarms.get(&(AlarmKind::Corrupt, id)) {
            return Err(RecoverError::Fenced { member: id, detail: detail.clone() }.into());
        }
        let mut member =
            Member::new(config.member.clone(), log, state.head.index).map_err(StartError::Config)?;
        if state.membership.voters() == [id] {
            // Nobody else can lead: don't wait for an election timeout.
            member.campaign();
        }
        let retry = config.tick * u32::try_from(config.member.heartbeat_ticks * 2).unwrap_or(u32::MAX);
        Ok(Self {
            proposals: Proposals::new(id, boot, config.proposals),
            reads: Reads::new(id, boot, config.proposals.timeout, retry.max(config.tick * 2)),
            leases: LeaseTimers::new(lease_times(&config)),
            desk: LeaseDesk::new(id, boot, desk_limits(&config.proposals)),
            leadership: Leadership::default(),
            next_compaction: now.mono + config.compact_every,
            health: Health::new(id, lease_times(&config).grace),
            output: Output::default(),
            heard: Heard::default(),
            receivers: BTreeMap::new(),
            now,
            config,
            boot,
            disk,
            member,
            state,
        })
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
            Input::Message(message) => {
                self.heard.from(MemberId(message.from), self.now.mono);
                self.health.note_message(&message, self.now.mono);
                self.receive(message);
            }
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
            Input::Damaged(detail) => self.health.note_damage(detail),
            Input::TransferLeader(to) => self.member.transfer_leader(to),
            Input::Compact(revision) => drop(self.propose(None, Command::Compact(revision))),
            Input::Removed => self.removed()?,
        }
        Ok(())
    }

    fn receive(&mut self, message: Message) {
        if lease_desk::is_envelope(&message) {
            self.desk.open(message, self.leases.leading().is_some(), self.now.mono);
        } else {
            self.step(message);
        }
    }

    fn tick(&mut self) -> Result<(), Fatal> {
        self.member.tick();
        if self.state.membership.is_joint() && self.member.leads_surely() {
            self.member.leave_joint();
        }
        let late = self.proposals.expire(self.now.mono);
        self.output.results.extend(late.into_iter().map(|(ticket, error)| (ticket, Err(error))));
        for (waiter, error) in self.reads.expire(self.now.mono) {
            // The questions of a batch have deadlines of their own.
            if let Waiter::Caller(ticket) = waiter {
                self.output.reads.push((ticket, Err(error)));
            }
        }
        self.desk.expire(self.now.mono);
        let leads = self.member.leads_surely();
        let voters = self.state.membership.voters();
        for command in self.health.due(&self.state, &voters, leads, self.now.mono) {
            let _refused_now_asked_again = self.propose(None, command);
        }
        for command in self.leases.due(self.now.mono) {
            let offered = command.clone();
            if !self.propose(None, command) {
                self.leases.put_off(&offered, self.now.mono);
            }
        }
        if self.member.leads_surely() && self.now.mono >= self.next_compaction {
            self.next_compaction = self.now.mono + self.config.compact_every;
            let keep_ms = u64::try_from(self.config.history.as_millis()).unwrap_or(u64::MAX);
            let mark = apply::retention_mark(&self.disk, &self.state, self.now.wall_ms, keep_ms)?;
            if let Some(revision) = mark {
                failpoint!("compact_scheduled");
                self.propose(None, Command::Compact(revision));
            }
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

    /// After persisting: send, install, apply, confirm reads.
    fn follow_up(&mut self, advanced: Advanced, send: &mut dyn FnMut(Message)) -> Result<(), Fatal> {
        failpoint!("raft_before_follower_send");
        self.send(advanced.messages, send);
        failpoint!("raft_after_follower_send");
        if advanced.installed {
            self.reload()?;
        }
        if !advanced.committed.is_empty() {
            self.apply(&advanced.committed)?;
        }
        advanced.reads.iter().for_each(|read| self.reads.confirm(read));
        Ok(())
    }

    fn apply(&mut self, entries: &[apply::LogEntry]) -> Result<(), Fatal> {
        failpoint!("apply_before_batch");
        let compacted = self.state.head.compacted;
        let effects = apply::apply(&mut self.state, &self.disk, entries)?;
        if bug!(AppliedIndexInOwnBatch) {
            let (index, data) = effects.batch.split(Family::Meta);
            self.disk.write(&data, Durability::Later)?;
            self.disk.write(&index, Durability::Later)?;
        } else {
            failpoint!("apply_before_write");
            self.disk.write(&effects.batch, Durability::Later)?;
            failpoint!("apply_after_write");
        }
        self.change_members(&effects);
        self.member.applied(self.state.head.index);
        for (id, result) in effects.results {
            if let Some(ticket) = self.proposals.applied(id) {
                self.output.results.push((ticket, result));
            }
        }
        for change in effects.leases {
            self.leases.change(change, self.now.mono);
            self.settle_held(change);
        }
        self.output.events.extend(effects.events);
        self.output.compacted |= self.state.head.compacted > compacted;
        Ok(())
    }

    /// Tells Raft what the applied entries have made of the membership.
    fn change_members(&mut self, effects: &apply::Effects) {
        let votes = effects.conf_changes.iter().map(|change| self.member.apply_conf_change(change)).last();
        if let Some(votes) = votes {
            assert_eq!(
                sorted(votes),
                self.state.membership.conf_state(),
                "Raft and the state agree who votes"
            );
        }
        self.output.members_changed |= effects.members_changed;
        self.output.removed |= self.state.membership.was_removed(self.id());
    }

    /// Others refuse this member as removed. Its own log may never tell it.
    fn removed(&mut self) -> Result<(), Fatal> {
        let mut batch = Batch::default();
        persist::removed(&mut batch);
        self.disk.write(&batch, Durability::Synced)?;
        self.output.removed = true;
        Ok(())
    }

    /// Steps a message, after a leader's look at the membership changes that it proposes. False if it was
    /// dropped.
    fn step(&mut self, mut message: Message) -> bool {
        if self.member.is_leader() {
            changes::screen(&mut message, &mut |change| self.judge(change));
            if message.get_msg_type() == MessageType::MsgPropose && message.get_entries().is_empty() {
                return true;
            }
        }
        self.member.step(message)
    }

    fn judge(&mut self, change: &MemberChange) -> Verdict {
        // Before its first commit a leader doesn't know what its predecessors have left.
        if !self.member.leads_surely() {
            return Verdict::Later;
        }
        let view = LeaderView {
            leader: self.id(),
            healthy: self.healthy(),
            matched: self.member.matched(),
            last: self.member.log().last(),
        };
        match membership::judge(&self.state.membership, change, &view) {
            Err(refusal) => Verdict::Refuse(refusal),
            Ok(()) if change.removes() == Some(self.id()) => self.hand_over_before_leaving(&view),
            Ok(()) => Verdict::Append,
        }
    }

    /// A leader doesn't remove itself: it moves leadership first, and its successor gets the change again.
    fn hand_over_before_leaving(&mut self, view: &LeaderView) -> Verdict {
        let voters = self.state.membership.voters().into_iter();
        let others = voters.filter(|id| *id != view.leader && view.healthy.contains(id));
        if let Some(successor) = others.max_by_key(|id| view.matched.get(id).copied()) {
            self.member.transfer_leader(successor);
        }
        Verdict::Later
    }

    /// A snapshot replaced the state on disk.
    fn reload(&mut self) -> Result<(), Fatal> {
        failpoint!("raft_before_apply_snapshot");
        self.state = State::load(&self.disk)?;
        if bug!(SessionLostInSnapshot) {
            self.state.sessions.clear();
        }
        self.output.members_changed = true;
        self.member.applied(self.state.head.index);
        failpoint!("raft_after_apply_snapshot");
        self.output.installed = true;
        self.output.events.clear();
        // Our proposals inside the snapshot were applied, but their results are nowhere.
        let session = self.state.sessions.get(&self.config.member.id).filter(|s| s.boot == self.boot);
        let settled = |seq: u64| session.is_some_and(|s| seq < s.floor || s.applied.contains(&seq));
        let lost = self.proposals.lost_results(settled);
        self.output.results.extend(lost.into_iter().map(|(ticket, error)| (ticket, Err(error))));
        Ok(())
    }

    /// Keeps the log within its limits, but for what the receivers of snapshots will need.
    fn truncate_log(&mut self) -> Result<(), Fatal> {
        let log = self.member.log();
        let LogKeep { entries, bytes, for_snapshot_bytes } = self.config.log_keep;
        if log.len() <= entries + entries / 4 && log.bytes() <= bytes + bytes / 4 {
            return Ok(());
        }
        let mut target = log.last().saturating_sub(entries as u64);
        if log.bytes() > bytes {
            target = target.max(log.truncated().0 + log.len() as u64 / 2);
        }
        if log.bytes() + log.len() * ENTRY_OVERHEAD > for_snapshot_bytes {
            // Too much has happened since: whoever is still on its way needs a newer one.
            log.set_snapshot(None);
            self.receivers.clear();
        }
        let needed = self.needed_by_receivers();
        let log = self.member.log();
        target = target.min(self.state.head.index).min(log.snapshot_index().unwrap_or(u64::MAX)).min(needed);
        if target > log.truncated().0 {
            let batch = self.member.truncate(target);
            failpoint!("raft_before_wal_release");
            self.disk.write(&batch, Durability::Later)?;
            failpoint!("raft_after_wal_release");
        }
        Ok(())
    }

    /// The first index after which the log is needed by members that were sent a snapshot and haven't
    /// answered from it yet: receiving and installing takes its time.
    fn needed_by_receivers(&mut self) -> u64 {
        if !self.receivers.is_empty() {
            let matched = self.member.matched();
            let leads = self.member.is_leader();
            let waits = |id: &MemberId, index: u64| leads && matched.get(id).is_some_and(|at| *at < index);
            self.receivers.retain(|id, index| waits(id, *index));
        }
        self.receivers.values().copied().min().unwrap_or(u64::MAX)
    }

    /// Sends, and remembers who is sent a snapshot.
    fn send(&mut self, messages: Vec<Message>, send: &mut dyn FnMut(Message)) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                let index = message.get_snapshot().get_metadata().index;
                self.receivers.insert(MemberId(message.to), index);
            }
            send(message);
        }
    }

    /// Cleans up a piece of compacted history; true if more is left.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn scrub(&mut self, max_events: usize) -> Result<bool, Fatal> {
        match scrub::next_piece(&self.disk, max_events)? {
            Some(piece) => {
                failpoint!("compact_before_batch");
                self.disk.write(&piece.batch, Durability::Later)?;
                failpoint!("compact_after_batch");
                Ok(piece.more)
            }
            None => {
                failpoint!("compact_finished");
                Ok(false)
            }
        }
    }
}

/// In the order of ids, as the membership has them.
fn sorted(mut votes: ConfState) -> ConfState {
    votes.mut_voters().sort_unstable();
    votes.mut_voters_outgoing().sort_unstable();
    votes.mut_learners().sort_unstable();
    votes
}

fn lease_times(config: &ReplicaConfig) -> LeaseTimes {
    let election_ticks = u32::try_from(config.member.election_ticks).unwrap_or(u32::MAX);
    LeaseTimes {
        grace: config.tick * election_ticks,
        again_after: config.proposals.timeout,
        checkpoint_every: config.lease_checkpoint,
    }
}

fn desk_limits(limits: &ProposalLimits) -> DeskLimits {
    DeskLimits { max_waiting: limits.max_waiting, timeout: limits.timeout, resend_after: limits.resend_after }
}
