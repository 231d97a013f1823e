//! A living cluster whose members change, over real databases and TLS sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::group::{PATIENCE, tls, write};
use super::single::{get, put};
use crate::kv::{Kv, KvError, MemberId};
use crate::membership::{MemberError, MemberInfo, Refusal};
use crate::{Config, Join, OpenError, PeerTls, Store};

struct Cluster {
    tls: PeerTls,
    dirs: BTreeMap<MemberId, TempDir>,
    stores: BTreeMap<MemberId, Store>,
}

/// A free address, kept by its listener.
async fn address() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn tuned(mut config: Config) -> Config {
    config.limits.request_timeout = Duration::from_secs(10);
    config
}

impl Cluster {
    /// A cluster of one that can be reached.
    async fn found() -> Cluster {
        let (listener, address) = address().await;
        let (dir, tls) = (tempfile::tempdir().unwrap(), tls());
        let id = MemberId(1);
        let config = Config::group(dir.path(), id, BTreeMap::from([(id, address)]), Some(tls.clone()));
        let store = Store::open_with(tuned(config), Some(listener)).await.unwrap();
        Cluster { tls, dirs: BTreeMap::from([(id, dir)]), stores: BTreeMap::from([(id, store)]) }
    }

    fn any(&self) -> &Store {
        self.stores.values().next().unwrap()
    }

    fn known(&self) -> Vec<String> {
        self.any().members().into_iter().map(|member| member.peer_address).collect()
    }

    fn joining(&self, dir: &Path, peer_address: String) -> Config {
        let join = Join { members: self.known(), peer_address };
        tuned(Config::join(dir, join, Some(self.tls.clone())))
    }

    /// Adds a member and starts it.
    async fn grow(&mut self, learner: bool) -> MemberId {
        let (listener, address) = address().await;
        let added = retry(|| self.any().member_add(&address, learner)).await;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(self.joining(dir.path(), address), Some(listener)).await.unwrap();
        assert_eq!(store.status().member, added.id);
        self.dirs.insert(added.id, dir);
        self.stores.insert(added.id, store);
        added.id
    }

    async fn three() -> Cluster {
        let mut cluster = Cluster::found().await;
        for _ in 0..2 {
            let id = cluster.grow(true).await;
            retry(|| cluster.stores[&MemberId(1)].member_promote(id)).await;
        }
        cluster
    }

    async fn leader(&self) -> MemberId {
        let mut leadership = self.any().leadership();
        let here = |leader: &Option<MemberId>| leader.is_some_and(|id| self.stores.contains_key(&id));
        let leader = tokio::time::timeout(PATIENCE, leadership.wait_for(here)).await;
        leader.expect("a leader in time").unwrap().unwrap()
    }

    async fn stop(&mut self, id: MemberId) {
        self.stores.remove(&id).unwrap().stop().await;
    }

    /// Starts a member again: its disk knows everything.
    async fn restart(&mut self, id: MemberId) -> Result<(), OpenError> {
        let mut config = tuned(Config::single(self.dirs[&id].path(), id));
        (config.id, config.tls) = (None, Some(self.tls.clone()));
        config.peers.clear();
        let store = Store::open(config).await?;
        self.stores.insert(id, store);
        Ok(())
    }

    async fn close(self) {
        for store in self.stores.into_values() {
            store.stop().await;
        }
    }
}

/// Asks again while the cluster isn't ready for it: the health of members shows after a moment.
pub async fn retry<F>(mut ask: impl FnMut() -> F) -> MemberInfo
where
    F: Future<Output = Result<MemberInfo, MemberError>>,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(member) => return member,
            Err(error) if begun.elapsed() > PATIENCE => panic!("{error}"),
            Err(MemberError::Refused(Refusal::Unhealthy(_) | Refusal::LearnerNotReady { .. })) => {}
            Err(MemberError::Store(KvError::Unavailable(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn refusal(result: Result<MemberInfo, MemberError>) -> Refusal {
    match result {
        Err(MemberError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_grows_to_three_under_writes() {
    let mut cluster = Cluster::found().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (first, ended) = (cluster.any().clone(), stop.clone());
    let writer = tokio::spawn(async move {
        let mut count = 0;
        while !ended.load(Ordering::Relaxed) {
            write(&first, &format!("k/{count}"), &count.to_string()).await;
            count += 1;
        }
        count
    });
    // As etcdctl does it by default: a voter at once. One member alone can't commit until it has joined.
    let second = cluster.grow(false).await;
    let third = cluster.grow(true).await;
    assert_eq!(cluster.any().status().learners, [third]);
    retry(|| cluster.any().member_promote(third)).await;
    stop.store(true, Ordering::Relaxed);
    let count = writer.await.unwrap();
    assert!(count > 0);
    for store in cluster.stores.values() {
        for n in 0..count {
            assert_eq!(get(store, &format!("k/{n}")).await.unwrap(), n.to_string());
        }
        assert_eq!(store.status().voters, [MemberId(1), second, third]);
    }
    // The first may go now: the others have everything, and know each other.
    cluster.stop(MemberId(1)).await;
    write(cluster.any(), "after", "the first").await;
    cluster.restart(MemberId(1)).await.unwrap();
    assert_eq!(get(&cluster.stores[&MemberId(1)], "after").await.unwrap(), "the first");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_leader_hands_over_ends_and_never_comes_back() {
    let mut cluster = Cluster::three().await;
    let leader = cluster.leader().await;
    let removed = cluster.stores[&leader].clone();
    write(&removed, "k", "1").await;
    retry(|| removed.member_remove(leader)).await;
    tokio::time::timeout(PATIENCE, removed.removed()).await.expect("it ends by itself");
    drop(removed);
    cluster.stop(leader).await;
    assert_ne!(cluster.leader().await, leader);
    write(cluster.any(), "k", "2").await;

    let error = cluster.restart(leader).await.expect_err("its id is never used again");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("was removed from the cluster"), "{cause}");
    assert!(cluster.any().members().iter().all(|member| member.id != leader));
    let next = cluster.grow(true).await;
    assert_eq!(next, MemberId(4), "a new id, though {leader} is free");
    retry(|| cluster.any().member_promote(next)).await;
    assert_eq!(get(&cluster.stores[&next], "k").await.unwrap(), "2");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_while_it_was_away_is_told_so_and_disturbs_nobody() {
    let mut cluster = Cluster::three().await;
    let leader = cluster.leader().await;
    let away = *cluster.stores.keys().find(|id| **id != leader).unwrap();
    cluster.stop(away).await;
    retry(|| cluster.stores[&leader].member_remove(away)).await;
    let term = cluster.stores[&leader].status().term;

    cluster.restart(away).await.unwrap();
    let returned = cluster.stores[&away].clone();
    tokio::time::timeout(PATIENCE, returned.removed()).await.expect("the others tell it");
    drop(returned);
    cluster.stop(away).await;
    assert!(cluster.restart(away).await.is_err(), "it remembers");
    write(cluster.any(), "k", "v").await;
    assert_eq!(cluster.stores[&leader].status().term, term, "no election");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_could_cost_the_quorum_is_refused_with_the_reason() {
    let mut cluster = Cluster::three().await;
    let leader = cluster.leader().await;
    let down = *cluster.stores.keys().find(|id| **id != leader).unwrap();
    let other = *cluster.stores.keys().find(|id| **id != leader && **id != down).unwrap();
    let taken = cluster.stores[&other].members()[0].peer_address.clone();
    let asked = cluster.stores[&other].clone();
    assert!(matches!(refusal(asked.member_add(&taken, false).await), Refusal::Exists { .. }));
    assert!(matches!(refusal(asked.member_add("nowhere", false).await), Refusal::Address(_)));
    assert_eq!(refusal(asked.member_remove(MemberId(77)).await), Refusal::NotFound(MemberId(77)));
    assert_eq!(refusal(asked.member_promote(other).await), Refusal::NotLearner(other));

    cluster.stop(down).await;
    // It isn't missed at once.
    let begun = Instant::now();
    while cluster.stores[&leader].healthy().contains(&down) {
        assert!(begun.elapsed() < PATIENCE);
        write(&asked, "k", "v").await;
    }
    let refused = refusal(asked.member_add("127.0.0.1:9", false).await);
    assert!(matches!(&refused, Refusal::Unhealthy(why) if why.contains(&down.to_string())), "{refused}");
    // Removing the other live follower would leave one of two.
    let refused = refusal(asked.member_remove(other).await);
    assert!(matches!(&refused, Refusal::Unhealthy(why) if why.contains("2 of 2")), "{refused}");
    // A learner that never started holds nobody up, isn't promoted, and counts against the limit.
    let idle = asked.member_add("127.0.0.1:9", true).await.unwrap();
    assert!(matches!(refusal(asked.member_promote(idle.id).await), Refusal::Unhealthy(_)));
    assert_eq!(refusal(asked.member_add("127.0.0.1:10", true).await), Refusal::TooManyLearners(1));
    retry(|| asked.member_remove(idle.id)).await;
    // The one that is down may go, and then there are two.
    retry(|| asked.member_remove(down)).await;
    write(&asked, "k", "v").await;
    assert_eq!(asked.status().voters.len(), 2);
    drop(asked);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_replaces_a_voter_in_one_step() {
    let mut cluster = Cluster::three().await;
    let new = cluster.grow(true).await;
    write(cluster.any(), "k", "v").await;
    let old = cluster.leader().await;
    retry(|| cluster.stores[&old].member_replace(old, new)).await;
    let replaced = cluster.stores[&old].clone();
    tokio::time::timeout(PATIENCE, replaced.removed()).await.expect("it ends by itself");
    drop(replaced);
    cluster.stop(old).await;
    write(cluster.any(), "k", "w").await;
    let voters = cluster.any().status().voters;
    assert!(voters.len() == 3 && voters.contains(&new) && !voters.contains(&old), "{voters:?}");
    assert_eq!(get(&cluster.stores[&new], "k").await.unwrap(), "w");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_addresses_are_published_and_a_member_alone_needs_one_to_grow() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::single(dir.path(), MemberId(1))).await.unwrap();
    store.publish("n1", &["http://127.0.0.1:2379".into()]).await.unwrap();
    let own = store.members().remove(0);
    assert_eq!((own.name.as_str(), own.client_urls.len()), ("n1", 1));
    assert_eq!(refusal(store.member_add("127.0.0.1:9", true).await), Refusal::Unreachable(MemberId(1)));
    assert_eq!(refusal(store.member_remove(MemberId(1)).await), Refusal::LastVoter(MemberId(1)));
    store.txn(put("k", "v")).await.unwrap();
    store.close().await;

    let (listener, address) = address().await;
    let mut config = Config::single(dir.path(), MemberId(1));
    config.peers.insert(MemberId(1), address.clone());
    let store = Store::open_with(config, Some(listener)).await.unwrap();
    assert_eq!(store.members().remove(0).peer_address, address);
    assert_eq!(store.members().remove(0).name, "n1", "the disk remembers");
    store.member_add("127.0.0.1:9", true).await.unwrap();
    assert_eq!(get(&store, "k").await.unwrap(), "v");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_not_join() {
    let cluster = Cluster::found().await;
    let dir = tempfile::tempdir().unwrap();
    let config = cluster.joining(dir.path(), "127.0.0.1:9".into());
    let error = Store::open(config).await.err().expect("nobody has added it");
    assert!(error.to_string().contains("no member with peer address 127.0.0.1:9"), "{error}");
    cluster.close().await;
}
