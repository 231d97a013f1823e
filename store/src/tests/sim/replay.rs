//! The merged log, replayed on the model: what every answer, event and state is held against.
//!
//! It shares no code with the store's own apply but the reading of entries: sessions, leases and
//! generations are kept here a second time, in the most obvious way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::verdict::{Judge, ensure, violated};
use raft::eraftpb::EntryType;

use crate::alarm::{Alarm, AlarmKind};
use crate::command::{Applied, Command, Outcome, Proposal};
use crate::kv::{FIRST_REVISION, KvError, Lease, LeaseId, MemberId, Revision};
use crate::membership::{MemberInfo, Membership, Refusal};
use crate::model;
use crate::proof::watch::History;
use crate::raft::{changes, persist};

/// The log begins after so many entries.
const FOUNDED: usize = 1;

/// An entry that was applied, and what came of it.
pub struct Step {
    pub member: MemberId,
    pub command: Command,
    pub result: Applied,
}

/// A lease that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseEnd {
    pub id: LeaseId,
    /// Where it was granted; ids are used again.
    pub granted: u64,
    /// By the leader's timer, not by a client.
    pub expired: bool,
}

#[derive(Default)]
struct Session {
    boot: u64,
    floor: u64,
    seen: BTreeSet<u64>,
}

#[derive(Clone, Copy)]
struct Living {
    granted: u64,
    ttl_seconds: u64,
    /// Of which grant, and how often renewed in the log since.
    generation: u64,
}

pub struct Replay {
    model: model::State,
    /// Records of the committed entries, from index 1.
    log: Vec<Bytes>,
    /// What came of each; `None` if nothing was to do.
    steps: Vec<Option<Step>>,
    /// Newest revision and compaction after each entry.
    heads: Vec<(Revision, Revision)>,
    sessions: BTreeMap<MemberId, Session>,
    leases: BTreeMap<LeaseId, Living>,
    /// Where each id was granted.
    grants: BTreeMap<LeaseId, Vec<u64>>,
    /// Where each transaction stands, by the name its client gave it.
    named: BTreeMap<String, u64>,
    /// Members without space.
    full: BTreeMap<MemberId, String>,
    membership: Membership,
    /// Changes of the membership that were made.
    pub changes: u64,
}

impl Replay {
    /// A group begins with an entry that nobody proposed: its founders.
    pub fn new(founders: &[MemberInfo]) -> Self {
        Self {
            model: model::State::default(),
            log: vec![Bytes::new(); FOUNDED],
            steps: (0..FOUNDED).map(|_| None).collect(),
            heads: vec![(FIRST_REVISION, Revision(0)); FOUNDED],
            sessions: BTreeMap::new(),
            leases: BTreeMap::new(),
            grants: BTreeMap::new(),
            named: BTreeMap::new(),
            full: BTreeMap::new(),
            membership: Membership::found(founders.iter().cloned()),
            changes: 0,
        }
    }

    /// The last committed index that is known.
    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }

    pub fn history(&self) -> &History {
        &self.model.history
    }

    pub fn model(&self) -> &model::State {
        &self.model
    }

    pub fn step(&self, index: u64) -> Option<&Step> {
        self.steps.get(at(index)?)?.as_ref()
    }

    /// Newest revision and compaction after `index`.
    pub fn head(&self, index: u64) -> (Revision, Revision) {
        at(index).map_or_else(Default::default, |at| self.heads[at])
    }

    /// Where the transaction of that name was applied.
    pub fn index_of(&self, name: &str) -> Option<u64> {
        self.named.get(name).copied()
    }

    /// Whether a member has no space.
    pub fn is_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Who belongs to the group.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The leases that live.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    /// Where the lease of this id was granted, if it lives.
    pub fn living(&self, id: LeaseId) -> Option<u64> {
        self.leases.get(&id).map(|lease| lease.granted)
    }

    /// Where the lease that has this id at `index` was granted.
    pub fn grant_of(&self, id: LeaseId, index: u64) -> u64 {
        let grants = self.grants.get(&id).into_iter().flatten();
        grants.copied().filter(|granted| *granted <= index).max().unwrap_or(0)
    }

    /// A member applied `record` at `index`: all must agree, and what is new is replayed.
    pub fn applied(&mut self, index: u64, record: Bytes) -> Vec<LeaseEnd> {
        if let Some(first) = at(index).and_then(|at| self.log.get(at)) {
            ensure!(*first == record, Judge::SameLog, "members applied different entries at index {index}");
            return Vec::new();
        }
        ensure!(
            index == self.last() + 1,
            Judge::SameLog,
            "entry {index} was applied before {}",
            self.last() + 1
        );
        let entry = match persist::decode_entries(record.clone()) {
            Ok(mut entries) => entries.remove(0),
            Err(error) => violated(Judge::SameLog, format!("entry {index} can't be read: {error}")),
        };
        self.log.push(record);
        let is_change = entry.get_entry_type() != EntryType::EntryNormal;
        let data = if is_change { changes::proposal_of(&entry.data).unwrap_or_default() } else { entry.data };
        let (step, end) = match data.is_empty() {
            true if is_change => {
                self.membership.leave_joint();
                (None, vec![])
            }
            true => (None, vec![]),
            false => self.replay(index, entry.term, is_change, data),
        };
        self.steps.push(step);
        self.heads.push((self.model.revision, self.model.compacted));
        end
    }

    fn replay(
        &mut self,
        index: u64,
        term: u64,
        is_change: bool,
        data: Bytes,
    ) -> (Option<Step>, Vec<LeaseEnd>) {
        let proposal = match Proposal::decode(data) {
            Ok(proposal) => proposal,
            Err(error) => violated(Judge::SameLog, format!("entry {index} can't be understood: {error}")),
        };
        if !self.admit(&proposal) {
            return (None, vec![]);
        }
        let full = self.full.iter().next().filter(|_| proposal.command.grows());
        let (result, end) = match (full, &proposal.command) {
            (Some((member, detail)), _) => {
                (Err(KvError::NoSpace { member: *member, detail: detail.clone() }), vec![])
            }
            (None, Command::Member(change)) if change.conf_change().is_some() && !is_change => {
                (Ok(Outcome::Member(Err(Refusal::Pending))), vec![])
            }
            (None, command) => self.perform(index, term, command),
        };
        (Some(Step { member: proposal.id.member, command: proposal.command, result }), end)
    }

    /// Each proposal counts once; nothing from before the member's last known start, and nothing that
    /// it doesn't wait for any more.
    fn admit(&mut self, proposal: &Proposal) -> bool {
        let session = self.sessions.entry(proposal.id.member).or_default();
        if proposal.id.boot > session.boot {
            *session = Session { boot: proposal.id.boot, ..Session::default() };
        }
        if proposal.id.boot < session.boot {
            return false;
        }
        session.floor = session.floor.max(proposal.floor);
        proposal.id.seq >= session.floor && session.seen.insert(proposal.id.seq)
    }

    fn perform(&mut self, index: u64, term: u64, command: &Command) -> (Applied, Vec<LeaseEnd>) {
        let done = |result: Result<(), KvError>| result.map(|()| Outcome::Done);
        match command {
            Command::Txn(txn) => {
                let name = txn.origin.agent.clone();
                let first = self.named.insert(name, index);
                ensure!(first.is_none(), Judge::Replay, "{:?} is in effect twice", txn.origin.agent);
                (self.model.txn(txn).map(Outcome::Txn), vec![])
            }
            Command::Compact(revision) => (done(self.model.compact(*revision)), vec![]),
            Command::LeaseGrant { id, ttl_seconds } => (self.grant(index, *id, *ttl_seconds), vec![]),
            Command::LeaseKeepAlive(id) => (self.keep_alive(*id), vec![]),
            Command::AlarmRaise(Alarm { kind: AlarmKind::NoSpace, member, detail })
                if self.membership.get(*member).is_some() =>
            {
                self.full.entry(*member).or_insert_with(|| detail.clone());
                (Ok(Outcome::Done), vec![])
            }
            Command::AlarmDisarm { kind: AlarmKind::NoSpace, member } => {
                self.full.remove(member);
                (Ok(Outcome::Done), vec![])
            }
            Command::AlarmRaise(_) | Command::AlarmDisarm { .. } | Command::Check(_) => {
                (Ok(Outcome::Done), vec![])
            }
            Command::Member(change) => {
                let result = self.membership.apply(change);
                self.changes += u64::from(result.is_ok());
                if let Some(gone) = change.removes().filter(|_| result.is_ok()) {
                    self.full.remove(&gone);
                }
                (Ok(Outcome::Member(result)), vec![])
            }
            Command::LeaseRevoke(id) => {
                (done(self.model.revoke(*id)), self.end(*id, false).into_iter().collect())
            }
            Command::LeaseExpire { term: proposed, leases } => {
                let mut ends = Vec::new();
                for lease in leases.iter().filter(|_| *proposed == term) {
                    if self.leases.get(&lease.id).is_some_and(|living| living.generation == lease.generation)
                    {
                        let revoked = self.model.revoke(lease.id);
                        ensure!(revoked.is_ok(), Judge::Replay, "lease {} is and isn't there", lease.id);
                        ends.extend(self.end(lease.id, true));
                    }
                }
                (Ok(Outcome::Done), ends)
            }
            Command::LeaseCheckpoint { .. } => (Ok(Outcome::Done), vec![]),
        }
    }

    fn end(&mut self, id: LeaseId, expired: bool) -> Option<LeaseEnd> {
        self.leases.remove(&id).map(|lease| LeaseEnd { id, granted: lease.granted, expired })
    }

    fn grant(&mut self, index: u64, id: Option<LeaseId>, ttl_seconds: u64) -> Applied {
        let lease = self.model.grant(id, ttl_seconds)?;
        self.leases.insert(lease.id, Living { granted: index, ttl_seconds, generation: index });
        self.grants.entry(lease.id).or_default().push(index);
        Ok(Outcome::Lease(lease))
    }

    fn keep_alive(&mut self, id: LeaseId) -> Applied {
        let lease = self.leases.get_mut(&id).ok_or(KvError::LeaseNotFound(id))?;
        lease.generation += 1;
        Ok(Outcome::Lease(Lease { id, ttl_seconds: lease.ttl_seconds }))
    }
}

fn at(index: u64) -> Option<usize> {
    usize::try_from(index.checked_sub(1)?).ok()
}

/// Whether two results are the same.
pub fn same(a: &Applied, b: &Applied) -> bool {
    match (a, b) {
        (Ok(a), Ok(b)) => a == b,
        (Err(a), Err(b)) => format!("{a:?}") == format!("{b:?}"),
        _ => false,
    }
}

/// Whether two commands are the same.
pub fn same_command(a: &Command, b: &Command) -> bool {
    format!("{a:?}") == format!("{b:?}")
}
