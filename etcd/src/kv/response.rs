//! The store's answers as etcd's.

use store::kv::{Event, EventKind, KeyValue, OpResponse, TxnResponse};

use super::range::RangePlan;
use crate::grpc::{Code, Status};
use crate::member::wire;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{self as pb, RequestOp, ResponseHeader, ResponseOp};
use crate::proto::mvccpb;

/// A pair.
pub fn pair(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: wire(kv.create_revision),
        mod_revision: wire(kv.mod_revision),
        version: kv.version.cast_signed(),
        value: kv.value,
        lease: kv.lease.map_or(0, |lease| lease.0.cast_signed()),
    }
}

/// An event of a watch.
pub fn event(event: &Event, prev_kv: bool) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let prev = event.prev.as_ref().filter(|_| prev_kv);
    mvccpb::Event { r#type: kind as i32, kv: Some(pair(event.kv.clone())), prev_kv: prev.cloned().map(pair) }
}

/// The answer to a put.
pub fn put(prev: Option<KeyValue>, prev_kv: bool, header: Option<ResponseHeader>) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: prev.filter(|_| prev_kv).map(pair) }
}

/// The answer to a deletion.
pub fn delete(prev: Vec<KeyValue>, prev_kv: bool, header: Option<ResponseHeader>) -> pb::DeleteRangeResponse {
    let deleted = i64::try_from(prev.len()).expect("fewer than 2^63 keys fit anywhere");
    let prev_kvs = if prev_kv { prev.into_iter().map(pair).collect() } else { Vec::new() };
    pb::DeleteRangeResponse { header, deleted, prev_kvs }
}

/// The answer to a transaction, without a header.
///
/// # Errors
/// If the answer doesn't fit the request, which is a bug.
pub fn txn(request: &pb::TxnRequest, response: TxnResponse) -> Result<pb::TxnResponse, Status> {
    let ops = if response.succeeded { &request.success } else { &request.failure };
    // Steps have only a revision in their headers.
    let header = ResponseHeader { revision: wire(response.revision), ..Default::default() };
    let steps = ops.iter().zip(response.responses).map(|(op, response)| step(op, response, &header));
    Ok(pb::TxnResponse {
        header: None,
        succeeded: response.succeeded,
        responses: steps.collect::<Result<_, _>>()?,
    })
}

fn step(op: &RequestOp, response: OpResponse, header: &ResponseHeader) -> Result<ResponseOp, Status> {
    let response = match (&op.request, response) {
        (Some(Request::RequestRange(request)), OpResponse::Range(response)) => {
            let mut response = RangePlan::new(request).finish(response);
            response.header = Some(*header);
            Response::ResponseRange(response)
        }
        (Some(Request::RequestPut(request)), OpResponse::Put(prev)) => {
            Response::ResponsePut(put(prev, request.prev_kv, Some(*header)))
        }
        (Some(Request::RequestDeleteRange(request)), OpResponse::Delete(prev)) => {
            Response::ResponseDeleteRange(delete(prev, request.prev_kv, Some(*header)))
        }
        (Some(Request::RequestTxn(request)), OpResponse::Txn(response)) => {
            let mut response = txn(request, response)?;
            response.header = Some(ResponseHeader::default());
            Response::ResponseTxn(response)
        }
        (_, other) => {
            tracing::error!(?other, "the store answered another step than asked");
            return Err(Status::new(Code::Internal, "the store answered another step than asked"));
        }
    };
    Ok(ResponseOp { response: Some(response) })
}
