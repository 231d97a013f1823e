//! The Maintenance service: what an operator asks of this member.

use std::time::Duration;

use bytes::Bytes;
use store::kv::{Kv, MemberId, Revision};
use store::{Alarm, AlarmKind};

use crate::error;
use crate::grpc::{Call, Code, Sink, Status, encode};
use crate::member::{Member, wire};
use crate::proto::etcdserverpb as pb;
use crate::service;

/// The etcd that we claim to be: the first whose promises we all keep (progress notifications never overtake
/// events since 3.5.13), which is what clients look at the version for.
pub const VERSION: &str = "3.5.13";
/// Pieces of a backup are sent in messages of at most this size, as etcd does.
const SNAPSHOT_CHUNK: usize = 32 << 10;
/// How long leadership may take to move.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    match method {
        "Alarm" => call.unary(|request| alarm(member, request)).await,
        "Status" => call.unary(|request| status(member, request)).await,
        "Defragment" => call.unary(defragment).await,
        "Hash" => call.unary(|request| hash(member, request)).await,
        "HashKV" => call.unary(|request| hash_kv(member, request)).await,
        "Snapshot" => snapshot_stream(member, call).await,
        "MoveLeader" => call.unary(|request| move_leader(member, request)).await,
        "Downgrade" => call.refuse(&error::downgrade_unsupported()).await,
        _ => service::unknown(call).await,
    }
}

async fn status(member: &Member, _request: pb::StatusRequest) -> Result<pb::StatusResponse, Status> {
    let status = member.store.status();
    let disk = member.store.disk_use().map_err(error::status)?;
    let mut errors = alarms(member)?;
    if status.leader.is_none() {
        errors.push("etcdserver: no leader".into());
    }
    Ok(pb::StatusResponse {
        header: Some(member.header(status.revision)),
        version: VERSION.into(),
        db_size: bytes(disk.total_bytes),
        db_size_in_use: bytes(disk.in_use_bytes),
        leader: status.leader.map_or(0, |leader| leader.0),
        raft_index: status.applied_index,
        raft_applied_index: status.applied_index,
        raft_term: status.term,
        errors,
        is_learner: !status.voters.contains(&status.member),
        storage_version: "3.5.0".into(),
        ..Default::default()
    })
}

fn alarms(member: &Member) -> Result<Vec<String>, Status> {
    let alarms = member.store.alarms().map_err(error::status)?;
    let text = |alarm: Alarm| {
        let kind = alarm_type(alarm.kind).as_str_name();
        format!("memberID:{} alarm:{kind} : {}", alarm.member.0, alarm.detail)
    };
    Ok(alarms.into_iter().map(text).collect())
}

async fn alarm(member: &Member, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, Status> {
    use pb::alarm_request::AlarmAction;
    let (kind, whose) = (request.alarm(), request.member_id);
    let wanted = |alarm: &Alarm| {
        (whose == 0 || alarm.member == MemberId(whose))
            && (kind == pb::AlarmType::None || kind == alarm_type(alarm.kind))
    };
    let mut alarms = member.store.alarms().map_err(error::status)?;
    alarms.retain(wanted);
    match request.action() {
        AlarmAction::Get => {}
        AlarmAction::Activate => {
            let text = "alarms are raised by what members find, not by request";
            return Err(Status::new(Code::Unimplemented, text));
        }
        AlarmAction::Deactivate => {
            for alarm in &alarms {
                member.store.disarm(alarm.kind, alarm.member).await.map_err(error::status)?;
            }
        }
    }
    let wire =
        |alarm: Alarm| pb::AlarmMember { member_id: alarm.member.0, alarm: alarm_type(alarm.kind) as i32 };
    let header = Some(member.header_now());
    Ok(pb::AlarmResponse { header, alarms: alarms.into_iter().map(wire).collect() })
}

fn alarm_type(kind: AlarmKind) -> pb::AlarmType {
    match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
}

/// There is nothing to do: space is given back as history is compacted. No header: etcd sends none.
async fn defragment(_request: pb::DefragmentRequest) -> Result<pb::DefragmentResponse, Status> {
    tracing::info!("asked to defragment: nothing to do, compaction gives space back by itself");
    Ok(pb::DefragmentResponse { header: None })
}

/// etcd hashes its whole file here, which is of no use between members; ours is that of the history.
async fn hash(member: &Member, _request: pb::HashRequest) -> Result<pb::HashResponse, Status> {
    let hash = member.store.hash_kv(None).await.map_err(error::status)?;
    Ok(pb::HashResponse { header: Some(member.header(hash.revision)), hash: hash.hash })
}

async fn hash_kv(member: &Member, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Status> {
    let revision = u64::try_from(request.revision).ok().filter(|revision| *revision > 0);
    let hash = member.store.hash_kv(revision.map(Revision)).await.map_err(error::status)?;
    Ok(pb::HashKvResponse {
        header: Some(member.header(hash.revision)),
        hash: hash.hash,
        compact_revision: wire(hash.compacted),
        hash_revision: wire(hash.hashed),
    })
}

async fn snapshot_stream(member: &Member, call: Call) {
    let Ok((mut requests, mut sink)) = call.stream() else { return };
    let result = match requests.only::<pb::SnapshotRequest>().await {
        Ok(_request) => snapshot(member, &mut sink).await,
        Err(status) => Err(status),
    };
    sink.finish(result);
}

/// Sends a backup as fast as the client takes it. Its size isn't known before its end, so the remaining
/// bytes are an estimate: at least 1, and 0 with the last piece, by which clients know it.
async fn snapshot(member: &Member, sink: &mut Sink) -> Result<(), Status> {
    let mut remaining = member.store.disk_use().map_err(error::status)?.in_use_bytes;
    let mut backup = member.store.backup().await.map_err(error::status)?;
    let header = member.header(backup.manifest.revision);
    let piece = |blob: Bytes, remaining_bytes| {
        let version = VERSION.to_owned();
        encode(&pb::SnapshotResponse { header: Some(header), remaining_bytes, blob, version })
    };
    let mut held = Bytes::new();
    while let Some(block) = backup.blocks.recv().await {
        let mut block: Bytes = block.map_err(error::status)?;
        while !block.is_empty() {
            let next = block.split_to(SNAPSHOT_CHUNK.min(block.len()));
            let blob = std::mem::replace(&mut held, next);
            if !blob.is_empty() {
                remaining = remaining.saturating_sub(blob.len() as u64).max(1);
                sink.send(piece(blob, remaining)).await?;
            }
        }
    }
    sink.send(piece(held, 0)).await
}

async fn move_leader(
    member: &Member,
    request: pb::MoveLeaderRequest,
) -> Result<pb::MoveLeaderResponse, Status> {
    let (status, target) = (member.store.status(), MemberId(request.target_id));
    if status.leader != Some(status.member) {
        return Err(error::not_leader());
    }
    if !status.voters.contains(&target) {
        return Err(error::bad_transferee());
    }
    member.store.transfer_leader(target, TRANSFER_TIMEOUT).await.map_err(error::status)?;
    // No header: etcd sends none.
    Ok(pb::MoveLeaderResponse { header: None })
}

fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
