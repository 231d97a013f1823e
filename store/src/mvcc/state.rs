//! The small replicated state beside the data: how far apply is, and which proposals it has seen.
//!
//! It is written in the same batch as the data it describes, always.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::corruption::Checks;
use super::digest;
use super::family::Family;
use super::view::{Batch, DiskError, ReadView};
use crate::alarm::{Alarm, AlarmKind};
use crate::bug::bug;
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::ProposalId;
use crate::kv::{FIRST_REVISION, KvError, MemberId, Revision};
use crate::membership::Membership;

const STATE_KEY: &[u8] = b"state";
const ALARMS_KEY: &[u8] = b"alarms";
const CHECKS_KEY: &[u8] = b"checks";
/// The members of the group.
pub const MEMBERSHIP_KEY: &[u8] = b"membership";
const SESSION_PREFIX: &[u8] = b"session/";
/// How far [`super::scrub`] is; each member's own pace, so no part of the digest.
pub const SCRUBBED_KEY: &[u8] = b"scrubbed";

/// Whether a record in `meta` is about the members of one cluster and means nothing in another.
pub fn belongs_to_members(key: &[u8]) -> bool {
    key == MEMBERSHIP_KEY || key == ALARMS_KEY || key == CHECKS_KEY || key.starts_with(SESSION_PREFIX)
}

/// The Raft index at which a group begins.
pub const FOUNDED_INDEX: u64 = 1;
/// The Raft term in which a group begins.
pub const FOUNDED_TERM: u64 = 1;

/// How far apply is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last applied Raft index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The newest revision.
    pub revision: Revision,
    /// History at or below this is forgotten.
    pub compacted: Revision,
    /// The last lease id given.
    pub last_lease: u64,
    /// Hybrid logical time of the newest journal record.
    pub time: u64,
    /// Rolling digest of everything applied; equal on all members at equal index.
    pub digest: u64,
    /// The sum of the hashes of all live pairs: what the records in `latest` add up to.
    pub live: u64,
}

/// What a member proposed, as far as needed to apply each proposal once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The member's start number; proposals of earlier starts are dropped.
    pub boot: u64,
    /// Proposals below this are settled.
    pub floor: u64,
    /// Applied ones at or above the floor.
    pub applied: BTreeSet<u64>,
}

/// Head and sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How far apply is.
    pub head: Head,
    /// By proposing member.
    pub sessions: BTreeMap<MemberId, Session>,
    /// What is wrong with whom, and the details in words.
    pub alarms: BTreeMap<(AlarmKind, MemberId), String>,
    /// The last comparisons of the members' digests.
    pub checks: Checks,
    /// Who belongs to the group.
    pub membership: Membership,
}

impl Head {
    /// Reads the head of a view; the zero head if nothing was applied yet.
    ///
    /// # Errors
    /// If it can't be read or is damaged.
    pub fn load(view: &impl ReadView) -> Result<Self, DiskError> {
        match view.get(Family::Meta, STATE_KEY)? {
            Some(record) => Self::decode(record).map_err(DiskError::damaged(Family::Meta)),
            None => Ok(Self::default()),
        }
    }

    /// Folds `bytes` into the digest (FNV-1a: it finds divergence, it doesn't resist an attacker).
    pub fn fold(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The time of the next journal record: the proposer's clock, but never back.
    pub fn tick(&mut self, wall_ms: u64) -> u64 {
        self.time = (wall_ms << 16).max(self.time + 1);
        self.time
    }

    /// What members compare: the way here, and where it led.
    pub fn fingerprint(&self) -> u64 {
        digest::of(&[self.digest, self.live], &[])
    }

    /// Records it.
    pub fn store(&self, batch: &mut Batch) {
        batch.put(Family::Meta, STATE_KEY, self.encode());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64);
        out.u64(self.index).u64(self.term).u64(self.revision.0).u64(self.compacted.0);
        out.u64(self.last_lease).u64(self.time).u64(self.digest).u64(self.live);
        out.finish()
    }

    fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        Ok(Self {
            index: input.u64("index")?,
            term: input.u64("term")?,
            revision: Revision(input.u64("revision")?),
            compacted: Revision(input.u64("compacted")?),
            last_lease: input.u64("lease")?,
            time: input.u64("time")?,
            digest: input.u64("digest")?,
            live: input.u64("live digest")?,
        })
    }
}

impl Session {
    /// Whether `id` is to be applied now; if so it is remembered.
    pub fn admit(&mut self, id: ProposalId, floor: u64) -> bool {
        if id.boot < self.boot {
            return false;
        }
        if id.boot > self.boot {
            *self = Session { boot: id.boot, ..Session::default() };
        }
        if floor > self.floor {
            self.floor = floor;
            self.applied = self.applied.split_off(&floor);
        }
        id.seq >= self.floor && self.applied.insert(id.seq)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(16 + 8 * self.applied.len());
        out.u64(self.boot).u64(self.floor);
        for seq in &self.applied {
            out.u64(*seq);
        }
        out.finish()
    }

    fn decode(record: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(record);
        let mut session =
            Self { boot: input.u64("boot")?, floor: input.u64("floor")?, applied: BTreeSet::new() };
        while input.remaining() > 0 {
            session.applied.insert(input.u64("sequence")?);
        }
        Ok(session)
    }
}

impl State {
    /// Reads the state of a view.
    ///
    /// # Errors
    /// If it can't be read or is damaged.
    pub fn load(view: &impl ReadView) -> Result<Self, DiskError> {
        let mut records = Vec::new();
        let end = crate::kv::KeyRange::prefix(SESSION_PREFIX).end;
        view.scan(Family::Meta, SESSION_PREFIX, end.as_deref(), &mut |key, value| {
            records.push((key[SESSION_PREFIX.len()..].to_vec(), Bytes::copy_from_slice(value)));
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        let mut sessions = BTreeMap::new();
        for (member, record) in records {
            let damaged = DiskError::damaged(Family::Meta);
            let member = Reader::new(member).u64("member").map_err(&damaged)?;
            sessions.insert(MemberId(member), Session::decode(record).map_err(&damaged)?);
        }
        let membership = load_record(view, MEMBERSHIP_KEY, Membership::decode)?;
        let alarms = load_record(view, ALARMS_KEY, decode_alarms)?;
        let checks = load_record(view, CHECKS_KEY, Checks::decode)?;
        let mut head = Head::load(view)?;
        if bug!(RevisionResetOnCompactionCrash) && super::scrub::scrubbed(view)? < head.compacted {
            head.revision = head.compacted;
        }
        Ok(Self { head, sessions, alarms, checks, membership })
    }

    /// All alarms.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        let alarm = |(&(kind, member), detail): (&(AlarmKind, MemberId), &String)| Alarm {
            kind,
            member,
            detail: detail.clone(),
        };
        self.alarms.iter().map(alarm)
    }

    /// The first member without space, if any.
    pub fn no_space(&self) -> Option<KvError> {
        let alarm = self.alarms.iter().find(|((kind, _), _)| *kind == AlarmKind::NoSpace);
        alarm.map(|((_, member), detail)| KvError::NoSpace { member: *member, detail: detail.clone() })
    }

    /// Records the alarms.
    pub fn store_alarms(&self, batch: &mut Batch) {
        let mut out = Writer::with_capacity(64);
        self.alarms().for_each(|alarm| alarm.write(&mut out));
        batch.put(Family::Meta, ALARMS_KEY, out.finish());
    }

    /// Records the comparisons.
    pub fn store_checks(&self, batch: &mut Batch) {
        batch.put(Family::Meta, CHECKS_KEY, self.checks.encode());
    }

    /// The state in which a new group begins: one entry is taken as applied, so that a log never begins at
    /// its first entry and who joins later always gets a snapshot, with the founders in it.
    pub fn found(membership: Membership, batch: &mut Batch) -> Self {
        let revision = FIRST_REVISION;
        let head = Head { index: FOUNDED_INDEX, term: FOUNDED_TERM, revision, ..Head::default() };
        batch.put(Family::Meta, STATE_KEY, head.encode());
        membership.store(batch);
        Self { head, membership, ..Self::default() }
    }

    /// Writes the head, and the sessions of `changed`.
    pub fn store(&self, changed: &BTreeSet<MemberId>, batch: &mut Batch) {
        self.head.store(batch);
        for member in changed {
            let mut key = SESSION_PREFIX.to_vec();
            key.extend_from_slice(&member.0.to_be_bytes());
            batch.put(Family::Meta, key, self.sessions[member].encode());
        }
    }
}

fn load_record<T: Default>(
    view: &impl ReadView,
    key: &[u8],
    decode: impl Fn(Bytes) -> Result<T, DecodeError>,
) -> Result<T, DiskError> {
    let record = view.get(Family::Meta, key)?;
    record.map_or_else(|| Ok(T::default()), |r| decode(r).map_err(DiskError::damaged(Family::Meta)))
}

fn decode_alarms(record: Bytes) -> Result<BTreeMap<(AlarmKind, MemberId), String>, DecodeError> {
    let mut input = Reader::new(record);
    let mut alarms = BTreeMap::new();
    while input.remaining() > 0 {
        let alarm = Alarm::read(&mut input)?;
        alarms.insert((alarm.kind, alarm.member), alarm.detail);
    }
    Ok(alarms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_is_admitted_once() {
        let id = |boot, seq| ProposalId { member: MemberId(1), boot, seq };
        let mut session = Session::default();
        assert!(session.admit(id(1, 1), 1));
        assert!(!session.admit(id(1, 1), 1), "a copy");
        assert!(session.admit(id(1, 3), 1), "out of order");
        assert!(session.admit(id(1, 2), 1));
        assert!(session.admit(id(1, 9), 8));
        assert!(!session.admit(id(1, 5), 4), "below the floor: nobody waits for it");
        assert!(session.admit(id(2, 1), 1), "a new start counts afresh");
        assert!(!session.admit(id(1, 10), 8), "of an earlier start");
        assert_eq!(Session::decode(session.encode().into()).unwrap(), session);
    }

    #[test]
    fn time_never_goes_back() {
        let mut head = Head::default();
        let first = head.tick(1_000);
        assert!(head.tick(900) > first);
        assert_eq!(head.tick(2_000) >> 16, 2_000);
    }
}
