//! The Lease service.

use store::kv::{Kv, KvError, LeaseId};

use crate::error;
use crate::grpc::{Call, Status, encode};
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::service;

/// Longest time to live in seconds, as in etcd.
const MAX_TTL: i64 = 9_000_000_000;

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    match method {
        "LeaseGrant" => call.unary(|request| grant(member, request)).await,
        "LeaseRevoke" => call.unary(|request| revoke(member, request)).await,
        "LeaseTimeToLive" => call.unary(|request| time_to_live(member, request)).await,
        "LeaseLeases" => call.unary(|request| leases(member, request)).await,
        "LeaseKeepAlive" => keep_alive_stream(member, call).await,
        _ => service::unknown(call).await,
    }
}

async fn grant(member: &Member, request: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Status> {
    if request.ttl > MAX_TTL {
        return Err(error::lease_ttl_too_large());
    }
    // etcd raises a time to live that is too short; so do we.
    let ttl = u64::try_from(request.ttl).unwrap_or(0).max(1);
    let wanted = (request.id != 0).then(|| id(request.id));
    let lease = member.store.lease_grant(wanted, ttl).await.map_err(error::status)?;
    Ok(pb::LeaseGrantResponse {
        header: Some(member.header_now()),
        id: lease.id.0.cast_signed(),
        ttl: seconds(lease.ttl_seconds),
        error: String::new(),
    })
}

async fn revoke(member: &Member, request: pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, Status> {
    member.store.lease_revoke(id(request.id)).await.map_err(error::status)?;
    Ok(pb::LeaseRevokeResponse { header: Some(member.header_now()) })
}

/// A lease that is gone has a time to live of -1, which is no error.
async fn time_to_live(
    member: &Member,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Status> {
    let (ttl, granted_ttl, keys) = match member.store.lease_info(id(request.id)).await {
        Ok(info) => {
            let keys = if request.keys { info.keys } else { Vec::new() };
            (seconds(info.remaining.as_secs()), seconds(info.granted_ttl_seconds), keys)
        }
        Err(KvError::LeaseNotFound(_)) => (-1, 0, Vec::new()),
        Err(error) => return Err(error::status(error)),
    };
    let header = Some(member.header_now());
    Ok(pb::LeaseTimeToLiveResponse { header, id: request.id, ttl, granted_ttl, keys })
}

async fn leases(
    member: &Member,
    _request: pb::LeaseLeasesRequest,
) -> Result<pb::LeaseLeasesResponse, Status> {
    let leases = member.store.leases().await.map_err(error::status)?;
    let leases = leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.0.cast_signed() });
    Ok(pb::LeaseLeasesResponse { header: Some(member.header_now()), leases: leases.collect() })
}

/// One answer for each request, in order, until the client has no more.
async fn keep_alive_stream(member: &Member, call: Call) {
    let require_leader = call.metadata.require_leader;
    let Ok((mut requests, mut answers)) = call.stream() else { return };
    let work = async {
        while let Some(request) = requests.next::<pb::LeaseKeepAliveRequest>().await? {
            let answer = keep_alive(member, request.id).await?;
            answers.send(encode(&answer)).await?;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = work => result,
        () = member.leader_lost(), if require_leader => Err(error::no_leader()),
        () = member.stopped() => Err(error::status(KvError::Closed)),
    };
    answers.finish(result);
}

/// A lease that is gone has a time to live of 0, which is no error.
async fn keep_alive(member: &Member, lease: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let ttl = match member.store.lease_keep_alive(id(lease)).await {
        Ok(lease) => seconds(lease.ttl_seconds),
        Err(KvError::LeaseNotFound(_)) => 0,
        Err(error) => return Err(error::status(error)),
    };
    Ok(pb::LeaseKeepAliveResponse { header: Some(member.header_now()), id: lease, ttl })
}

fn id(wire: i64) -> LeaseId {
    LeaseId(wire.cast_unsigned())
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
