//! The Election service: the first of a [`queue`] leads, and its value is what it proclaims.

use store::kv::{EventKind, KeyValue, Kv, KvError, Revision, WatchMessage, WatchRequest};
use tokio::sync::oneshot;

use crate::error;
use crate::grpc::{Call, Messages, Metadata, Sink, Status, encode};
use crate::kv::pair;
use crate::member::{Member, wire};
use crate::proto::v3electionpb as pb;
use crate::{lock, queue, service};

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    let metadata = call.metadata.clone();
    match method {
        "Campaign" => call.patient_unary(|request, gone| campaign(member, &metadata, request, gone)).await,
        "Proclaim" => call.unary(|request| proclaim(member, &metadata, request)).await,
        "Leader" => call.unary(|request| leader(member, request)).await,
        "Observe" => observe_stream(member, call).await,
        "Resign" => call.unary(|request| resign(member, &metadata, request)).await,
        _ => service::unknown(call).await,
    }
}

async fn campaign(
    member: &Member,
    metadata: &Metadata,
    request: pb::CampaignRequest,
    gone: oneshot::Receiver<()>,
) -> Result<pb::CampaignResponse, Status> {
    let origin = metadata.caller.origin("campaign");
    let (name, value) = (request.name, request.value);
    let lease = queue::lease(member, request.lease).await.map_err(error::status)?;
    let entered = queue::enter(member, &name, lease, value.clone(), origin.clone()).await;
    let place = entered.map_err(error::status)?;
    if place.value != value {
        // It campaigns again, with something else to say.
        let amended = queue::amend(member, place.key.clone(), place.created, value, origin.clone()).await;
        amended.map_err(error::status)?.ok_or_else(error::not_election_leader)?;
    }
    tokio::select! {
        turn = queue::wait_turn(member, &name, &place) => turn.map_err(error::status)?,
        _gone = gone => {
            let left = queue::leave(member, place.key, Some(place.created), origin).await;
            tracing::debug!(?left, "a client gave up a campaign");
            return Err(error::cancelled());
        }
    }
    lock::still_held(member, &place).await?;
    let (rev, lease) = (wire(place.created), place.lease.0.cast_signed());
    let leader = Some(pb::LeaderKey { name, key: place.key, rev, lease });
    Ok(pb::CampaignResponse { header: Some(member.header_now()), leader })
}

async fn proclaim(
    member: &Member,
    metadata: &Metadata,
    request: pb::ProclaimRequest,
) -> Result<pb::ProclaimResponse, Status> {
    let leader = request.leader.ok_or_else(error::missing_leader_key)?;
    let origin = metadata.caller.origin("proclaim");
    let amended = queue::amend(member, leader.key, revision(leader.rev), request.value, origin).await;
    let revision = amended.map_err(error::status)?.ok_or_else(error::not_election_leader)?;
    Ok(pb::ProclaimResponse { header: Some(member.header(revision)) })
}

async fn leader(member: &Member, request: pb::LeaderRequest) -> Result<pb::LeaderResponse, Status> {
    let (first, revision) = queue::first(member, &request.name).await.map_err(error::status)?;
    let kv = first.ok_or_else(error::no_election_leader)?;
    Ok(pb::LeaderResponse { header: Some(member.header(revision)), kv: Some(pair(kv)) })
}

async fn resign(
    member: &Member,
    metadata: &Metadata,
    request: pb::ResignRequest,
) -> Result<pb::ResignResponse, Status> {
    let leader = request.leader.ok_or_else(error::missing_leader_key)?;
    let origin = metadata.caller.origin("resign");
    // Resigning what one doesn't hold any more is no error, as in etcd.
    let left = queue::leave(member, leader.key, Some(revision(leader.rev)), origin).await;
    let (revision, _led) = left.map_err(error::status)?;
    Ok(pb::ResignResponse { header: Some(member.header(revision)) })
}

/// Says who leads, and everything that a leader proclaims, until the client goes away.
async fn observe_stream(member: &Member, call: Call) {
    let Ok((mut requests, mut sink)) = call.stream() else { return };
    let result = tokio::select! {
        result = observe(member, &mut requests, &mut sink) => result,
        () = member.stopped() => Err(error::status(KvError::Closed)),
    };
    sink.finish(result);
}

async fn observe(member: &Member, requests: &mut Messages, sink: &mut Sink) -> Result<(), Status> {
    let name = requests.only::<pb::LeaderRequest>().await?.name;
    loop {
        let (leader, revision) = queue::first(member, &name).await.map_err(error::status)?;
        if let Some(leader) = &leader {
            send_leader(member, sink, leader.clone(), revision).await?;
        }
        follow(member, &name, leader, revision, sink).await?;
    }
}

/// Tells what the leader proclaims after `revision`; returns when there may be another leader.
async fn follow(
    member: &Member,
    name: &[u8],
    leader: Option<KeyValue>,
    revision: Revision,
    sink: &mut Sink,
) -> Result<(), Status> {
    let request = WatchRequest { range: queue::keys(name), start: Some(Revision(revision.0 + 1)) };
    let mut watch = match member.store.watch(request).await {
        Err(KvError::Compacted { .. }) => return Ok(()),
        watch => watch.map_err(error::status)?,
    };
    loop {
        let message = tokio::select! {
            message = watch.recv() => message,
            () = sink.gone() => return Err(error::cancelled()),
        };
        let (revision, events) = match message {
            Some(WatchMessage::Events { revision, events }) => (revision, events),
            Some(WatchMessage::Progress(_)) => continue,
            Some(WatchMessage::Compacted(_)) => return Ok(()),
            None => return Err(error::status(KvError::Closed)),
        };
        let Some(leader) = &leader else { return Ok(()) };
        for event in events.iter().filter(|event| event.kv.key == leader.key) {
            match event.kind {
                EventKind::Put => send_leader(member, sink, event.kv.clone(), revision).await?,
                EventKind::Delete => return Ok(()),
            }
        }
    }
}

async fn send_leader(
    member: &Member,
    sink: &mut Sink,
    leader: KeyValue,
    revision: Revision,
) -> Result<(), Status> {
    let answer = pb::LeaderResponse { header: Some(member.header(revision)), kv: Some(pair(leader)) };
    sink.send(encode(&answer)).await
}

fn revision(wire: i64) -> Revision {
    Revision(u64::try_from(wire).unwrap_or(0))
}
