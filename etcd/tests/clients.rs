//! The `etcd-client` crate, which knows nothing of us, against our server.

mod common;

use std::time::Duration;

use common::Server;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, LeaseGrantOptions, LockOptions,
    ProclaimOptions, ResignOptions, Txn, TxnOp, WatchFilterType, WatchOptions, WatchStream,
};

async fn client(server: &Server) -> Client {
    let options = ConnectOptions::default().with_require_leader(true);
    Client::connect([server.endpoint()], Some(options)).await.expect("it connects")
}

async fn message(stream: &mut WatchStream) -> etcd_client::WatchResponse {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    message.expect("a response within 10 s").expect("no error").expect("the stream goes on")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watches_share_a_stream() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let options = WatchOptions::new().with_watch_id(7).with_prev_key();
    let mut watches = client.watch("a", Some(options)).await.expect("a watch");
    let first = message(&mut watches).await;
    assert!(first.created() && first.watch_id() == 7);
    watches.watch("a", Some(WatchOptions::new().with_watch_id(7))).await.expect("it is sent");
    let refused = message(&mut watches).await;
    assert!(refused.created() && refused.canceled() && refused.watch_id() == -1);
    assert!(refused.cancel_reason().contains("duplicate watch ID"), "{}", refused.cancel_reason());
    watches.watch("a", None).await.expect("it is sent");
    let other = message(&mut watches).await;
    let deletes = WatchOptions::new().with_filters([WatchFilterType::NoPut]).with_prefix();
    watches.watch("", Some(deletes)).await.expect("it is sent");
    let deletes = message(&mut watches).await.watch_id();
    client.put("a", "1", None).await.expect("a put");
    client.delete("a", None).await.expect("a deletion");
    let mut seen = Vec::new();
    while seen.iter().map(|(_, count, _)| count).sum::<usize>() < 5 {
        let response = message(&mut watches).await;
        let prev = response.events().iter().filter(|event| event.prev_kv().is_some()).count();
        seen.push((response.watch_id(), response.events().len(), prev));
    }
    let events = |id| {
        let of = seen.iter().filter(|(watch, ..)| *watch == id);
        of.fold((0, 0), |(all, with_prev), (_, count, prev)| (all + count, with_prev + prev))
    };
    assert_eq!((events(7), events(other.watch_id()), events(deletes)), ((2, 1), (2, 0), (1, 0)));
    watches.cancel(7).await.expect("it is sent");
    let canceled = message(&mut watches).await;
    assert!(canceled.canceled() && canceled.watch_id() == 7);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_after_the_events_before_it() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let mut watches = client.watch("a", None).await.expect("a watch");
    message(&mut watches).await;
    for round in 0..50 {
        client.put("a", format!("{round}"), None).await.expect("a put");
        let newest = client.put("b", "", None).await.expect("a put").header().expect("a header").revision();
        watches.request_progress().await.expect("it is sent");
        let mut delivered = 0;
        loop {
            let response = message(&mut watches).await;
            delivered += response.events().len();
            if response.watch_id() == -1 {
                assert!(response.header().expect("a header").revision() >= newest);
                break;
            }
        }
        assert_eq!(delivered, 1, "round {round}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_progress_is_below_the_start_of_a_watch() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let now = client.put("a", "", None).await.expect("a put").header().expect("a header").revision();
    let start = now + 3;
    let mut watches =
        client.watch("a", Some(WatchOptions::new().with_start_revision(start))).await.expect("a watch");
    assert!(message(&mut watches).await.created());
    watches.request_progress().await.expect("it is sent");
    for _ in 0..5 {
        client.put("b", "", None).await.expect("a put");
    }
    let progress = message(&mut watches).await;
    assert_eq!(progress.watch_id(), -1);
    assert!(progress.header().expect("a header").revision() >= start - 1, "{progress:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_compacted_history_is_canceled() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    for value in ["1", "2", "3"] {
        client.put("a", value, None).await.expect("a put");
    }
    client.compact(3, None).await.expect("compaction");
    let options = WatchOptions::new().with_start_revision(1);
    let mut watches = client.watch("a", Some(options)).await.expect("a watch");
    assert!(message(&mut watches).await.created());
    let canceled = message(&mut watches).await;
    assert_eq!((canceled.canceled(), canceled.compact_revision()), (true, 3));
    // The stream itself goes on.
    watches.watch("a", None).await.expect("it is sent");
    assert!(message(&mut watches).await.created());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_too_large_comes_in_fragments() {
    let mut config = etcd::Config::plain();
    config.limits.max_request_bytes = 64 << 10;
    let server = Server::start_with(config).await;
    let mut client = client(&server).await;
    for key in 0..10 {
        client.put(format!("k{key}"), vec![b'x'; 20 << 10], None).await.expect("a put");
    }
    let options = WatchOptions::new().with_fragment().with_prev_key().with_prefix();
    let mut watches = client.watch("k", Some(options)).await.expect("a watch");
    message(&mut watches).await;
    let prefix = etcd_client::DeleteOptions::new().with_prefix();
    client.delete("k", Some(prefix)).await.expect("a deletion");
    let (mut pieces, mut events) = (0, 0);
    while events < 10 {
        let response = message(&mut watches).await;
        (pieces, events) = (pieces + 1, events + response.events().len());
    }
    assert_eq!((pieces, events), (4, 10), "three with 60 KiB each and one with the rest");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_mebibyte_and_ranges_of_many() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    for key in 0..6 {
        client.put(format!("k{key}"), vec![b'x'; 1 << 20], None).await.expect("a put");
    }
    let prefix = GetOptions::new().with_prefix();
    let all = client.get("k", Some(prefix)).await;
    // The client's own limit of 4 MiB per answer: what matters is that the connection survives it.
    assert!(all.is_err() || all.is_ok_and(|all| all.kvs().len() == 6));
    let one = client.get("k3", None).await.expect("a read");
    assert_eq!(one.kvs()[0].value().len(), 1 << 20);
    let too_large = client.put("k", vec![b'x'; 1700 << 10], None).await.expect_err("a limit");
    assert!(too_large.to_string().contains("etcdserver: request is too large"), "{too_large}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_and_its_keys_with_it() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let id = client.lease_grant(2, Some(LeaseGrantOptions::new().with_id(77))).await.expect("a lease").id();
    let put = etcd_client::PutOptions::new().with_lease(id);
    client.put("mortal", "1", Some(put)).await.expect("a put");
    let mut watches = client.watch("mortal", None).await.expect("a watch");
    message(&mut watches).await;
    let (mut keeper, mut kept) = client.lease_keep_alive(id).await.expect("it lives");
    keeper.keep_alive().await.expect("it is sent");
    assert_eq!(kept.message().await.expect("no error").expect("an answer").ttl(), 2);
    let gone = message(&mut watches).await;
    assert_eq!(gone.events()[0].event_type(), EventType::Delete);
    assert_eq!(client.lease_time_to_live(id, None).await.expect("an answer").ttl(), -1);
    assert!(client.lease_revoke(id).await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_by_one() {
    let server = Server::start().await;
    let (mut first, mut second) = (client(&server).await, client(&server).await);
    let key = first.lock("mutex", None).await.expect("the lock").key().to_vec();
    let waiting =
        tokio::spawn(async move { second.lock("mutex", None).await.map(|held| held.key().to_vec()) });
    // The second claim is in the queue, and waits.
    let queued = async {
        let prefix = || GetOptions::new().with_prefix().with_count_only();
        while first.get("mutex/", Some(prefix())).await.expect("a read").count() < 2 {}
    };
    tokio::time::timeout(Duration::from_secs(10), queued).await.expect("the second claims it");
    assert!(!waiting.is_finished());
    first.unlock(key).await.expect("it is held");
    let second = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it is free now");
    assert!(second.expect("no panic").expect("the lock").starts_with(b"mutex/"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_a_lock_leaves_no_claim() {
    let server = Server::start().await;
    let mut holder = client(&server).await;
    let key = holder.lock("mutex", None).await.expect("the lock").key().to_vec();
    let lease = holder.lease_grant(3600, None).await.expect("a lease").id();
    let mut other = client(&server).await;
    let options = LockOptions::new().with_lease(lease);
    let impatient = tokio::time::timeout(Duration::from_millis(300), other.lock("mutex", Some(options)));
    assert!(impatient.await.is_err(), "it is held by the other");
    let alone = async {
        let prefix = || GetOptions::new().with_prefix().with_count_only();
        while holder.get("mutex/", Some(prefix())).await.expect("a read").count() > 1 {}
    };
    tokio::time::timeout(Duration::from_secs(10), alone).await.expect("the claim is withdrawn");
    holder.unlock(key).await.expect("it is held");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_has_one_leader_at_a_time() {
    let server = Server::start().await;
    let (mut a, mut b) = (client(&server).await, client(&server).await);
    assert!(a.leader("post").await.is_err_and(|error| error.to_string().contains("election: no leader")));
    let mut seen = a.observe("post").await.expect("a stream");
    let lease = a.lease_grant(60, None).await.expect("a lease").id();
    let leader = a.campaign("post", "a", lease).await.expect("elected").leader().cloned().expect("a key");
    let observed = seen.message().await.expect("no error").expect("an answer");
    assert_eq!(observed.kv().expect("a leader").value(), b"a");
    let options = ProclaimOptions::new().with_leader(leader.clone());
    a.proclaim("a2", Some(options)).await.expect("it leads");
    let observed = seen.message().await.expect("no error").expect("an answer");
    assert_eq!(observed.kv().expect("a leader").value(), b"a2");
    let lease = b.lease_grant(60, None).await.expect("a lease").id();
    let campaign = tokio::spawn(async move { b.campaign("post", "b", lease).await.map(drop) });
    a.resign(Some(ResignOptions::new().with_leader(leader.clone()))).await.expect("it led");
    let elected = tokio::time::timeout(Duration::from_secs(10), campaign).await.expect("the post is free");
    elected.expect("no panic").expect("elected");
    assert_eq!(a.leader("post").await.expect("a leader").kv().expect("a key").value(), b"b");
    let late = a.proclaim("a3", Some(ProclaimOptions::new().with_leader(leader))).await;
    assert!(late.is_err_and(|error| error.to_string().contains("election: not leader")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_status_and_journal() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let members = client.member_list().await.expect("members");
    assert_eq!(members.members().iter().map(etcd_client::Member::id).collect::<Vec<_>>(), [1]);
    let status = client.status().await.expect("a status");
    assert_eq!((status.leader(), status.is_learner(), status.errors().len()), (1, false, 0));
    assert!(status.db_size() > 0 && status.raft_index() > 0 && status.raft_term() > 0);
    assert!(
        client.member_remove(99).await.is_err_and(|error| error.to_string().contains("member not found"))
    );
    let txn =
        Txn::new().when([Compare::version("a", CompareOp::Equal, 0)]).and_then([TxnOp::put("a", "1", None)]);
    let revision = client.txn(txn).await.expect("a transaction").header().expect("a header").revision();
    let revision = store::kv::Revision(u64::try_from(revision).expect("positive"));
    let entry = server.store.journal(revision).expect("readable").expect("recorded");
    assert_eq!(entry.origin.verb, "txn");
    assert!(entry.origin.agent.starts_with("tonic/"), "{}", entry.origin.agent);
    server.stop().await;
}
