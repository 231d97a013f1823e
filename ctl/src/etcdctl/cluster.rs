//! What is asked of a store's cluster: its members, their changes, and a snapshot.

use bytes::Bytes;
use etcd::proto::etcdserverpb as pb;
use etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::{Code, Status};

use super::channel::{self, Channel, ConnectError};
use super::endpoints::Endpoints;
use crate::standalone::url::Url;

/// Why the cluster didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It can't be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It refused, or broke off.
    #[error("cannot {attempt}: {said}{remedy}", remedy = remedy(*.code, .said))]
    Refused {
        /// What was attempted, as it reads after "cannot".
        attempt: String,
        /// gRPC's code.
        code: Code,
        /// Its words.
        said: String,
    },
}

/// What to do about refusals that don't say it themselves.
fn remedy(code: Code, said: &str) -> &'static str {
    match (code, said) {
        (Code::Unavailable, text) if text.contains("unhealthy cluster") => {
            ": it would endanger the quorum; see `amoeba member list` and repair or remove the member that is down"
        }
        (Code::FailedPrecondition, text) if text.contains("in sync with leader") => {
            ": has it been started? It can be promoted when it has caught up"
        }
        (Code::FailedPrecondition, text) if text.contains("too many learner") => {
            ": promote or remove the one there is first"
        }
        (Code::FailedPrecondition, text) if text.contains("not enough started members") => {
            ": a cluster needs at least one voter"
        }
        _ => "",
    }
}

impl CallError {
    /// Whether a learner only needs more time.
    pub fn is_not_caught_up(&self) -> bool {
        matches!(self, Self::Refused { said, .. } if said.contains("in sync with leader"))
    }

    fn refused(attempt: impl Into<String>) -> impl FnOnce(Status) -> Self {
        let attempt = attempt.into();
        move |status| Self::Refused { attempt, code: status.code(), said: status.message().to_owned() }
    }
}

/// A connection to one member of a cluster.
pub struct StoreCluster {
    channel: Channel,
    /// The member's client URL.
    pub url: Url,
}

/// Who is in the cluster, as one member sees it.
pub struct Members {
    /// The cluster's id.
    pub cluster: u64,
    /// The leader's id; 0 if there is none.
    pub leader: u64,
    /// All members.
    pub members: Vec<pb::Member>,
}

impl StoreCluster {
    /// Connects.
    ///
    /// # Errors
    /// If no endpoint answers.
    pub async fn connect(endpoints: &Endpoints) -> Result<Self, ConnectError> {
        let (channel, url) = channel::connect(endpoints).await?;
        Ok(Self { channel, url })
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// The members and who leads.
    pub async fn members(&self) -> Result<Members, CallError> {
        let request = pb::MemberListRequest { linearizable: true };
        let failed = CallError::refused("list the members");
        let list = self.cluster().member_list(request).await.map_err(failed)?.into_inner();
        let failed = CallError::refused("ask who leads");
        let status = self.maintenance().status(pb::StatusRequest {}).await.map_err(failed)?.into_inner();
        Ok(Members {
            cluster: list.header.map_or(0, |header| header.cluster_id),
            leader: status.leader,
            members: list.members,
        })
    }

    /// Adds a member that isn't started yet; returns it and everyone.
    pub async fn add(&self, peer: &Url, learner: bool) -> Result<(pb::Member, Vec<pb::Member>), CallError> {
        let request = pb::MemberAddRequest { peer_ur_ls: vec![peer.to_string()], is_learner: learner };
        let attempt = format!("add a member at {peer}");
        let refused = CallError::refused(attempt);
        let added = self.cluster().member_add(request).await.map_err(refused)?.into_inner();
        Ok((added.member.unwrap_or_default(), added.members))
    }

    /// Lets a learner vote.
    pub async fn promote(&self, id: u64) -> Result<(), CallError> {
        let refused = CallError::refused(format!("promote member {id:x}"));
        self.cluster().member_promote(pb::MemberPromoteRequest { id }).await.map_err(refused).map(drop)
    }

    /// Removes a member for ever.
    pub async fn remove(&self, id: u64) -> Result<(), CallError> {
        let refused = CallError::refused(format!("remove member {id:x}"));
        self.cluster().member_remove(pb::MemberRemoveRequest { id }).await.map_err(refused).map(drop)
    }

    /// Tells the others where a member is now.
    pub async fn update(&self, id: u64, peer: &Url) -> Result<(), CallError> {
        let refused = CallError::refused(format!("move member {id:x} to {peer}"));
        let request = pb::MemberUpdateRequest { id, peer_ur_ls: vec![peer.to_string()] };
        self.cluster().member_update(request).await.map_err(refused).map(drop)
    }

    /// The state of one moment, piece by piece.
    pub async fn snapshot(&self) -> Result<SnapshotStream, CallError> {
        let refused = CallError::refused("take a snapshot");
        let stream = self.maintenance().snapshot(pb::SnapshotRequest {}).await.map_err(refused)?;
        Ok(SnapshotStream(stream.into_inner()))
    }
}

/// A snapshot on its way.
pub struct SnapshotStream(tonic::Streaming<pb::SnapshotResponse>);

impl SnapshotStream {
    /// The next piece, and about how many bytes are still to come; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Bytes, u64)>, CallError> {
        let piece = self.0.message().await.map_err(CallError::refused("go on with the snapshot"))?;
        Ok(piece.map(|piece| (piece.blob, piece.remaining_bytes)))
    }
}
