//! The one function that changes the replicated state: committed entries and a view in, a batch of
//! writes, results and events out.
//!
//! Always holds: the batch contains the applied index; entries come without a gap; equal entries on
//! equal states make equal batches, results and digests, however they are cut into calls. An entry
//! that can't be understood is an error that must stop the member.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::ConfChangeV2;

use super::digest;
use super::family::{self, Family, JournalRecord, LeaseRecord};
use super::read::{self, RevisionEvents};
use super::state::State;
use super::txn::{self, Writer};
use super::view::{Batch, DiskError, Overlay, ReadView};
use crate::alarm::{Alarm, AlarmKind};
use crate::bug::bug;
use crate::codec::DecodeError;
use crate::command::{Applied, Command, Outcome, Proposal, ProposalId};
use crate::failpoint::failpoint;
use crate::kv::{Event, EventKind, KvError, LeaseId, MemberId, Origin, Revision, Txn};
use crate::membership::{MemberChange, Refusal};

mod leases;

pub use leases::{attached, lease_exists, leases};

/// A committed log entry; `data` is empty for a leader's first entry, and for one that leaves a joint
/// membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// The term it was appended in.
    pub term: u64,
    /// An encoded [`Proposal`].
    pub data: Bytes,
    /// Raft takes it for a change of voters or learners.
    pub conf_change: bool,
}

/// What happened to a lease; the leader's timers follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Granted or kept alive: its time starts again.
    Armed(LeaseId, LeaseRecord),
    /// Gone.
    Ended(LeaseId),
}

/// What applying entries leads to.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be written at once, together.
    pub batch: Batch,
    /// The result of each proposal that was applied now.
    pub results: Vec<(ProposalId, Applied)>,
    /// All events, in revision order.
    pub events: Vec<RevisionEvents>,
    /// Lease changes, in order.
    pub leases: Vec<LeaseChange>,
    /// What Raft must be told of changed voters and learners, in order.
    pub conf_changes: Vec<ConfChangeV2>,
    /// The membership is another than before.
    pub members_changed: bool,
}

/// Why entries can't be applied; always fatal for the member.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The state can't be read.
    #[error("reading the state to apply entries")]
    Disk(#[from] DiskError),
    /// The entry is damaged or from a newer program.
    #[error("log entry {index} can't be understood")]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

/// Applies `entries` to `state` over `view`, which is the disk as of `state`.
///
/// # Errors
/// If the disk can't be read or an entry can't be understood. `state` is then worthless.
pub fn apply(state: &mut State, view: &impl ReadView, entries: &[LogEntry]) -> Result<Effects, ApplyError> {
    let mut effects = Effects::default();
    let mut overlay = Overlay::new(view);
    let mut sessions = BTreeSet::new();
    for entry in entries {
        failpoint!("apply_before_entry");
        assert_eq!(entry.index, state.head.index + 1, "entries are applied without a gap");
        (state.head.index, state.head.term) = (entry.index, entry.term);
        if entry.data.is_empty() {
            if entry.conf_change {
                Application { state, overlay: &mut overlay, effects: &mut effects }.leave_joint();
            }
            continue;
        }
        let proposal = Proposal::decode(entry.data.clone())
            .map_err(|source| ApplyError::Entry { index: entry.index, source })?;
        sessions.insert(proposal.id.member);
        if state.sessions.entry(proposal.id.member).or_default().admit(proposal.id, proposal.floor) {
            let id = proposal.id;
            let mut one = Application { state, overlay: &mut overlay, effects: &mut effects };
            let result = one.command(entry, proposal)?;
            failpoint!("apply_after_entry");
            effects.results.push((id, result));
        }
    }
    state.store(&sessions, &mut overlay.batch);
    effects.batch = overlay.batch;
    Ok(effects)
}

/// Applying one entry.
struct Application<'a, 'b, V> {
    state: &'a mut State,
    overlay: &'a mut Overlay<'b, V>,
    effects: &'a mut Effects,
}

impl<V: ReadView> Application<'_, '_, V> {
    fn command(&mut self, entry: &LogEntry, proposal: Proposal) -> Result<Applied, DiskError> {
        let wall_ms = proposal.wall_ms;
        if let Some(refusal) = self.state.no_space().filter(|_| proposal.command.grows()) {
            return Ok(Err(refusal));
        }
        match proposal.command {
            Command::Txn(txn) => self.txn(&txn, wall_ms),
            Command::Compact(revision) => Ok(self.compact(revision)),
            Command::LeaseGrant { id, ttl_seconds } => self.grant(id, ttl_seconds),
            Command::LeaseKeepAlive(id) => self.keep_alive(id),
            Command::LeaseRevoke(id) => self.end_lease(id, wall_ms, "lease-revoke"),
            Command::Member(change) => Ok(self.change_members(&change, entry.conf_change)),
            Command::LeaseExpire { term: proposed, leases } => {
                // A timer of a deposed leader has no say.
                if proposed == entry.term || bug!(OldLeadersExpiryApplied) {
                    self.expire(&leases, wall_ms)?;
                }
                Ok(Ok(Outcome::Done))
            }
            Command::LeaseCheckpoint { term: proposed, leases } => {
                if proposed == entry.term {
                    self.checkpoint(&leases)?;
                }
                Ok(Ok(Outcome::Done))
            }
            Command::AlarmRaise(alarm) => Ok(Ok(self.raise(alarm))),
            Command::AlarmDisarm { kind, member } => Ok(Ok(self.disarm(kind, member))),
            Command::Check(check) => {
                failpoint!("apply_before_check");
                let head = &self.state.head;
                self.state.checks.apply(proposal.id.member, check, head.index, head.fingerprint());
                self.state.store_checks(&mut self.overlay.batch);
                Ok(Ok(Outcome::Done))
            }
        }
    }

    fn raise(&mut self, alarm: Alarm) -> Outcome {
        failpoint!("apply_before_alarm");
        if self.state.membership.get(alarm.member).is_none() {
            // Nobody could ever withdraw the alarm of a member that is gone.
            return Outcome::Done;
        }
        if alarm.kind == AlarmKind::Corrupt {
            self.state.checks.settle();
            self.state.store_checks(&mut self.overlay.batch);
        }
        // Who raised it first has said when it began.
        self.state.alarms.entry((alarm.kind, alarm.member)).or_insert(alarm.detail);
        self.state.store_alarms(&mut self.overlay.batch);
        Outcome::Done
    }

    fn disarm(&mut self, kind: AlarmKind, member: MemberId) -> Outcome {
        self.state.alarms.remove(&(kind, member));
        self.state.store_alarms(&mut self.overlay.batch);
        Outcome::Done
    }

    /// Only an entry that Raft counts as a change may change voters: the leader's guard against two changes
    /// at once looks at nothing else.
    fn change_members(&mut self, change: &MemberChange, is_conf_change: bool) -> Applied {
        let conf_change = change.conf_change();
        if conf_change.is_some() && !is_conf_change {
            return Ok(Outcome::Member(Err(Refusal::Pending)));
        }
        let result = self.state.membership.apply(change);
        if result.is_ok() {
            self.effects.conf_changes.extend(conf_change);
            self.store_members();
            if let Some(gone) = change.removes() {
                self.state.alarms.retain(|(_, member), _| *member != gone);
                self.state.store_alarms(&mut self.overlay.batch);
            }
        }
        Ok(Outcome::Member(result))
    }

    fn leave_joint(&mut self) {
        if self.state.membership.leave_joint() {
            self.effects.conf_changes.push(ConfChangeV2::new());
            self.store_members();
        }
    }

    fn store_members(&mut self) {
        self.state.head.fold(&self.state.membership.encode());
        self.state.membership.store(&mut self.overlay.batch);
        self.effects.members_changed = true;
    }

    fn txn(&mut self, txn: &Txn, wall_ms: u64) -> Result<Applied, DiskError> {
        failpoint!("apply_before_txn");
        let path = match txn::decide(&*self.overlay, &self.state.head, txn)? {
            Ok(path) => path,
            Err(error) => return Ok(Err(error)),
        };
        let mut writer = Writer::new(self.overlay, self.state.head.revision);
        let response = writer.perform(path)?;
        let events = writer.events;
        self.finish_revision(events, wall_ms, txn.origin.clone());
        failpoint!("apply_after_txn");
        Ok(Ok(Outcome::Txn(response)))
    }

    /// Gives the events, if any, the next revision.
    fn finish_revision(&mut self, events: Vec<Event>, wall_ms: u64, origin: Origin) {
        if events.is_empty() {
            return;
        }
        let head = &mut self.state.head;
        head.revision = Revision(head.revision.0 + 1);
        let time = head.tick(wall_ms);
        for event in &events {
            let hash = digest::pair(&event.kv);
            head.fold(&[u8::from(event.kind == EventKind::Put)]);
            head.fold(&hash.to_be_bytes());
            if let Some(prev) = &event.prev {
                head.live = head.live.wrapping_sub(digest::pair(prev));
            }
            if event.kind == EventKind::Put {
                head.live = head.live.wrapping_add(hash);
            }
        }
        let record = JournalRecord { time, origin };
        self.overlay.batch.put(Family::Journal, family::journal_key(head.revision), record.encode());
        self.effects.events.push((head.revision, Arc::from(events)));
    }

    fn compact(&mut self, revision: Revision) -> Applied {
        failpoint!("apply_before_compact");
        let head = &mut self.state.head;
        if revision > head.revision {
            return Err(KvError::FutureRevision { requested: revision, current: head.revision });
        }
        // There is nothing below the first revision, so that much is always forgotten; etcd agrees, once.
        if revision <= head.compacted && head.compacted > Revision::default() {
            return Err(KvError::Compacted { requested: revision, compacted: head.compacted });
        }
        head.compacted = revision;
        head.fold(&revision.0.to_be_bytes());
        Ok(Outcome::Done)
    }
}

/// The revision to compact to so that history older than `keep_ms` goes, if there is any.
///
/// # Errors
/// If the disk can't be read.
pub fn retention_mark(
    view: &impl ReadView,
    state: &State,
    wall_ms: u64,
    keep_ms: u64,
) -> Result<Option<Revision>, DiskError> {
    let mark = read::revision_at(view, &state.head, wall_ms.saturating_sub(keep_ms))?;
    Ok((mark > state.head.compacted).then_some(mark))
}
