//! The Lock service: the first of a [`queue`] holds the lock.

use store::kv::Revision;
use tokio::sync::oneshot;

use crate::error;
use crate::grpc::{Call, Metadata, Status};
use crate::member::Member;
use crate::proto::v3lockpb as pb;
use crate::{queue, service};

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    let metadata = call.metadata.clone();
    match method {
        "Lock" => call.patient_unary(|request, gone| lock(member, &metadata, request, gone)).await,
        "Unlock" => call.unary(|request| unlock(member, &metadata, request)).await,
        _ => service::unknown(call).await,
    }
}

async fn lock(
    member: &Member,
    metadata: &Metadata,
    request: pb::LockRequest,
    gone: oneshot::Receiver<()>,
) -> Result<pb::LockResponse, Status> {
    let lease = queue::lease(member, request.lease).await.map_err(error::status)?;
    let origin = metadata.caller.origin("lock");
    let entered = queue::enter(member, &request.name, lease, bytes::Bytes::new(), origin.clone()).await;
    let place = entered.map_err(error::status)?;
    tokio::select! {
        turn = queue::wait_turn(member, &request.name, &place) => turn.map_err(error::status)?,
        _gone = gone => {
            // Nobody waits for the lock any more, so nobody may get it.
            let left = queue::leave(member, place.key, Some(place.created), origin).await;
            tracing::debug!(?left, "a client gave up waiting for a lock");
            return Err(error::cancelled());
        }
    }
    still_held(member, &place).await?;
    Ok(pb::LockResponse { header: Some(member.header_now()), key: place.key })
}

/// The lease may have ended while we waited: then the turn was given to nobody.
pub async fn still_held(member: &Member, place: &queue::Place) -> Result<(), Status> {
    use store::kv::{KeyRange, Kv, RangeRequest};
    let request = RangeRequest::new(KeyRange::key(place.key.clone()));
    let response = member.store.range(request).await.map_err(error::status)?;
    let held = response.kvs.iter().any(|kv| kv.create_revision == place.created);
    held.then_some(()).ok_or_else(error::session_expired)
}

async fn unlock(
    member: &Member,
    metadata: &Metadata,
    request: pb::UnlockRequest,
) -> Result<pb::UnlockResponse, Status> {
    if request.key.is_empty() {
        return Err(error::empty_key());
    }
    let left = queue::leave(member, request.key, None, metadata.caller.origin("unlock")).await;
    let (revision, _): (Revision, bool) = left.map_err(error::status)?;
    Ok(pb::UnlockResponse { header: Some(member.header(revision)) })
}
