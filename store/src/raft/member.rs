//! One Raft member as a value: messages, ticks and proposals in; messages, entries to persist and
//! committed entries out.
//!
//! The order of operations is in the types. [`Ready`] lends only messages that may leave at once;
//! [`Ready::persist`] is the only way to a [`Persisted`], and only [`Member::advance`] of that yields the
//! messages that promise durability (votes, acknowledgements) and the committed entries.
//!
//! It knows no socket, no clock and no file. Election timeouts come from the seed, not from a global
//! random number, so a simulation repeats.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};
use raft::{ReadOnlyOption, SnapshotStatus, StateRole};

use super::changes::{self, Payload};
use super::log::LogCache;
use super::persist;
use crate::bug::bug;
use crate::failpoint::failpoint;
use crate::kv::MemberId;
use crate::mvcc::apply::LogEntry;
use crate::mvcc::view::Batch;

mod ready;

pub use ready::{Persisted, Ready};

/// Raft's sizes and times.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// This member.
    pub id: MemberId,
    /// An election begins after this many to twice this many ticks without a leader.
    pub election_ticks: usize,
    /// A leader is heard of at least this often.
    pub heartbeat_ticks: usize,
    /// Bytes of entries in one message.
    pub max_message_bytes: u64,
    /// Messages on their way to one follower.
    pub max_inflight: usize,
    /// Bytes of entries that are proposed but not committed; more are refused.
    pub max_uncommitted_bytes: u64,
    /// Bytes of committed entries handed out at once.
    pub max_apply_bytes: u64,
    /// Spreads election timeouts.
    pub seed: u64,
}

/// A confirmed read: everything up to `index` must be applied before it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmedRead {
    /// The request's context.
    pub context: Vec<u8>,
    /// The commit index that a quorum confirmed.
    pub index: u64,
}

/// What may happen after persisting.
#[derive(Default)]
pub struct Advanced {
    /// To be sent.
    pub messages: Vec<Message>,
    /// To be applied, then reported by [`Member::applied`].
    pub committed: Vec<LogEntry>,
    /// Confirmed reads.
    pub reads: Vec<ConfirmedRead>,
    /// A snapshot replaced the whole state.
    pub installed: bool,
}

/// Who leads, as this member sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
}

/// A Raft member.
pub struct Member {
    node: raft::RawNode<LogCache>,
    config: MemberConfig,
    /// The election timeout of a term, in ticks; `None` if the voters have changed since.
    timeout: Option<(u64, usize)>,
}

impl Member {
    /// A member over its recovered log, with everything up to `applied` applied.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(config: MemberConfig, log: LogCache, applied: u64) -> Result<Self, raft::Error> {
        let raft_config = raft::Config {
            id: config.id.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.max_message_bytes,
            max_inflight_msgs: config.max_inflight,
            // Both off by default in the library; without them a member that comes back from a
            // partition deposes a healthy leader, and a cut-off leader never steps down.
            check_quorum: true,
            pre_vote: true,
            // A clock that pauses makes leader leases unsafe; a quorum confirms each batch of reads.
            read_only_option: if bug!(LeaderLeaseReads) {
                ReadOnlyOption::LeaseBased
            } else {
                ReadOnlyOption::Safe
            },
            // Must stay off: the library (0.7) then adds entries to a queued append that is empty without
            // looking where that one begins, so a follower acknowledges indexes that it doesn't have.
            // The simulation finds it (seed 2). Our proposals come as one message anyway.
            batch_append: false,
            max_uncommitted_size: config.max_uncommitted_bytes,
            max_committed_size_per_ready: config.max_apply_bytes,
            ..raft::Config::default()
        };
        raft_config.validate()?;
        let node = raft::RawNode::new(&raft_config, log, &crate::logging::raft_logger(config.id))?;
        let mut member = Self { node, config, timeout: None };
        member.set_election_timeout();
        Ok(member)
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.node.tick();
        self.set_election_timeout();
    }

    /// A message of another member came in. Messages that make no sense are ignored, as Raft allows.
    /// False if this one was.
    pub fn step(&mut self, message: Message) -> bool {
        failpoint!("raft_before_step");
        let stepped = self.node.step(message);
        if let Err(error) = &stepped {
            tracing::debug!(%error, "raft ignored a message");
        }
        self.set_election_timeout();
        stepped.is_ok()
    }

    /// The message that proposes payloads when it is stepped, here or at the leader.
    pub fn proposal(&self, payloads: impl IntoIterator<Item = Payload>) -> Message {
        let mut message = Message::new();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.id.0;
        message.set_entries(payloads.into_iter().map(Payload::into_entry).collect::<Vec<_>>().into());
        message
    }

    /// Voters or learners have changed by an entry that is being applied. Returns who votes now.
    pub fn apply_conf_change(&mut self, change: &ConfChangeV2) -> ConfState {
        self.timeout = None;
        self.node.apply_conf_change(change).expect("what the membership accepted, Raft accepts")
    }

    /// Proposes to leave a joint membership. The library does so by itself but for corners it names.
    pub fn leave_joint(&mut self) {
        if !self.node.raft.has_pending_conf() {
            let leave = Payload { data: Bytes::new(), conf_change: true };
            self.step(self.proposal([leave]));
        }
    }

    /// Whether a change of who votes is committed, as this leader knows, and not applied here yet. True a little
    /// too often: a new leader doesn't know which of its predecessors' entries are changes.
    pub fn conf_change_unapplied(&self) -> bool {
        let raft = &self.node.raft;
        self.is_leader() && raft.has_pending_conf() && raft.pending_conf_index <= raft.raft_log.committed
    }

    /// Leads no more. The library lets a leader go on that isn't a member any more, and fails when its next
    /// entry is persisted.
    pub fn step_down(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
        self.set_election_timeout();
    }

    /// Whether it may ask for votes: it votes, as far as it knows.
    pub fn may_campaign(&self) -> bool {
        self.node.raft.promotable()
    }

    /// A sign of life that promises nothing: whoever leads this member goes on with it, whoever has removed it
    /// says so, and nobody else minds.
    pub fn presence(&self, to: MemberId) -> Message {
        let mut message = Message::new();
        message.set_msg_type(MessageType::MsgHeartbeatResponse);
        (message.from, message.to) = (self.config.id.0, to.0);
        message.term = self.node.raft.term;
        message.commit = self.commit();
        message
    }

    /// The last index that each member is known to have; only a leader knows.
    pub fn matched(&self) -> BTreeMap<MemberId, u64> {
        self.node.raft.prs().iter().map(|(id, progress)| (MemberId(*id), progress.matched)).collect()
    }

    /// Asks a quorum for the commit index. The answer may never come; ask again with a new context.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.node.read_index(context);
    }

    /// Starts an election now; for a group of one.
    pub fn campaign(&mut self) {
        if let Err(error) = self.node.campaign() {
            tracing::debug!(%error, "raft refused to campaign");
        }
        self.set_election_timeout();
    }

    /// Asks the leader, if that is us, to hand over.
    pub fn transfer_leader(&mut self, to: MemberId) {
        self.node.transfer_leader(to.0);
    }

    /// A message to `to` could not be sent.
    pub fn report_unreachable(&mut self, to: MemberId) {
        self.node.report_unreachable(to.0);
    }

    /// The connection from `peer` ended. If that was the leader, its process probably died: the rest of
    /// the election timeout needn't be waited for, only the part that spreads candidates. Safety never
    /// depends on timeouts, and a leader that lives on and reconnects resets this with its next message.
    pub fn connection_ended(&mut self, peer: MemberId) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Follower && raft.leader_id == peer.0 {
            raft.election_elapsed = raft.election_elapsed.max(self.config.election_ticks);
        }
    }

    /// A snapshot to `to` was delivered or not. Must always be called: the follower hears nothing before.
    pub fn report_snapshot(&mut self, to: MemberId, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to.0, status);
    }

    /// The next piece of work, if there is any.
    pub fn ready(&mut self) -> Option<Ready> {
        let old_last = self.log().last();
        self.node.has_ready().then(|| Ready { inner: self.node.ready(), old_last })
    }

    /// What follows from persisted work.
    pub fn advance(&mut self, persisted: Persisted) -> Advanced {
        let mut ready = persisted.inner;
        let mut out = Advanced::default();
        let log = self.node.raft.mut_store();
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            log.reset(metadata.index, metadata.term);
            out.installed = true;
            self.timeout = None;
        }
        persist::records(ready.entries()).for_each(|record| log.append(record));
        if let Some(state) = ready.hs() {
            log.hard_state = state.clone();
        }
        let reads = ready.take_read_states();
        out.reads =
            reads.into_iter().map(|r| ConfirmedRead { context: r.request_ctx, index: r.index }).collect();
        out.messages = ready.take_persisted_messages();
        let mut committed = ready.take_committed_entries();
        let mut light = self.node.advance_append(ready);
        out.messages.extend(light.take_messages());
        committed.extend(light.take_committed_entries());
        out.committed = committed.into_iter().map(log_entry).collect();
        out
    }

    /// Everything up to `index` is applied.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        let leader = self.node.raft.leader_id;
        Leadership {
            term: self.node.raft.term,
            leader: (leader != raft::INVALID_ID).then_some(MemberId(leader)),
        }
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether the leader, which this member is, has committed an entry of its term.
    pub fn leads_surely(&self) -> bool {
        self.is_leader() && self.node.raft.commit_to_current_term()
    }

    /// The last committed index that is known here.
    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The retained log.
    pub fn log(&self) -> &LogCache {
        self.node.raft.store()
    }

    /// Forgets the log up to `index`, which must be applied; returns the writes.
    pub fn truncate(&mut self, index: u64) -> Batch {
        let mut batch = Batch::default();
        let log = self.node.raft.mut_store();
        let gone = log.truncate_to(index);
        let (index, term) = log.truncated();
        persist::truncate(&mut batch, gone, index, term);
        batch
    }

    /// Replaces the library's random election timeout, which it draws anew with each change of role.
    fn set_election_timeout(&mut self) {
        let term = self.node.raft.term;
        let ticks = match self.timeout {
            Some((of, ticks)) if of == term => ticks,
            _ => self.election_timeout(term),
        };
        self.timeout = Some((term, ticks));
        self.node.raft.set_randomized_election_timeout(ticks);
    }

    /// The voters take turns, evenly spread over an election timeout, so that two that miss the leader at the
    /// same time don't split the votes. Who is first changes with the term, and a simulation repeats.
    fn election_timeout(&self, term: u64) -> usize {
        let mut voters: Vec<u64> = self.node.raft.prs().conf().voters().ids().iter().collect();
        voters.sort_unstable();
        let count = voters.len().max(1);
        // A learner has no turn; it doesn't call elections anyway.
        let own = voters.binary_search(&self.config.id.0).unwrap_or(0);
        let first = mix(self.config.seed ^ mix(term)) % count as u64;
        let turn = (own + usize::try_from(first).expect("less than the number of voters")) % count;
        self.config.election_ticks + turn * self.config.election_ticks / count
    }
}

/// SplitMix64's finaliser.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn log_entry(entry: Entry) -> LogEntry {
    let conf_change = entry.get_entry_type() != EntryType::EntryNormal;
    let data = if conf_change {
        // Recovery and the wire check checksums: what is damaged here is a bug, and must not be skipped.
        changes::proposal_of(&entry.data).expect("a membership change that its proposer encoded")
    } else {
        entry.data
    };
    LogEntry { index: entry.index, term: entry.term, data, conf_change }
}
