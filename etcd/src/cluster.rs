//! The Cluster service: who is a member.
//!
//! etcd knows members' peers by URLs, the store by `host:port`; the scheme is that of our own peers.

use store::kv::{Consistency, KeyRange, Kv, MemberId, RangeRequest};
use store::{MemberError, MemberInfo, Refusal};

use crate::error;
use crate::grpc::{Call, Code, Status};
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::service;

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    match method {
        "MemberAdd" => call.unary(|request| add(member, request)).await,
        "MemberRemove" => call.unary(|request| remove(member, request)).await,
        "MemberUpdate" => call.unary(|request| update(member, request)).await,
        "MemberList" => call.unary(|request| list(member, request)).await,
        "MemberPromote" => call.unary(|request| promote(member, request)).await,
        _ => service::unknown(call).await,
    }
}

async fn add(member: &Member, request: pb::MemberAddRequest) -> Result<pb::MemberAddResponse, Status> {
    let address = peer_address(&request.peer_ur_ls)?;
    let added = member.store.member_add(&address, request.is_learner).await.map_err(refused)?;
    Ok(pb::MemberAddResponse {
        header: Some(member.header_now()),
        member: Some(wire(member, added)),
        members: members(member),
    })
}

async fn remove(
    member: &Member,
    request: pb::MemberRemoveRequest,
) -> Result<pb::MemberRemoveResponse, Status> {
    member.store.member_remove(MemberId(request.id)).await.map_err(refused)?;
    Ok(pb::MemberRemoveResponse { header: Some(member.header_now()), members: members(member) })
}

async fn update(
    member: &Member,
    request: pb::MemberUpdateRequest,
) -> Result<pb::MemberUpdateResponse, Status> {
    let address = peer_address(&request.peer_ur_ls)?;
    member.store.member_update(MemberId(request.id), &address).await.map_err(refused)?;
    Ok(pb::MemberUpdateResponse { header: Some(member.header_now()), members: members(member) })
}

async fn list(member: &Member, request: pb::MemberListRequest) -> Result<pb::MemberListResponse, Status> {
    if request.linearizable {
        // Members are part of what is applied in order, so any confirmed read makes them current.
        let mut read = RangeRequest::new(KeyRange::key(&b"\0"[..]));
        (read.count_only, read.consistency) = (true, Consistency::Linearizable);
        member.store.range(read).await.map_err(error::status)?;
    }
    Ok(pb::MemberListResponse { header: Some(member.header_now()), members: members(member) })
}

async fn promote(
    member: &Member,
    request: pb::MemberPromoteRequest,
) -> Result<pb::MemberPromoteResponse, Status> {
    member.store.member_promote(MemberId(request.id)).await.map_err(refused)?;
    Ok(pb::MemberPromoteResponse { header: Some(member.header_now()), members: members(member) })
}

fn members(member: &Member) -> Vec<pb::Member> {
    member.store.members().into_iter().map(|info| wire(member, info)).collect()
}

fn wire(member: &Member, info: MemberInfo) -> pb::Member {
    let url = |address: &String| format!("{}://{address}", member.peer_scheme);
    let peer_ur_ls = Some(&info.peer_address).filter(|address| !address.is_empty()).map(url);
    pb::Member {
        id: info.id.0,
        name: info.name,
        peer_ur_ls: peer_ur_ls.into_iter().collect(),
        client_ur_ls: info.client_urls,
        is_learner: info.learner,
    }
}

/// The address in the URL of a peer. A member of ours has one.
fn peer_address(urls: &[String]) -> Result<String, Status> {
    let [url] = urls else { return Err(error::bad_urls()) };
    let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let address = address.ok_or_else(error::bad_urls)?.trim_end_matches('/');
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        let port: u16 = port.parse().ok()?;
        (!host.is_empty() && !address.contains('/')).then_some(port)
    });
    port.map(|_| address.to_owned()).ok_or_else(error::bad_urls)
}

/// A refused change in etcd's words; ours, which say more, go into the log.
fn refused(why: MemberError) -> Status {
    let refusal = match why {
        MemberError::Store(error) => return error::status(error),
        MemberError::Refused(refusal) => refusal,
    };
    tracing::info!(%refusal, "a change of membership is refused");
    let precondition = |text: &'static str| Status::new(Code::FailedPrecondition, text);
    match refusal {
        Refusal::NotFound(_) => Status::new(Code::NotFound, "etcdserver: member not found"),
        Refusal::Exists { .. } => precondition("etcdserver: Peer URLs already exists"),
        Refusal::IdUsed(_) => precondition("etcdserver: member ID already exist"),
        Refusal::NotLearner(_) => precondition("etcdserver: can only promote a learner member"),
        Refusal::LearnerNotReady { .. } => {
            precondition("etcdserver: can only promote a learner member which is in sync with leader")
        }
        Refusal::TooManyLearners(_) => precondition("etcdserver: too many learner members in cluster"),
        Refusal::LastVoter(_) => {
            precondition("etcdserver: re-configuration failed due to not enough started members")
        }
        Refusal::Unhealthy(_) | Refusal::Pending => {
            Status::new(Code::Unavailable, "etcdserver: unhealthy cluster")
        }
        Refusal::Address(_) => error::bad_urls(),
        Refusal::Unreachable(_) => Status::new(Code::FailedPrecondition, format!("etcdserver: {refusal}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_one_url_with_host_and_port() {
        let address = |url: &str| peer_address(&[url.to_owned()]).ok();
        assert_eq!(address("http://10.0.0.1:2380").as_deref(), Some("10.0.0.1:2380"));
        assert_eq!(address("https://[::1]:2380/").as_deref(), Some("[::1]:2380"));
        for bad in ["10.0.0.1:2380", "http://10.0.0.1", "http://:1", "http://a:b", "http://a:1/path", ""] {
            assert_eq!(address(bad), None, "{bad}");
        }
        assert!(peer_address(&[]).is_err());
    }
}
