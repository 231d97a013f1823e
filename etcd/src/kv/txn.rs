//! Writing as etcd does: requests as transactions of the store.

use bytes::Bytes;
use store::kv::{Compare, CompareOp, LeaseId, Op, Revision, Target, Txn};

use super::range::{RangePlan, key_range};
use crate::error;
use crate::grpc::Status;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{self as pb, RequestOp};

/// A put as a step.
pub fn put(request: pb::PutRequest) -> Op {
    let pb::PutRequest { key, value, ignore_value, ignore_lease, .. } = request;
    let lease = lease(request.lease);
    if ignore_value || ignore_lease {
        let (value, lease) = ((!ignore_value).then_some(value), (!ignore_lease).then_some(lease));
        return Op::Amend { key, value, lease };
    }
    Op::Put { key, value, lease }
}

/// A transaction that passed [`super::check::txn`].
///
/// # Errors
/// If a comparison has an operator or target that doesn't exist.
pub fn txn(request: &pb::TxnRequest) -> Result<Txn, Status> {
    let compare = request.compare.iter().filter_map(|one| compare(one).transpose());
    Ok(Txn {
        compare: compare.collect::<Result<_, _>>()?,
        success: request.success.iter().map(step).collect::<Result<_, _>>()?,
        failure: request.failure.iter().map(step).collect::<Result<_, _>>()?,
        ..Txn::default()
    })
}

fn step(op: &RequestOp) -> Result<Op, Status> {
    match &op.request {
        Some(Request::RequestRange(request)) => Ok(Op::Range(RangePlan::new(request).request)),
        Some(Request::RequestPut(request)) => Ok(put(request.clone())),
        Some(Request::RequestDeleteRange(request)) => {
            Ok(Op::Delete(key_range(&request.key, &request.range_end)))
        }
        Some(Request::RequestTxn(request)) => Ok(Op::Txn(Box::new(txn(request)?))),
        None => Err(error::key_not_found()),
    }
}

/// A lease as the wire has it: 0 is none.
pub fn lease(id: i64) -> Option<LeaseId> {
    (id != 0).then(|| LeaseId(id.cast_unsigned()))
}

/// A comparison; `None` if it always holds.
fn compare(request: &pb::Compare) -> Result<Option<Compare>, Status> {
    let unknown = |what: &str, tag: i32| {
        Status::new(crate::grpc::Code::InvalidArgument, format!("etcdserver: unknown compare {what} {tag}"))
    };
    let op = CompareResult::try_from(request.result).map_err(|_| unknown("result", request.result))?;
    let target = CompareTarget::try_from(request.target).map_err(|_| unknown("target", request.target))?;
    let range = key_range(&request.key, &request.range_end);
    let op = match op {
        CompareResult::Equal => CompareOp::Equal,
        CompareResult::NotEqual => CompareOp::NotEqual,
        CompareResult::Greater => CompareOp::Greater,
        CompareResult::Less => CompareOp::Less,
    };
    if let Some(number) = negative(request) {
        // What is compared is never negative, so the outcome is known; the store knows only numbers from 0.
        let holds = matches!(op, CompareOp::NotEqual | CompareOp::Greater);
        tracing::debug!(number, "a comparison with a negative number");
        let never = Compare { range, op: CompareOp::Less, target: Target::Version(0) };
        return Ok((!holds).then_some(never));
    }
    Ok(Some(Compare { range, op, target: target_of(target, request) }))
}

/// The number compared with, if it is negative.
fn negative(request: &pb::Compare) -> Option<i64> {
    match request.target_union {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number),
        ) if number < 0 => Some(number),
        _ => None,
    }
}

/// A union of another kind than the target counts as zero, as in etcd.
fn target_of(target: CompareTarget, request: &pb::Compare) -> Target {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let union = request.target_union.as_ref();
    match (target, union) {
        (CompareTarget::Version, Some(TargetUnion::Version(v))) => Target::Version(number(*v)),
        (CompareTarget::Version, _) => Target::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(r))) => {
            Target::CreateRevision(Revision(number(*r)))
        }
        (CompareTarget::Create, _) => Target::CreateRevision(Revision(0)),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(r))) => Target::ModRevision(Revision(number(*r))),
        (CompareTarget::Mod, _) => Target::ModRevision(Revision(0)),
        (CompareTarget::Value, Some(TargetUnion::Value(v))) => Target::Value(v.clone()),
        (CompareTarget::Value, _) => Target::Value(Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(l))) => Target::Lease(lease(*l)),
        (CompareTarget::Lease, _) => Target::Lease(None),
    }
}
