//! The store's values on etcd's wire, and back.

use bytes::Bytes;
use store::kv::{
    Compare, CompareOp, Consistency, Event, EventKind, KeyRange, KeyValue, KvError, LeaseId, MemberId, Op,
    OpResponse, RangeRequest, RangeResponse, Revision, Status, Target, Txn, TxnResponse,
};

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::mvccpb;

/// A revision from the wire.
pub fn revision(wire: i64) -> Revision {
    Revision(u64::try_from(wire).unwrap_or(0))
}

/// A revision for the wire.
pub fn wire(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// The revision of an answer.
pub fn header_revision(header: Option<&pb::ResponseHeader>) -> Revision {
    revision(header.map_or(0, |header| header.revision))
}

/// A lease for the wire.
pub fn lease_id(id: LeaseId) -> i64 {
    id.0.cast_signed()
}

/// A time to live from the wire.
pub fn seconds(ttl: i64) -> u64 {
    u64::try_from(ttl).unwrap_or(0)
}

/// What a member says about itself. Voters aren't known: nobody here needs them.
pub fn status(answer: &pb::StatusResponse) -> Status {
    let header = answer.header.unwrap_or_default();
    Status {
        member: MemberId(header.member_id),
        leader: (answer.leader != 0).then_some(MemberId(answer.leader)),
        term: answer.raft_term,
        applied_index: answer.raft_applied_index.max(answer.raft_index),
        revision: revision(header.revision),
        compacted: Revision(0),
        voters: Vec::new(),
        learners: Vec::new(),
    }
}

/// A range as etcd writes it: key and end. A key can't be empty there, so the first possible key stands for
/// the beginning of the key space.
pub fn key_range(range: &KeyRange) -> (Bytes, Bytes) {
    let first = Bytes::from_static(b"\0");
    let start = if range.start.is_empty() { first.clone() } else { range.start.clone() };
    match &range.end {
        // What etcd calls "from the key on".
        None => (start, first),
        // Any end that isn't beyond the start will do, but for "\0", which would mean that there is none.
        Some(end) if *end <= start => (Bytes::from_static(b"\x01"), Bytes::from_static(b"\x01")),
        Some(end) if end.strip_suffix(&[0]) == Some(&start[..]) => (start, Bytes::new()),
        Some(end) => (start, end.clone()),
    }
}

/// A read.
pub fn range(request: &RangeRequest) -> pb::RangeRequest {
    let (key, range_end) = key_range(&request.range);
    pb::RangeRequest {
        key,
        range_end,
        limit: i64::try_from(request.limit).unwrap_or(0),
        revision: request.revision.map_or(0, wire),
        serializable: request.consistency == Consistency::Serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        ..pb::RangeRequest::default()
    }
}

/// The answer to a read.
pub fn range_response(answer: pb::RangeResponse, request: &RangeRequest, newest: Revision) -> RangeResponse {
    let counted = request.count || request.count_only || !answer.more;
    RangeResponse {
        more: answer.more,
        count: counted.then(|| u64::try_from(answer.count).unwrap_or(0)),
        kvs: answer.kvs.into_iter().map(key_value).collect(),
        revision: newest,
    }
}

/// A pair.
pub fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: revision(kv.create_revision),
        mod_revision: revision(kv.mod_revision),
        version: u64::try_from(kv.version).unwrap_or(0),
        lease: (kv.lease != 0).then(|| LeaseId(kv.lease.cast_unsigned())),
    }
}

/// An event.
pub fn event(event: mvccpb::Event) -> Event {
    let kind = match event.r#type() {
        mvccpb::event::EventType::Put => EventKind::Put,
        mvccpb::event::EventType::Delete => EventKind::Delete,
    };
    Event { kind, kv: key_value(event.kv.unwrap_or_default()), prev: event.prev_kv.map(key_value) }
}

/// A transaction; its origin has no place in etcd.
pub fn txn(txn: &Txn) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: txn.compare.iter().map(compare).collect(),
        success: txn.success.iter().map(step).collect(),
        failure: txn.failure.iter().map(step).collect(),
    }
}

fn compare(compare: &Compare) -> pb::Compare {
    let (key, range_end) = key_range(&compare.range);
    let result = match compare.op {
        CompareOp::Equal => CompareResult::Equal,
        CompareOp::NotEqual => CompareResult::NotEqual,
        CompareOp::Greater => CompareResult::Greater,
        CompareOp::Less => CompareResult::Less,
    };
    let (target, union) = match &compare.target {
        Target::ModRevision(r) => (CompareTarget::Mod, TargetUnion::ModRevision(wire(*r))),
        Target::CreateRevision(r) => (CompareTarget::Create, TargetUnion::CreateRevision(wire(*r))),
        Target::Version(v) => {
            (CompareTarget::Version, TargetUnion::Version(i64::try_from(*v).unwrap_or(i64::MAX)))
        }
        Target::Value(v) => (CompareTarget::Value, TargetUnion::Value(v.clone())),
        Target::Lease(l) => (CompareTarget::Lease, TargetUnion::Lease(l.map_or(0, lease_id))),
    };
    pb::Compare { result: result as i32, target: target as i32, key, range_end, target_union: Some(union) }
}

fn step(op: &Op) -> pb::RequestOp {
    let request = match op {
        Op::Range(request) => Request::RequestRange(range(request)),
        Op::Put { key, value, lease } => Request::RequestPut(pb::PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease: lease.map_or(0, lease_id),
            prev_kv: true,
            ..pb::PutRequest::default()
        }),
        Op::Amend { key, value, lease } => Request::RequestPut(pb::PutRequest {
            key: key.clone(),
            value: value.clone().unwrap_or_default(),
            lease: lease.flatten().map_or(0, lease_id),
            prev_kv: true,
            ignore_value: value.is_none(),
            ignore_lease: lease.is_none(),
        }),
        Op::Delete(range) => {
            let (key, range_end) = key_range(range);
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: true })
        }
        Op::Txn(nested) => Request::RequestTxn(txn(nested)),
    };
    pb::RequestOp { request: Some(request) }
}

/// The answer to a transaction.
///
/// # Errors
/// If it doesn't fit the transaction.
pub fn txn_response(answer: pb::TxnResponse, txn: &Txn) -> Result<TxnResponse, KvError> {
    let newest = header_revision(answer.header.as_ref());
    steps_of(answer, txn, newest)
}

/// The header of a nested transaction is empty: the revision is that of the outermost.
fn steps_of(answer: pb::TxnResponse, txn: &Txn, newest: Revision) -> Result<TxnResponse, KvError> {
    let ops = if answer.succeeded { &txn.success } else { &txn.failure };
    if ops.len() != answer.responses.len() {
        return Err(KvError::Invalid(format!(
            "etcd answered {} steps of {}",
            answer.responses.len(),
            ops.len()
        )));
    }
    let responses = ops.iter().zip(answer.responses).map(|(op, response)| step_of(op, response, newest));
    Ok(TxnResponse {
        succeeded: answer.succeeded,
        revision: newest,
        responses: responses.collect::<Result<_, _>>()?,
    })
}

fn step_of(op: &Op, response: pb::ResponseOp, newest: Revision) -> Result<OpResponse, KvError> {
    match (op, response.response) {
        (Op::Range(request), Some(Response::ResponseRange(answer))) => {
            let at = header_revision(answer.header.as_ref());
            let at = if at == Revision(0) { newest } else { at };
            Ok(OpResponse::Range(range_response(answer, request, at)))
        }
        (Op::Put { .. } | Op::Amend { .. }, Some(Response::ResponsePut(answer))) => {
            Ok(OpResponse::Put(answer.prev_kv.map(key_value)))
        }
        (Op::Delete(_), Some(Response::ResponseDeleteRange(answer))) => {
            Ok(OpResponse::Delete(answer.prev_kvs.into_iter().map(key_value).collect()))
        }
        (Op::Txn(nested), Some(Response::ResponseTxn(answer))) => {
            Ok(OpResponse::Txn(steps_of(answer, nested, newest)?))
        }
        (_, other) => Err(KvError::Invalid(format!("etcd answered another step than asked: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv;

    #[test]
    fn ranges_survive_the_wire() {
        let ranges = [
            KeyRange::key("k"),
            KeyRange::prefix("k"),
            KeyRange::prefix(""),
            KeyRange::between("a", "c"),
            KeyRange::between("c", "a"),
            KeyRange::between("", "\0"),
            KeyRange::between("", "b"),
            KeyRange::prefix(&b"\xff"[..]),
        ];
        for range in ranges {
            let (key, end) = key_range(&range);
            let back = kv::key_range(&key, &end);
            for probe in [&b"\0"[..], b"a", b"b", b"c", b"k", b"k\0", b"ka", b"l", b"\xff", b"\xff\xff"] {
                assert_eq!(back.contains(probe), range.contains(probe), "{range:?} {probe:?}");
            }
        }
    }
}
