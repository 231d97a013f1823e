//! What etcd refuses before it looks at any data, in etcd's order, so that the same request gets the same
//! error. Source: etcd 3.4, `etcdserver/api/v3rpc/key.go`.

use std::collections::HashSet;

use bytes::Bytes;
use store::kv::KeyRange;

use super::range::key_range;
use crate::error;
use crate::grpc::Status;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{self as pb, RequestOp};

/// Checks a read.
///
/// # Errors
/// As etcd.
pub fn range(request: &pb::RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(error::empty_key());
    }
    let order = pb::range_request::SortOrder::try_from(request.sort_order);
    let target = pb::range_request::SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(error::invalid_sort());
    }
    Ok(())
}

/// Checks a write.
///
/// # Errors
/// As etcd.
pub fn put(request: &pb::PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(error::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(error::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(error::lease_provided());
    }
    Ok(())
}

/// Checks a deletion.
///
/// # Errors
/// As etcd.
pub fn delete(request: &pb::DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(error::empty_key()) } else { Ok(()) }
}

/// Checks a transaction with all that is nested in it.
///
/// # Errors
/// As etcd.
pub fn txn(request: &pb::TxnRequest, max_ops: usize) -> Result<(), Status> {
    steps(request, max_ops)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn steps(request: &pb::TxnRequest, max_ops: usize) -> Result<(), Status> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > max_ops {
        return Err(error::too_many_ops());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(error::empty_key());
    }
    // A nested transaction counts against what the outer one has left.
    request.success.iter().chain(&request.failure).try_for_each(|op| step(op, max_ops - most))
}

fn step(op: &RequestOp, max_ops: usize) -> Result<(), Status> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete(request),
        Some(Request::RequestTxn(request)) => steps(request, max_ops),
        // etcd's answer to a step without a request.
        None => Err(error::key_not_found()),
    }
}

/// What a list of steps may write.
#[derive(Default)]
struct Writes {
    puts: HashSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn put(&mut self, key: &Bytes) -> Result<(), Status> {
        let deleted = self.deletes.iter().any(|range| range.contains(key));
        match deleted || !self.puts.insert(key.clone()) {
            true => Err(error::duplicate_key()),
            false => Ok(()),
        }
    }
}

/// A key may be put once, and not also be deleted, whichever branches are taken. The two branches of one
/// nested transaction may both put it, as only one of them is done.
fn writes(ops: &[RequestOp]) -> Result<Writes, Status> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            all.deletes.push(key_range(&request.key, &request.range_end));
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(request)) = &op.request {
            nested(&mut all, writes(&request.success)?, writes(&request.failure)?)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request {
            all.put(&request.key)?;
        }
    }
    Ok(all)
}

fn nested(all: &mut Writes, success: Writes, failure: Writes) -> Result<(), Status> {
    success.puts.iter().try_for_each(|key| all.put(key))?;
    let only_failure = failure.puts.iter().filter(|key| !success.puts.contains(*key));
    only_failure.cloned().collect::<Vec<_>>().iter().try_for_each(|key| all.put(key))?;
    all.deletes.extend(success.deletes.into_iter().chain(failure.deletes));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_of(key: &'static str) -> RequestOp {
        let put = pb::PutRequest { key: key.into(), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    }

    fn delete_of(key: &'static str, range_end: &'static str) -> RequestOp {
        let delete = pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
        RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
    }

    fn txn_of(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> pb::TxnRequest {
        pb::TxnRequest { compare: vec![], success, failure }
    }

    fn nested_of(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp { request: Some(Request::RequestTxn(txn_of(success, failure))) }
    }

    #[test]
    fn a_key_is_written_once() {
        let twice = Err(error::duplicate_key());
        let cases = [
            (vec![put_of("a"), put_of("b")], Ok(())),
            (vec![put_of("a"), put_of("a")], twice.clone()),
            (vec![put_of("a"), delete_of("a", "")], twice.clone()),
            (vec![delete_of("a", "c"), put_of("b")], twice.clone()),
            (vec![delete_of("a", "\0"), put_of("z")], twice.clone()),
            (vec![delete_of("b", ""), put_of("a"), put_of("c")], Ok(())),
            (vec![delete_of("a", "c"), delete_of("b", "d")], Ok(())),
            (vec![nested_of(vec![put_of("a")], vec![put_of("a")])], Ok(())),
            (vec![nested_of(vec![put_of("a")], vec![]), put_of("a")], twice.clone()),
            (vec![nested_of(vec![], vec![put_of("a")]), delete_of("a", "")], twice.clone()),
            (vec![nested_of(vec![delete_of("a", "")], vec![]), put_of("a")], twice.clone()),
            (vec![nested_of(vec![put_of("a")], vec![]), nested_of(vec![], vec![put_of("a")])], twice),
        ];
        for (ops, expected) in cases {
            assert_eq!(txn(&txn_of(ops.clone(), vec![]), 128), expected, "{ops:?}");
            assert_eq!(txn(&txn_of(vec![], ops.clone()), 128), expected, "{ops:?}");
        }
    }

    #[test]
    fn operations_are_counted_by_branch_and_depth() {
        let ops = |n: usize| (0..n).map(|_| delete_of("k", "")).collect::<Vec<_>>();
        assert_eq!(txn(&txn_of(ops(128), ops(128)), 128), Ok(()));
        assert_eq!(txn(&txn_of(ops(129), vec![]), 128), Err(error::too_many_ops()));
        let with_nested = |n| txn_of(vec![nested_of(ops(n), vec![])], vec![]);
        assert_eq!(txn(&with_nested(127), 128), Ok(()));
        assert_eq!(txn(&with_nested(128), 128), Err(error::too_many_ops()));
    }

    #[test]
    fn a_request_needs_a_key() {
        let missing = Err(error::empty_key());
        assert_eq!(txn(&txn_of(vec![put_of("")], vec![]), 128), missing);
        let nothing = RequestOp { request: None };
        assert_eq!(txn(&txn_of(vec![nothing], vec![]), 128), Err(error::key_not_found()));
        let compare = pb::Compare::default();
        assert_eq!(txn(&pb::TxnRequest { compare: vec![compare], ..Default::default() }, 128), missing);
        let kept =
            pb::PutRequest { key: "k".into(), value: "v".into(), ignore_value: true, ..Default::default() };
        assert_eq!(put(&kept), Err(error::value_provided()));
        let kept = pb::PutRequest { key: "k".into(), lease: 1, ignore_lease: true, ..Default::default() };
        assert_eq!(put(&kept), Err(error::lease_provided()));
    }
}
