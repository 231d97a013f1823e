//! How a machine becomes a member of the control plane by a token: it meets the cluster as a node does, opens the
//! authorities with the certificate key, is let in as a learner, and votes when it has caught up. Then the token ends.
//!
//! Always holds: each step may be done again; nothing is shown to a server before the cluster's authority, which is
//! known by its key (`--ca-cert-hash`), has vouched for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use api::bootstrap_token::NAMESPACE;
use apiserver::members;
use apiserver::pki::handover::{Authorities, CertificateKey, HandoverError};
use client::backoff::{Backoff, Policy};
use http::Uri;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, Client};
use kubelet::credentials::join::{Invitation, JoinError, Met, meet};
use kubelet::credentials::write_private;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{MemberInfo, Store};

use crate::failure::Failure;
use crate::invitation::{InvitationArgs, of_file};

/// What is remembered of joining, in the member's data directory.
const FILE: &str = "joined.json";

/// By what a machine becomes a member.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Joining a cluster by a token")]
pub struct JoiningArgs {
    #[command(flatten)]
    invitation: InvitationArgs,
    /// Opens the authorities that lie in the cluster for who has the token (`amoeba token create --control-plane`)
    #[arg(long, value_name = "HEX", requires = "join", conflicts_with = "certificate_key_file")]
    certificate_key: Option<CertificateKey>,
    /// A file with the certificate key, so that it stands in no process list
    #[arg(long, value_name = "FILE", requires = "join")]
    certificate_key_file: Option<PathBuf>,
}

/// Whom a new member asks for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    /// An API server, which has to be shown a token.
    Server(Uri),
    /// The peer address of a member of a cluster that has added this one.
    Member(SocketAddr),
}

/// Why a machine can't become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// The cluster wasn't found, or isn't the one that was meant.
    #[error("meet the cluster")]
    Meet(#[from] JoinError),
    /// The server doesn't hand out the authorities.
    #[error("get the cluster's authorities (is the token one of `amoeba token create --control-plane`?)")]
    Authorities(#[source] Box<kube::Error>),
    /// The authorities can't be used.
    #[error("take up the cluster's authorities")]
    Handover(#[from] HandoverError),
    /// The cluster doesn't let this member in.
    #[error("ask to be let in as a member")]
    LetIn(#[source] Box<kube::Error>),
    /// The cluster said something that isn't understood.
    #[error("the cluster's members can't be read from {0}")]
    Damaged(String),
    /// What was learnt can't be kept.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a machine that has been let in knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Joined {
    /// The others' peer addresses.
    members: Vec<SocketAddr>,
    /// The id of the token that is to end when all is done.
    token: Option<String>,
}

/// `https://HOST:PORT` or `ADDRESS:PORT`.
pub fn parse_acquaintance(text: &str) -> Result<Acquaintance, String> {
    if !text.starts_with("https://") {
        let address = text.parse().map(Acquaintance::Member);
        return address.map_err(|_| format!("{text:?} is neither https://HOST:PORT nor a peer ADDRESS:PORT"));
    }
    text.parse().map(Acquaintance::Server).map_err(|error| format!("{text:?} is no URL: {error}"))
}

impl JoiningArgs {
    /// The peer addresses of the cluster that this machine is a member of from now on; `None` if no token is needed.
    ///
    /// # Errors
    /// If the flags contradict each other, or at which step joining fails.
    pub async fn join(
        &self,
        asked: &[Acquaintance],
        own: Option<SocketAddr>,
        dir: &Path,
        pki_dir: &Path,
    ) -> Result<Option<Vec<SocketAddr>>, Failure> {
        let server =
            |one: &Acquaintance| if let Acquaintance::Server(url) = one { Some(url.clone()) } else { None };
        let servers: Vec<Uri> = asked.iter().filter_map(server).collect();
        if servers.is_empty() {
            return Ok(None);
        }
        if servers.len() < asked.len() {
            return Err(Failure::Usage(
                "--join takes either URLs of API servers or peer addresses".to_owned(),
            ));
        }
        if let Some(joined) = Joined::read(dir) {
            return Ok(Some(joined.members));
        }
        let invitation = self.invitation.to(&servers)?;
        if invitation.pins.is_empty() {
            let why = "--join of a member needs --ca-cert-hash: it takes over the keys of whoever it is";
            return Err(Failure::Usage(why.to_owned()));
        }
        let own = own.ok_or_else(|| Failure::Usage("--join needs --peer-address".to_owned()))?;
        let joined = enter(&invitation, &self.key()?, own, pki_dir).await?;
        joined.write(dir)?;
        tracing::info!(members = ?joined.members, "this machine is let in as a member");
        Ok(Some(joined.members))
    }

    fn key(&self) -> Result<CertificateKey, Failure> {
        match (&self.certificate_key, &self.certificate_key_file) {
            (Some(key), _) => Ok(key.clone()),
            (None, Some(file)) => of_file(file),
            (None, None) => {
                let why = "--join of a member needs --certificate-key or --certificate-key-file";
                Err(Failure::Usage(why.to_owned()))
            }
        }
    }
}

async fn enter(
    invitation: &Invitation,
    key: &CertificateKey,
    own: SocketAddr,
    pki_dir: &Path,
) -> Result<Joined, JoiningError> {
    let Met { client, cluster, .. } = meet(invitation).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let sealed = secrets.get(&invitation.token.authorities_name()).await;
    let sealed = sealed.map_err(|error| JoiningError::Authorities(Box::new(error)))?.data.unwrap_or_default();
    let sealed: BTreeMap<String, Vec<u8>> = sealed.into_iter().map(|(name, bytes)| (name, bytes.0)).collect();
    Authorities::open(&sealed, key)?.settle(pki_dir, &cluster.ca_pem)?;
    let members = let_in(&client, own).await?;
    Ok(Joined { members, token: Some(invitation.token.id.clone()) })
}

/// Is let in as a learner at this address; the peer addresses of all others.
async fn let_in(client: &Client, own: SocketAddr) -> Result<Vec<SocketAddr>, JoiningError> {
    let body = json!({"peerAddress": own.to_string()}).to_string().into_bytes();
    let request = http::Request::post(members::PATH).header("content-type", "application/json").body(body);
    let request = request.map_err(|error| JoiningError::Damaged(error.to_string()))?;
    let answer: Value =
        client.request(request).await.map_err(|error| JoiningError::LetIn(Box::new(error)))?;
    others(&answer, own).ok_or_else(|| JoiningError::Damaged(answer.to_string()))
}

fn others(answer: &Value, own: SocketAddr) -> Option<Vec<SocketAddr>> {
    let all = answer["members"].as_array()?.iter();
    let addresses: Option<Vec<SocketAddr>> =
        all.map(|member| member["peerAddress"].as_str()?.parse().ok()).collect();
    Some(addresses?.into_iter().filter(|address| *address != own).collect())
        .filter(|all: &Vec<_>| !all.is_empty())
}

impl Joined {
    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    fn write(&self, dir: &Path) -> Result<(), JoiningError> {
        let path = dir.join(FILE);
        let text = json!(self).to_string();
        write_private(&path, &text).map_err(|source| JoiningError::Write { path, source })
    }
}

/// Has this member vote as soon as it has caught up, and then ends the token that it came by. Returns when that is done.
pub async fn settle(store: Store, own: String, client: Client, dir: PathBuf) {
    let Some(mut joined) = Joined::read(&dir) else { return };
    let Some(token) = joined.token.take() else { return };
    let mut backoff = Backoff::new(Policy::CONNECT);
    while let Err(why) = vote(&store, &own).await {
        tracing::debug!(%why, "this member doesn't vote yet");
        tokio::time::sleep(backoff.failed(rand::random())).await;
    }
    while let Err(error) = end_token(&client, &token).await {
        tracing::debug!(%error, "the token by which this member came doesn't end yet");
        tokio::time::sleep(backoff.failed(rand::random())).await;
    }
    if let Err(error) = joined.write(&dir) {
        tracing::warn!(%error, "note that this member has joined");
    }
    tracing::info!("this member votes, and the token by which it came has ended");
}

async fn vote(store: &Store, own: &str) -> Result<(), String> {
    let is_own = |member: &MemberInfo| member.peer_address == own;
    match store.members().into_iter().find(is_own) {
        Some(member) if member.learner => {
            store.member_promote(member.id).await.map(drop).map_err(|error| error.to_string())
        }
        Some(_) => Ok(()),
        None => Err(format!("the cluster knows no member at {own} yet")),
    }
}

async fn end_token(client: &Client, id: &str) -> Result<(), kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    match secrets.delete(&format!("bootstrap-token-{id}"), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_members_are_told_apart() {
        let address = SocketAddr::from(([10, 0, 0, 1], 7001));
        assert_eq!(parse_acquaintance("10.0.0.1:7001"), Ok(Acquaintance::Member(address)));
        assert!(matches!(parse_acquaintance("https://10.0.0.1:6443"), Ok(Acquaintance::Server(_))));
        for text in ["", "10.0.0.1", "http://10.0.0.1:6443", "https://"] {
            assert!(parse_acquaintance(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_others_are_those_that_the_cluster_names() {
        let own = SocketAddr::from(([10, 0, 0, 4], 7001));
        let answer = json!({"members": [{"peerAddress": "10.0.0.1:7001"}, {"peerAddress": "10.0.0.4:7001"}]});
        assert_eq!(others(&answer, own), Some(vec![SocketAddr::from(([10, 0, 0, 1], 7001))]));
        let nobody_else = json!({"members": [{"peerAddress": "10.0.0.4:7001"}]});
        let no_address = json!({"members": [{"peerAddress": ""}]});
        for damaged in [json!({}), nobody_else, no_address] {
            assert_eq!(others(&damaged, own), None, "{damaged}");
        }
    }

    #[test]
    fn what_was_learnt_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Joined::read(dir.path()), None);
        let joined = Joined { members: vec!["10.0.0.1:1".parse().expect("an address")], token: None };
        joined.write(dir.path()).expect("written");
        assert_eq!(Joined::read(dir.path()), Some(joined));
    }
}
