//! How a new member finds the cluster that has added it: it asks living members who they are, and finds its
//! id by its peer address, as etcd does.

use std::time::Duration;

use crate::config::{ClusterId, Join, PeerTls};
use crate::kv::MemberId;
use crate::membership::Membership;

use super::connection;
use super::frame::Frame;

/// How long one member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What the cluster says of a new member.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// The new member's id.
    pub id: MemberId,
    /// Everyone.
    pub membership: Membership,
}

/// Why a new member can't join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody said anything useful.
    #[error("no member of the cluster to join answered: {0}")]
    NoAnswer(String),
    /// The cluster doesn't expect this member.
    #[error(
        "the cluster has no member with peer address {address} (it has {found}); add one with that address \
         first"
    )]
    NotAdded {
        /// The new member's peer address.
        address: String,
        /// Those that it has.
        found: String,
    },
    /// The address is another member's.
    #[error("the cluster has added peer address {address} as member {found}, but this is member {expected}")]
    OtherId {
        /// The peer address.
        address: String,
        /// Whose it is.
        found: MemberId,
        /// Who this is.
        expected: MemberId,
    },
}

/// Asks one member after another.
///
/// # Errors
/// If none answers, or the one that has the most to say doesn't know the peer address.
pub async fn ask(join: &Join, tls: Option<&PeerTls>) -> Result<Joined, JoinError> {
    let mut failures = Vec::new();
    let mut not_added = None;
    for address in join.members.iter().filter(|address| **address != join.peer_address) {
        match ask_one(address, tls).await {
            Ok((cluster, membership)) => match find(cluster, membership, &join.peer_address) {
                Ok(joined) => return Ok(joined),
                // It may lag behind; another may know more.
                Err(error) => not_added = Some(error),
            },
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(not_added.unwrap_or_else(|| JoinError::NoAnswer(failures.join("; "))))
}

fn find(cluster: u64, membership: Membership, address: &str) -> Result<Joined, JoinError> {
    let own = membership.members().find(|member| member.peer_address == address).map(|member| member.id);
    match own {
        Some(id) => Ok(Joined { cluster: ClusterId(cluster), id, membership }),
        None => {
            let found: Vec<&str> = membership.members().map(|member| member.peer_address.as_str()).collect();
            Err(JoinError::NotAdded { address: address.to_owned(), found: found.join(", ") })
        }
    }
}

async fn ask_one(address: &str, tls: Option<&PeerTls>) -> std::io::Result<(u64, Membership)> {
    let asking = async {
        let mut connection = connection::open(address, tls).await?;
        connection::say(&mut connection, &Frame::WhoAreYou).await?;
        match super::frame::read(&mut connection).await? {
            Frame::Members { cluster, membership } => Ok((cluster, membership)),
            frame => Err(std::io::Error::other(format!("unexpected answer {frame:?}"))),
        }
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asking).await?
}
