//! The KV service: Range, Put, DeleteRange, Txn, Compact.
//!
//! A request becomes a [`store::kv`] value ([`range`], [`txn`]), the store's answer becomes etcd's
//! ([`response`]); what the store has no notion of (sorting, filters by revision) happens in between, on
//! values. A put or delete is a transaction of one step.

mod check;
mod range;
mod response;
mod txn;

use store::kv::{Kv, OpResponse, Revision};

use crate::error;
use crate::grpc::{Call, Metadata, Status};
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::service;

pub use range::{RangePlan, key_range};
pub use response::{event, pair};

/// Methods that answer soon and are called most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read a range.
    Range,
    /// Write a key.
    Put,
    /// Delete a range.
    DeleteRange,
    /// Compare and write.
    Txn,
}

impl Method {
    /// The method of a path.
    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/etcdserverpb.KV/")? {
            "Range" => Some(Self::Range),
            "Put" => Some(Self::Put),
            "DeleteRange" => Some(Self::DeleteRange),
            "Txn" => Some(Self::Txn),
            _ => None,
        }
    }
}

/// Answers a short call.
pub async fn answer(member: &Member, method: Method, call: Call) {
    let metadata = call.metadata.clone();
    if let Err(status) = member.check_leader(&metadata) {
        return call.refuse(&status).await;
    }
    match method {
        Method::Range => call.unary(|request| range_call(member, request)).await,
        Method::Put => call.unary(|request| put(member, &metadata, request)).await,
        Method::DeleteRange => call.unary(|request| delete(member, &metadata, request)).await,
        Method::Txn => call.unary(|request| transact(member, &metadata, request)).await,
    }
}

/// Answers the rest of the service.
pub async fn answer_long(member: &Member, method: &str, call: Call) {
    match method {
        "Compact" => call.unary(|request| compact(member, request)).await,
        _ => service::unknown(call).await,
    }
}

async fn range_call(member: &Member, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
    check::range(&request)?;
    let plan = RangePlan::new(&request);
    let response = member.store.range(plan.request.clone()).await.map_err(error::status)?;
    let revision = response.revision;
    let mut response = plan.finish(response);
    response.header = Some(member.header(revision));
    Ok(response)
}

async fn put(
    member: &Member,
    metadata: &Metadata,
    request: pb::PutRequest,
) -> Result<pb::PutResponse, Status> {
    check::put(&request)?;
    check_size(member, &request)?;
    let prev_kv = request.prev_kv;
    let (revision, response) = single(member, metadata, "put", txn::put(request)).await?;
    let OpResponse::Put(prev) = response else { unreachable!("a put is answered by a put") };
    Ok(response::put(prev, prev_kv, Some(member.header(revision))))
}

async fn delete(
    member: &Member,
    metadata: &Metadata,
    request: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Status> {
    check::delete(&request)?;
    check_size(member, &request)?;
    let op = store::kv::Op::Delete(key_range(&request.key, &request.range_end));
    let (revision, response) = single(member, metadata, "delete", op).await?;
    let OpResponse::Delete(prev) = response else { unreachable!("a delete is answered by a delete") };
    Ok(response::delete(prev, request.prev_kv, Some(member.header(revision))))
}

/// A transaction of one step.
async fn single(
    member: &Member,
    metadata: &Metadata,
    verb: &str,
    op: store::kv::Op,
) -> Result<(Revision, OpResponse), Status> {
    let txn =
        store::kv::Txn { success: vec![op], origin: metadata.caller.origin(verb), ..Default::default() };
    let mut response = member.store.txn(txn).await.map_err(error::status)?;
    let step = response.responses.pop().expect("a transaction of one step has one answer");
    Ok((response.revision, step))
}

async fn transact(
    member: &Member,
    metadata: &Metadata,
    request: pb::TxnRequest,
) -> Result<pb::TxnResponse, Status> {
    check::txn(&request, member.limits.max_txn_ops)?;
    check_size(member, &request)?;
    let mut txn = txn::txn(&request)?;
    txn.origin = metadata.caller.origin("txn");
    let response = member.store.txn(txn).await.map_err(error::status)?;
    let revision = response.revision;
    let mut response = response::txn(&request, response)?;
    response.header = Some(member.header(revision));
    Ok(response)
}

async fn compact(member: &Member, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Status> {
    let revision = Revision(u64::try_from(request.revision).unwrap_or(0));
    member.store.compact(revision).await.map_err(error::status)?;
    Ok(pb::CompactionResponse { header: Some(member.header_now()) })
}

fn check_size(member: &Member, request: &impl prost::Message) -> Result<(), Status> {
    match request.encoded_len() > member.limits.max_request_bytes {
        true => Err(error::too_large()),
        false => Ok(()),
    }
}
