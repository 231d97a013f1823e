//! What a Raft log entry says: a [`Proposal`], that is a [`Command`] with the identity that lets it be
//! applied once however often it is sent.
//!
//! Everything that apply needs is inside the entry (times, ids, terms), so that every member computes
//! the same result. A tag this program doesn't know is an error and stops the member: an entry is
//! never skipped.

use bytes::Bytes;

use crate::alarm::{Alarm, AlarmKind};
use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::{KvError, Lease, LeaseId, MemberId, Op, Revision, Txn, TxnResponse};
use crate::membership::{MemberChange, MemberInfo, Refusal};
use crate::mvcc::corruption::Check;
mod record;

use record::{decode_command, encode_command};

/// The format of entries. What is new gets a tag of its own, and the tags of older programs stay readable;
/// this is raised only if the frame around them changes.
const ENTRY_VERSION: u8 = 1;

/// A change to the replicated state.
#[derive(Clone, Debug)]
pub enum Command {
    /// Compare and write.
    Txn(Txn),
    /// Forget history at or below the revision.
    Compact(Revision),
    /// Make a lease.
    LeaseGrant {
        /// Which id; `None` takes the next free one.
        id: Option<LeaseId>,
        /// Time to live in seconds.
        ttl_seconds: u64,
    },
    /// Restart a lease's time to live in the log: only for a lease of which a checkpoint is there, others
    /// are renewed by the leader alone.
    LeaseKeepAlive(LeaseId),
    /// End a lease because a client asked.
    LeaseRevoke(LeaseId),
    /// End leases because the leader's timers ran out, each at a revision of its own. Has no effect if the
    /// entry was not appended in `term` (the proposer was deposed), nor on a lease that was renewed in the
    /// log or granted anew since.
    LeaseExpire {
        /// The proposer's term.
        term: u64,
        /// Which.
        leases: Vec<LeaseTurn>,
    },
    /// Write down what is left of leases, for the next leader. Has no effect in the same cases.
    LeaseCheckpoint {
        /// The proposer's term.
        term: u64,
        /// Of which leases, and how much.
        leases: Vec<Checkpoint>,
    },
    /// Something is wrong with a member.
    AlarmRaise(Alarm),
    /// It is well again, or an operator says so.
    AlarmDisarm {
        /// What.
        kind: AlarmKind,
        /// With whom.
        member: MemberId,
    },
    /// Compare the members' digests.
    Check(Check),
    /// Change who belongs to the group.
    Member(MemberChange),
}

impl Command {
    /// Whether it may make the data grow: refused while a member has no space. A transaction counts by both
    /// its branches, as etcd's does.
    pub fn grows(&self) -> bool {
        match self {
            Command::Txn(txn) => txn_grows(txn),
            Command::LeaseGrant { .. } => true,
            _ => false,
        }
    }
}

fn txn_grows(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Range(_) | Op::Delete(_) => false,
        Op::Txn(nested) => txn_grows(nested),
        _ => true,
    })
}

/// A lease as a timer knew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTurn {
    /// Which lease.
    pub id: LeaseId,
    /// Which of the leases that had that id, and how often it was renewed in the log.
    pub generation: u64,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which lease.
    pub lease: LeaseTurn,
    /// At most this is left.
    pub remaining_seconds: u64,
}

/// Identifies a proposal for ever: `boot` counts the starts of the member, `seq` its proposals since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId {
    /// The member that waits for the result.
    pub member: MemberId,
    /// Its start number.
    pub boot: u64,
    /// From 1 in each boot.
    pub seq: u64,
}

/// A log entry's payload.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Whose it is.
    pub id: ProposalId,
    /// The member waits for none below this `seq` any more: copies of those are dropped.
    pub floor: u64,
    /// The proposer's wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// What to do.
    pub command: Command,
}

/// What a command returns when it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`Command::Txn`].
    Txn(TxnResponse),
    /// Of [`Command::LeaseGrant`] and [`Command::LeaseKeepAlive`].
    Lease(Lease),
    /// Of [`Command::Member`]: the member concerned, or why nothing was changed.
    Member(Result<MemberInfo, Refusal>),
    /// Of the others.
    Done,
}

/// The result of an applied command; errors are part of the deterministic outcome.
pub type Applied = Result<Outcome, KvError>;

impl Command {
    /// Enough bytes for most encoded commands, so that encoding seldom has to move what it has written.
    fn size_hint(&self) -> usize {
        let steps = match self {
            Command::Txn(txn) => txn.success.iter().chain(&txn.failure),
            _ => [].iter().chain(&[]),
        };
        let size = |op: &Op| match op {
            Op::Put { key, value, .. } => key.len() + value.len() + 32,
            _ => 128,
        };
        192 + steps.map(size).sum::<usize>()
    }
}

impl Proposal {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(self.command.size_hint());
        out.u8(ENTRY_VERSION);
        out.u64(self.id.member.0).u64(self.id.boot).u64(self.id.seq).u64(self.floor).u64(self.wall_ms);
        encode_command(&mut out, &self.command);
        out.finish()
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// If the bytes are not what [`Proposal::encode`] of this or an older program writes.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        match input.u8("entry version")? {
            ENTRY_VERSION => {}
            tag => return Err(DecodeError::Unknown { what: "entry version", tag: tag.into() }),
        }
        let id = ProposalId {
            member: MemberId(input.u64("member")?),
            boot: input.u64("boot")?,
            seq: input.u64("seq")?,
        };
        let (floor, wall_ms) = (input.u64("floor")?, input.u64("time")?);
        let command = decode_command(&mut input)?;
        input.finish()?;
        Ok(Self { id, floor, wall_ms, command })
    }
}

#[cfg(test)]
mod tests {
    use super::record::{decode_op, encode_range};
    use super::*;
    use crate::kv::{Compare, CompareOp, KeyRange, Origin, RangeRequest, Target};

    #[test]
    fn a_proposal_survives_the_round_trip_and_a_cut_one_is_an_error() {
        let nested = Txn { failure: vec![Op::Delete(KeyRange::prefix("x"))], ..Txn::default() };
        let txn = Txn {
            compare: vec![
                Compare::absent("a"),
                Compare {
                    range: KeyRange::prefix("b"),
                    op: CompareOp::NotEqual,
                    target: Target::Value("v".into()),
                },
            ],
            success: vec![
                Op::Put { key: "a".into(), value: "1".into(), lease: Some(LeaseId(7)) },
                Op::Txn(Box::new(nested)),
                Op::Amend { key: "c".into(), value: None, lease: Some(None) },
                Op::Amend { key: "d".into(), value: Some("2".into()), lease: None },
            ],
            failure: vec![
                Op::Range(RangeRequest { count: true, ..RangeRequest::new(KeyRange::key("a")) }),
                Op::Range(RangeRequest {
                    keys_only: true,
                    limit: 3,
                    ..RangeRequest::new(KeyRange::key("a"))
                }),
            ],
            origin: Origin { user: "u".into(), cause: Some(Revision(3)), ..Origin::default() },
        };
        let id = ProposalId { member: MemberId(1), boot: 2, seq: 3 };
        let proposal = Proposal { id, floor: 1, wall_ms: 5, command: Command::Txn(txn) };
        let bytes = Bytes::from(proposal.encode());
        assert_eq!(Proposal::decode(bytes.clone()).unwrap().encode(), bytes);
        for cut in 0..bytes.len() {
            assert!(Proposal::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn commands_about_leases_survive_the_round_trip() {
        let lease = LeaseTurn { id: LeaseId(7), generation: 8 };
        for command in [
            Command::LeaseGrant { id: None, ttl_seconds: 5 },
            Command::LeaseGrant { id: Some(LeaseId(7)), ttl_seconds: 5 },
            Command::LeaseKeepAlive(LeaseId(7)),
            Command::LeaseRevoke(LeaseId(7)),
            Command::LeaseExpire { term: 3, leases: vec![lease, lease] },
            Command::LeaseCheckpoint { term: 3, leases: vec![Checkpoint { lease, remaining_seconds: 9 }] },
        ] {
            let mut out = Writer::default();
            encode_command(&mut out, &command);
            let back = decode_command(&mut Reader::new(out.finish())).unwrap();
            assert_eq!(format!("{back:?}"), format!("{command:?}"));
        }
    }

    #[test]
    fn commands_of_older_programs_are_understood() {
        let mut grant = Writer::default();
        grant.u8(3).u64(5);
        let mut expire = Writer::default();
        expire.u8(6).u64(7).u64(3).u64(8);
        let mut read = Writer::default();
        encode_range(read.u8(1), &KeyRange::key("k"));
        read.u8(0).u64(2).u8(1).u8(0);
        let command = |out: Writer| decode_command(&mut Reader::new(out.finish())).unwrap();
        assert!(matches!(command(grant), Command::LeaseGrant { id: None, ttl_seconds: 5 }));
        let Command::LeaseExpire { term: 3, leases } = command(expire) else { panic!("an expiry") };
        assert_eq!(leases, [LeaseTurn { id: LeaseId(7), generation: 8 }]);
        let Op::Range(request) = decode_op(&mut Reader::new(read.finish()), 1).unwrap() else {
            panic!("a read")
        };
        assert!(request.keys_only && request.count && !request.count_only && request.limit == 2);
    }
}
