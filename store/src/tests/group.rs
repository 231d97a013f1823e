//! Three members in one process over real databases and TLS sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::single::{get, put};
use crate::kv::{Kv, KvError, LeaseId, MemberId, Op, Txn, TxnResponse};
use crate::{Config, PeerTls, Store};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A CA and one certificate for all members.
pub fn tls() -> PeerTls {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["amoeba-peer".to_string()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    PeerTls { server: Arc::new(server), client: Arc::new(client), server_name: Some("amoeba-peer".into()) }
}

struct Group {
    dirs: Vec<TempDir>,
    peers: BTreeMap<MemberId, SocketAddr>,
    tls: PeerTls,
    stores: BTreeMap<MemberId, Store>,
}

impl Group {
    async fn start() -> Group {
        let mut peers = BTreeMap::new();
        let mut listeners = Vec::new();
        for id in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            peers.insert(MemberId(id), listener.local_addr().unwrap());
            listeners.push((MemberId(id), listener));
        }
        let dirs = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut group = Group { dirs, peers, tls: tls(), stores: BTreeMap::new() };
        for (id, listener) in listeners {
            let store = Store::open_with(group.config(id), Some(listener)).await.unwrap();
            group.stores.insert(id, store);
        }
        group
    }

    fn config(&self, id: MemberId) -> Config {
        let dir = self.dirs[usize::try_from(id.0 - 1).unwrap()].path();
        let mut config = Config::group(dir, id, self.peers.clone(), Some(self.tls.clone()));
        // A lagging member must need a snapshot soon; and a loaded test machine isn't a fast network.
        config.limits.log_keep_entries = 50;
        config.limits.request_timeout = Duration::from_secs(10);
        config
    }

    async fn stop(&mut self, id: MemberId) {
        self.stores.remove(&id).unwrap().stop().await;
    }

    async fn restart(&mut self, id: MemberId) {
        let store = Store::open(self.config(id)).await.unwrap();
        self.stores.insert(id, store);
    }

    async fn leader(&self) -> MemberId {
        let mut leadership = self.stores.values().next().unwrap().leadership();
        let alive = |leader: &Option<MemberId>| leader.is_some_and(|id| self.stores.contains_key(&id));
        let leader = tokio::time::timeout(PATIENCE, leadership.wait_for(alive)).await;
        leader.expect("a leader in time").unwrap().unwrap()
    }

    async fn close(self) {
        for store in self.stores.into_values() {
            store.close().await;
        }
    }
}

/// Writes, again if nothing is known to have happened. The value makes a repeat harmless.
pub async fn write(store: &Store, key: &str, value: &str) -> TxnResponse {
    let begun = Instant::now();
    loop {
        match store.txn(put(key, value)).await {
            Ok(response) => return response,
            Err(KvError::Unavailable(_) | KvError::Unknown) if begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Followers ask the leader, and none of it but grant and revocation goes through the log.
async fn leases_are_the_same_from_everywhere(group: &Group) {
    let id = LeaseId(4711);
    let first = group.stores.values().next().unwrap();
    first.lease_grant(Some(id), 60).await.unwrap();
    assert!(matches!(first.lease_grant(Some(id), 60).await, Err(KvError::LeaseExists(_))));
    let op = Op::Put { key: "leased".into(), value: "v".into(), lease: Some(id) };
    first.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    for store in group.stores.values() {
        let info = store.lease_info(id).await.unwrap();
        assert_eq!((info.granted_ttl_seconds, info.keys), (60, vec!["leased".into()]));
        assert!(info.remaining > Duration::from_secs(50), "{:?}", info.remaining);
        assert_eq!(store.leases().await.unwrap(), [id]);
    }
    let before = first.status().applied_index;
    for store in group.stores.values() {
        for _ in 0..20 {
            assert_eq!(store.lease_keep_alive(id).await.unwrap().ttl_seconds, 60);
        }
    }
    // Sixty renewals; what comes into the log meanwhile are the members' comparisons.
    assert!(first.status().applied_index < before + 20, "renewals are no log entries");
    first.lease_revoke(id).await.unwrap();
    for store in group.stores.values() {
        assert!(matches!(store.lease_keep_alive(id).await, Err(KvError::LeaseNotFound(_))));
        assert!(matches!(store.lease_info(id).await, Err(KvError::LeaseNotFound(_))));
        assert_eq!(get(store, "leased").await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_survives_its_leader_and_a_long_absence() {
    let mut group = Group::start().await;
    let leader = group.leader().await;
    for store in group.stores.values() {
        write(store, &format!("from-{}", store.status().member), "v").await;
    }
    leases_are_the_same_from_everywhere(&group).await;
    for store in group.stores.values() {
        for id in 1..=3 {
            assert_eq!(get(store, &format!("from-{id}")).await.unwrap(), "v", "a linearizable read anywhere");
        }
    }

    group.stop(leader).await;
    let survivor = group.stores.values().next().unwrap().clone();
    let killed = Instant::now();
    write(&survivor, "after", "failover").await;
    println!("leader stopped to next write: {:?}", killed.elapsed());

    // Far more than the log that is kept: the absent member needs a snapshot.
    for n in 0..200 {
        write(&survivor, &format!("k/{n}"), &n.to_string()).await;
    }
    drop(survivor);
    group.restart(leader).await;
    let returned = &group.stores[&leader];
    assert_eq!(get(returned, "k/199").await.unwrap(), "199");
    assert_eq!(get(returned, "after").await.unwrap(), "failover");
    write(returned, "back", "again").await;

    for id in group.peers.keys().copied().collect::<Vec<_>>() {
        group.stop(id).await;
    }
    for id in group.peers.keys().copied().collect::<Vec<_>>() {
        group.restart(id).await;
    }
    for store in group.stores.values() {
        assert_eq!(get(store, "back").await.unwrap(), "again");
        assert_eq!(get(store, "k/0").await.unwrap(), "0");
    }
    let to =
        group.peers.keys().copied().find(|id| Some(*id) != group.stores[&leader].status().leader).unwrap();
    let from = group.leader().await;
    group.stores[&from].transfer_leader(to, PATIENCE).await.unwrap();
    group.close().await;
}
