//! Commands in the bytes of a log entry.

use super::{Checkpoint, Command, LeaseTurn};
use crate::alarm::{Alarm, AlarmKind};
use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::{
    Compare, CompareOp, Consistency, KeyRange, LeaseId, MemberId, Op, Origin, RangeRequest, Revision, Target,
    Txn,
};
use crate::membership::MemberChange;
use crate::mvcc::corruption::Check;
use crate::validate::MAX_TXN_DEPTH;

pub(super) fn encode_command(out: &mut Writer, command: &Command) {
    match command {
        Command::Txn(txn) => encode_txn(out.u8(1), txn),
        Command::Compact(revision) => drop(out.u8(2).u64(revision.0)),
        Command::LeaseGrant { id, ttl_seconds } => {
            encode_option(out.u8(7).u64(*ttl_seconds), id.map(|id| id.0));
        }
        Command::LeaseKeepAlive(id) => drop(out.u8(4).u64(id.0)),
        Command::LeaseRevoke(id) => drop(out.u8(5).u64(id.0)),
        Command::LeaseExpire { term, leases } => {
            encode_len(out.u8(8).u64(*term), leases.len());
            leases.iter().for_each(|lease| encode_turn(out, *lease));
        }
        Command::LeaseCheckpoint { term, leases } => {
            encode_len(out.u8(9).u64(*term), leases.len());
            for checkpoint in leases {
                encode_turn(out, checkpoint.lease);
                out.u64(checkpoint.remaining_seconds);
            }
        }
        Command::AlarmRaise(alarm) => alarm.write(out.u8(20)),
        Command::AlarmDisarm { kind, member } => drop(out.u8(21).u8(kind.tag()).u64(member.0)),
        Command::Check(check) => {
            out.u8(22).u64(check.at).u64(check.digest).u8(u8::from(check.opens));
        }
        Command::Member(change) => change.encode(out.u8(10)),
    }
}

pub(super) fn decode_command(input: &mut Reader) -> Result<Command, DecodeError> {
    Ok(match input.u8("command")? {
        1 => Command::Txn(decode_txn(input, 1)?),
        2 => Command::Compact(Revision(input.u64("revision")?)),
        // Of programs that couldn't choose an id.
        3 => Command::LeaseGrant { id: None, ttl_seconds: input.u64("ttl")? },
        4 => Command::LeaseKeepAlive(LeaseId(input.u64("lease")?)),
        5 => Command::LeaseRevoke(LeaseId(input.u64("lease")?)),
        // Of programs that ended leases one by one.
        6 => {
            let id = LeaseId(input.u64("lease")?);
            let (term, generation) = (input.u64("term")?, input.u64("generation")?);
            Command::LeaseExpire { term, leases: vec![LeaseTurn { id, generation }] }
        }
        7 => {
            let ttl_seconds = input.u64("ttl")?;
            Command::LeaseGrant { id: decode_option(input, "lease")?.map(LeaseId), ttl_seconds }
        }
        8 => Command::LeaseExpire { term: input.u64("term")?, leases: decode_list(input, decode_turn)? },
        9 => Command::LeaseCheckpoint {
            term: input.u64("term")?,
            leases: decode_list(input, |input| {
                let lease = decode_turn(input)?;
                Ok(Checkpoint { lease, remaining_seconds: input.u64("remaining")? })
            })?,
        },
        20 => Command::AlarmRaise(Alarm::read(input)?),
        21 => Command::AlarmDisarm {
            kind: AlarmKind::from_tag(input.u8("alarm kind")?)?,
            member: MemberId(input.u64("member")?),
        },
        22 => Command::Check(Check {
            at: input.u64("checkpoint")?,
            digest: input.u64("digest")?,
            opens: input.u8("opens")? != 0,
        }),
        10 => Command::Member(MemberChange::decode(input)?),
        tag => return Err(DecodeError::Unknown { what: "command", tag: tag.into() }),
    })
}

fn encode_turn(out: &mut Writer, lease: LeaseTurn) {
    out.u64(lease.id.0).u64(lease.generation);
}

fn decode_turn(input: &mut Reader) -> Result<LeaseTurn, DecodeError> {
    Ok(LeaseTurn { id: LeaseId(input.u64("lease")?), generation: input.u64("generation")? })
}

fn encode_txn(out: &mut Writer, txn: &Txn) {
    let Origin { user, agent, verb, cause } = &txn.origin;
    out.bytes(user.as_bytes()).bytes(agent.as_bytes()).bytes(verb.as_bytes());
    encode_option(out, cause.map(|revision| revision.0));
    encode_len(out, txn.compare.len());
    txn.compare.iter().for_each(|compare| encode_compare(out, compare));
    for branch in [&txn.success, &txn.failure] {
        encode_len(out, branch.len());
        branch.iter().for_each(|op| encode_op(out, op));
    }
}

fn decode_txn(input: &mut Reader, depth: usize) -> Result<Txn, DecodeError> {
    if depth > MAX_TXN_DEPTH {
        return Err(DecodeError::Unknown { what: "transaction depth", tag: depth as u64 });
    }
    let (user, agent, verb) = (input.text("user")?, input.text("agent")?, input.text("verb")?);
    let cause = decode_option(input, "cause")?.map(Revision);
    Ok(Txn {
        origin: Origin { user, agent, verb, cause },
        compare: decode_list(input, decode_compare)?,
        success: decode_list(input, |input| decode_op(input, depth))?,
        failure: decode_list(input, |input| decode_op(input, depth))?,
    })
}

fn encode_compare(out: &mut Writer, compare: &Compare) {
    encode_range(out, &compare.range);
    out.u8(match compare.op {
        CompareOp::Equal => 1,
        CompareOp::NotEqual => 2,
        CompareOp::Greater => 3,
        CompareOp::Less => 4,
    });
    match &compare.target {
        Target::ModRevision(revision) => drop(out.u8(1).u64(revision.0)),
        Target::CreateRevision(revision) => drop(out.u8(2).u64(revision.0)),
        Target::Version(version) => drop(out.u8(3).u64(*version)),
        Target::Value(value) => drop(out.u8(4).bytes(value)),
        Target::Lease(lease) => encode_option(out.u8(5), lease.map(|id| id.0)),
    }
}

fn decode_compare(input: &mut Reader) -> Result<Compare, DecodeError> {
    let range = decode_range(input)?;
    let op = match input.u8("compare operator")? {
        1 => CompareOp::Equal,
        2 => CompareOp::NotEqual,
        3 => CompareOp::Greater,
        4 => CompareOp::Less,
        tag => return Err(DecodeError::Unknown { what: "compare operator", tag: tag.into() }),
    };
    let target = match input.u8("compare target")? {
        1 => Target::ModRevision(Revision(input.u64("revision")?)),
        2 => Target::CreateRevision(Revision(input.u64("revision")?)),
        3 => Target::Version(input.u64("version")?),
        4 => Target::Value(input.bytes("value")?),
        5 => Target::Lease(decode_option(input, "lease")?.map(LeaseId)),
        tag => return Err(DecodeError::Unknown { what: "compare target", tag: tag.into() }),
    };
    Ok(Compare { range, op, target })
}

fn encode_op(out: &mut Writer, op: &Op) {
    match op {
        Op::Range(request) => encode_read(out.u8(6), request),
        Op::Put { key, value, lease } => {
            encode_option(out.u8(2).bytes(key).bytes(value), lease.map(|id| id.0));
        }
        Op::Delete(range) => encode_range(out.u8(3), range),
        Op::Txn(txn) => encode_txn(out.u8(4), txn),
        Op::Amend { key, value, lease } => {
            out.u8(5).bytes(key);
            match value {
                Some(value) => drop(out.u8(1).bytes(value)),
                None => drop(out.u8(0)),
            }
            match lease {
                Some(lease) => encode_option(out.u8(1), lease.map(|id| id.0)),
                None => drop(out.u8(0)),
            }
        }
    }
}

pub(super) fn decode_op(input: &mut Reader, depth: usize) -> Result<Op, DecodeError> {
    Ok(match input.u8("operation")? {
        1 => Op::Range(decode_read_v1(input)?),
        2 => Op::Put {
            key: input.bytes("key")?,
            value: input.bytes("value")?,
            lease: decode_option(input, "lease")?.map(LeaseId),
        },
        3 => Op::Delete(decode_range(input)?),
        4 => Op::Txn(Box::new(decode_txn(input, depth + 1)?)),
        5 => Op::Amend {
            key: input.bytes("key")?,
            value: if input.u8("value")? == 0 { None } else { Some(input.bytes("value")?) },
            lease: match input.u8("lease")? {
                0 => None,
                _ => Some(decode_option(input, "lease")?.map(LeaseId)),
            },
        },
        6 => Op::Range(decode_read(input)?),
        tag => return Err(DecodeError::Unknown { what: "operation", tag: tag.into() }),
    })
}

const KEYS_ONLY: u8 = 1;
const COUNT_ONLY: u8 = 2;
const COUNT: u8 = 4;

fn encode_read(out: &mut Writer, request: &RangeRequest) {
    encode_range(out, &request.range);
    encode_option(out, request.revision.map(|revision| revision.0));
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = flag(request.keys_only, KEYS_ONLY)
        | flag(request.count_only, COUNT_ONLY)
        | flag(request.count, COUNT);
    out.u64(request.limit as u64).u8(flags);
}

fn decode_read(input: &mut Reader) -> Result<RangeRequest, DecodeError> {
    let range = decode_range(input)?;
    let revision = decode_option(input, "revision")?.map(Revision);
    let limit = usize::try_from(input.u64("limit")?).unwrap_or(usize::MAX);
    let flags = input.u8("range flags")?;
    if flags & !(KEYS_ONLY | COUNT_ONLY | COUNT) != 0 {
        return Err(DecodeError::Unknown { what: "range flags", tag: flags.into() });
    }
    Ok(RangeRequest {
        range,
        revision,
        limit,
        keys_only: flags & KEYS_ONLY != 0,
        count_only: flags & COUNT_ONLY != 0,
        count: flags & COUNT != 0,
        consistency: Consistency::Serializable,
    })
}

/// Of programs that always counted.
fn decode_read_v1(input: &mut Reader) -> Result<RangeRequest, DecodeError> {
    Ok(RangeRequest {
        range: decode_range(input)?,
        revision: decode_option(input, "revision")?.map(Revision),
        limit: usize::try_from(input.u64("limit")?).unwrap_or(usize::MAX),
        keys_only: input.u8("keys only")? != 0,
        count_only: input.u8("count only")? != 0,
        count: true,
        consistency: Consistency::Serializable,
    })
}

pub(super) fn encode_range(out: &mut Writer, range: &KeyRange) {
    out.bytes(&range.start);
    match &range.end {
        Some(end) => drop(out.u8(1).bytes(end)),
        None => drop(out.u8(0)),
    }
}

fn decode_range(input: &mut Reader) -> Result<KeyRange, DecodeError> {
    let start = input.bytes("range start")?;
    let end = if input.u8("range end")? == 0 { None } else { Some(input.bytes("range end")?) };
    Ok(KeyRange { start, end })
}

fn encode_option(out: &mut Writer, value: Option<u64>) {
    match value {
        Some(value) => drop(out.u8(1).u64(value)),
        None => drop(out.u8(0)),
    }
}

fn decode_option(input: &mut Reader, what: &'static str) -> Result<Option<u64>, DecodeError> {
    if input.u8(what)? == 0 { Ok(None) } else { input.u64(what).map(Some) }
}

fn encode_len(out: &mut Writer, len: usize) {
    out.u32(u32::try_from(len).expect("requests and ticks have bounded numbers of steps"));
}

fn decode_list<T>(
    input: &mut Reader,
    mut decode: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let len = input.u32("list length")? as usize;
    // Not allocated up front: the length may be nonsense, but each item takes input.
    (0..len).map(|_| decode(input)).collect()
}
