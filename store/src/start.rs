//! Who this member is and whom it starts with: as its disk says, or on a new disk as a founder of a new
//! cluster or as a new member of a living one.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;

use crate::config::{ClusterId, Config};
use crate::kv::MemberId;
use crate::membership::{MemberInfo, Membership, check_address};
use crate::mvcc::state::State;
use crate::mvcc::view::{DiskError, ReadView};
use crate::peer::join::{self, JoinError, Joined};
use crate::raft::persist::{self, Identity, RecoverError};
use crate::store::OpenError;

/// What a start needs to know.
#[derive(Clone, Debug)]
pub struct Start {
    /// This member.
    pub id: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The founders of a new cluster; empty if it isn't new.
    pub founders: Vec<MemberInfo>,
    /// Whom to talk to until the membership is known.
    pub introduced: Membership,
    /// This member's peer address, if it has one: as configured, or as the membership has it.
    pub peer_address: Option<String>,
}

/// Finds out who this member is.
///
/// # Errors
/// If configuration and disk leave it open, or the cluster to join doesn't know it.
pub async fn resolve(config: &Config, disk: &impl ReadView) -> Result<Start, OpenError> {
    let database = |source: DiskError| OpenError::Database { path: config.dir.clone(), source };
    let unknown = |source: RecoverError| OpenError::Start { path: config.dir.clone(), source: source.into() };
    let identity = persist::identity(disk).map_err(unknown)?;
    let membership = State::load(disk).map_err(database)?.membership;
    match (identity, &config.join) {
        (Some(identity), _) if !membership.is_empty() => Ok(resume(config, &identity, &membership)),
        (identity, Some(join)) => {
            let joined = join::ask(join, config.tls.as_ref()).await?;
            introduce(config, identity, joined, &join.peer_address)
        }
        (Some(_), None) => Err(OpenError::Config(
            "the member has not heard from its cluster yet; start it with the addresses of living members"
                .into(),
        )),
        (None, None) => found(config),
    }
}

/// The disk's word counts; where the configuration says otherwise, the replica's own check refuses it.
fn resume(config: &Config, identity: &Identity, membership: &Membership) -> Start {
    let id = config.id.unwrap_or(identity.member);
    let configured = config.peers.get(&id).filter(|address| !address.is_empty());
    let known = membership.get(id).map(|own| &own.peer_address).filter(|address| !address.is_empty());
    let sole = membership.voters() == [id];
    if let (Some(configured), Some(known), false) = (configured, known, sole)
        && configured != known
    {
        tracing::warn!(
            "the cluster knows this member at {known}, not at {configured}; change that with a member update"
        );
    }
    Start {
        id,
        cluster: config.cluster.unwrap_or(ClusterId(identity.cluster)),
        founders: Vec::new(),
        introduced: Membership::default(),
        peer_address: if sole { configured.or(known) } else { known.or(configured) }.cloned(),
    }
}

fn introduce(
    config: &Config,
    identity: Option<Identity>,
    joined: Joined,
    address: &str,
) -> Result<Start, OpenError> {
    let known = identity.map(|identity| identity.member).or(config.id);
    if let Some(known) = known.filter(|known| *known != joined.id) {
        return Err(
            JoinError::OtherId { address: address.to_owned(), found: joined.id, expected: known }.into()
        );
    }
    Ok(Start {
        id: joined.id,
        cluster: config.cluster.unwrap_or(joined.cluster),
        founders: Vec::new(),
        introduced: joined.membership,
        peer_address: Some(address.to_owned()),
    })
}

fn found(config: &Config) -> Result<Start, OpenError> {
    let refuse = |why: String| Err(OpenError::Config(why));
    let Some(id) = config.id.or(config.founder.map(|(id, _)| id)) else {
        return refuse("a founder of a new cluster needs a member id".into());
    };
    let Some(address) = config.peers.get(&id) else {
        return refuse(format!("member {id} is not among its peers"));
    };
    for (member, address) in &config.peers {
        let alone = config.peers.len() == 1 && address.is_empty();
        if let (false, Err(why)) = (alone, check_address(address)) {
            return refuse(format!("member {member}: {why}"));
        }
    }
    let founders: Vec<MemberInfo> =
        config.peers.iter().map(|(id, address)| MemberInfo::new(*id, address)).collect();
    let peer_address = (!address.is_empty()).then(|| address.clone());
    // A founder alone needn't agree on a number with anyone, so it takes one that no other has.
    let unique = if founders.len() == 1 { now_nanos() } else { 0 };
    let given = config.cluster.or(config.founder.map(|(_, cluster)| cluster));
    let cluster = given.unwrap_or_else(|| ClusterId(config.founded_cluster().0 ^ unique));
    Ok(Start { id, cluster, founders, introduced: Membership::default(), peer_address })
}

/// A number for a directory, should it be new: no other has it.
pub fn draw_incarnation() -> u64 {
    // The standard library seeds each hasher from the system's random numbers.
    let drawn = RandomState::new().hash_one(now_nanos());
    drawn.max(1)
}

fn now_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Listens for other members, if there is an address to listen on.
///
/// # Errors
/// [`OpenError::Listen`].
pub async fn listen(config: &Config, start: &Start) -> Result<Option<TcpListener>, OpenError> {
    let address = match (config.listen, &start.peer_address) {
        (Some(address), _) => address.to_string(),
        (None, Some(address)) => address.clone(),
        (None, None) => return Ok(None),
    };
    match TcpListener::bind(&address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(OpenError::Listen { address, source }),
    }
}
