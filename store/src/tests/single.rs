//! A member of one over a real database.

use std::time::Duration;

use bytes::Bytes;

use crate::kv::{
    Compare, EventKind, FIRST_REVISION, KeyRange, Kv, KvError, MemberId, Op, Origin, RangeRequest, Revision,
    Txn, Watch, WatchMessage, WatchRequest,
};
use crate::{Config, JournalChange, JournalEntry, OpenError, Store};

pub fn put(key: &str, value: &str) -> Txn {
    let op =
        Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: value.to_string().into(), lease: None };
    Txn { success: vec![op], ..Txn::default() }
}

pub async fn get(store: &Store, key: &str) -> Option<Bytes> {
    let request = RangeRequest::new(KeyRange::key(key.to_string()));
    store.range(request).await.unwrap().kvs.pop().map(|kv| kv.value)
}

async fn open(dir: &std::path::Path) -> Store {
    Store::open(Config::single(dir, MemberId(1))).await.unwrap()
}

/// The revision of the n-th write.
fn nth(write: u64) -> Revision {
    Revision(FIRST_REVISION.0 + write)
}

async fn revision_of(watch: &mut Watch) -> u64 {
    loop {
        match tokio::time::timeout(Duration::from_secs(10), watch.recv()).await.unwrap().unwrap() {
            WatchMessage::Events { revision, .. } => return revision.0,
            WatchMessage::Progress(_) => {}
            WatchMessage::Compacted(at) => panic!("compacted at {at}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 1..=20 {
        let response = store.txn(put("k", &n.to_string())).await.unwrap();
        assert_eq!(response.revision, nth(n));
    }
    let digest = store.digest().unwrap();
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(get(&store, "k").await.unwrap(), "20");
    assert_eq!(store.digest().unwrap().1, digest.1);
    assert_eq!(store.txn(put("k", "x")).await.unwrap().revision, nth(21));
    let mut past = RangeRequest::new(KeyRange::key("k"));
    past.revision = Some(nth(7));
    assert_eq!(store.range(past).await.unwrap().kvs[0].value, "7");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_each_get_their_own_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        writers.spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..20 {
                revisions.push(store.txn(put(&format!("{writer}/{n}"), "v")).await.unwrap().revision.0);
            }
            revisions
        });
    }
    let mut all: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (nth(1).0..=nth(320).0).collect::<Vec<u64>>());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_replays_from_disk_and_follows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 1..=300 {
        store.txn(put("a", &n.to_string())).await.unwrap();
    }
    let request = WatchRequest { range: KeyRange::key("a"), start: Some(Revision(1)) };
    store.close().await;
    // After a restart nothing is in memory, and 300 messages don't fit into the watcher's channel.
    let store = open(dir.path()).await;
    let mut watch = store.watch(request).await.unwrap();
    store.txn(put("b", "")).await.unwrap();
    store.txn(put("a", "last")).await.unwrap();
    for expected in (1..=300).chain([302]) {
        assert_eq!(revision_of(&mut watch).await, nth(expected).0);
    }
    store.close().await;
    assert!(watch.recv().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_forgets_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 1..=10 {
        store.txn(put("a", &n.to_string())).await.unwrap();
    }
    store.compact(nth(9)).await.unwrap();
    let request = |start| WatchRequest { range: KeyRange::key("a"), start: Some(nth(start)) };
    assert!(matches!(store.watch(request(9)).await, Err(KvError::Compacted { .. })));
    let mut watch = store.watch(request(10)).await.unwrap();
    assert_eq!(revision_of(&mut watch).await, nth(10).0);
    let mut past = RangeRequest::new(KeyRange::key("a"));
    past.revision = Some(nth(8));
    assert!(matches!(store.range(past.clone()).await, Err(KvError::Compacted { .. })));
    past.revision = Some(nth(11));
    assert!(matches!(store.range(past).await, Err(KvError::FutureRevision { .. })));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_comparison_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let create = Txn { compare: vec![Compare::absent("k")], ..put("k", "first") };
    assert!(store.txn(create.clone()).await.unwrap().succeeded);
    let again = store.txn(create).await.unwrap();
    assert!(!again.succeeded);
    assert_eq!(again.revision, nth(1));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_by_itself_and_its_keys_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = store.lease_grant(None, 1).await.unwrap();
    let op = Op::Put { key: "l".into(), value: "v".into(), lease: Some(lease.id) };
    store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    let request = WatchRequest { range: KeyRange::key("l"), start: None };
    let mut watch = store.watch(request).await.unwrap();
    assert_eq!(store.lease_keep_alive(lease.id).await.unwrap(), lease);
    assert_eq!(revision_of(&mut watch).await, nth(2).0);
    assert_eq!(get(&store, "l").await, None);
    assert!(matches!(store.lease_keep_alive(lease.id).await, Err(KvError::LeaseNotFound(_))));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_remembers_who_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let origin = Origin {
        user: "jane".into(),
        agent: "kubectl".into(),
        verb: "create".into(),
        cause: Some(Revision(7)),
    };
    store.txn(Txn { origin: origin.clone(), ..put("k", "v") }).await.unwrap();
    let entry = store.journal(nth(1)).unwrap().unwrap();
    assert_eq!(entry.origin, origin);
    assert!(entry.wall_ms > 1_600_000_000_000);
    assert_eq!(entry.changes, [JournalChange { kind: EventKind::Put, key: "k".into(), value_bytes: 1 }]);
    assert_eq!(store.journal(nth(2)).unwrap(), None);

    for n in 2..=6 {
        store.txn(put(if n % 2 == 0 { "other" } else { "k" }, "v")).await.unwrap();
    }
    let revisions =
        |entries: Vec<JournalEntry>| entries.iter().map(|e| e.revision.0 - nth(0).0).collect::<Vec<_>>();
    assert_eq!(revisions(store.journal_of("k".into(), 2).await.unwrap()), [5, 3]);
    let all = store.journal_between(Revision(0), Revision(u64::MAX), 100).await.unwrap();
    assert!(all.windows(2).all(|pair| pair[0].time < pair[1].time));
    assert_eq!(revisions(all), [1, 2, 3, 4, 5, 6]);
    store.compact(nth(3)).await.unwrap();
    assert_eq!(revisions(store.journal_of("k".into(), 9).await.unwrap()), [5], "kept as long as history");
    assert_eq!(revisions(store.journal_between(nth(1), nth(5), 9).await.unwrap()), [4, 5]);

    let lease = store.lease_grant(None, 60).await.unwrap();
    let op = Op::Put { key: "l".into(), value: "v".into(), lease: Some(lease.id) };
    store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    store.lease_revoke(lease.id).await.unwrap();
    let end = store.journal_of("l".into(), 1).await.unwrap().remove(0);
    assert_eq!((end.origin.user.as_str(), end.origin.verb.as_str()), ("system:store", "lease-revoke"));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let second = Store::open(Config::single(dir.path(), MemberId(1))).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    store.close().await;
    let other = Store::open(Config::single(dir.path(), MemberId(2))).await;
    assert!(matches!(other, Err(OpenError::Start { .. })), "it belongs to member 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let result = store.txn(put("k", &"x".repeat(5 << 20))).await;
    assert!(matches!(result, Err(KvError::TooLarge { .. })));
    assert_eq!(get(&store, "k").await, None);
    store.close().await;
}

/// One reader sleeps while another follows: the sleeper costs a bounded channel, and misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_is_caught_up_from_disk_and_delays_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::single(dir.path(), MemberId(1));
    config.limits.recent_events_bytes = 100_000;
    let store = Store::open(config).await.unwrap();
    let request = |start| WatchRequest { range: KeyRange::prefix("k/"), start: Some(nth(start)) };
    let mut slow = store.watch(request(1)).await.unwrap();
    let mut quick = store.watch(request(1)).await.unwrap();
    let value = "x".repeat(10_000);
    for n in 1..=300 {
        store.txn(put(&format!("k/{n}"), &value)).await.unwrap();
        assert_eq!(revision_of(&mut quick).await, nth(n).0);
    }
    let mut late = store.watch(request(100)).await.unwrap();
    for n in 100..=300 {
        assert_eq!(revision_of(&mut late).await, nth(n).0);
    }
    for n in 1..=300 {
        assert_eq!(revision_of(&mut slow).await, nth(n).0);
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_comes_on_request_after_all_events() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let request = |start| WatchRequest { range: KeyRange::prefix("k/"), start };
    let mut watch = store.watch(request(None)).await.unwrap();
    let future = store.watch(request(Some(Revision(1000)))).await.unwrap();
    for n in 1..=200 {
        store.txn(put(&format!("k/{n}"), "v")).await.unwrap();
    }
    watch.request_progress();
    future.request_progress();
    let mut seen = nth(0).0;
    loop {
        match tokio::time::timeout(Duration::from_secs(10), watch.recv()).await.unwrap().unwrap() {
            WatchMessage::Events { revision, .. } => {
                assert_eq!(revision.0, seen + 1);
                seen = revision.0;
            }
            WatchMessage::Progress(at) if at == nth(200) => break,
            WatchMessage::Progress(early) => assert_eq!(early.0, seen, "progress without its events"),
            WatchMessage::Compacted(at) => panic!("compacted at {at}"),
        }
    }
    assert_eq!(seen, nth(200).0);
    store.close().await;
    let mut future = future;
    assert!(future.recv().await.is_none(), "no progress below its start");
}

/// More than is read on the caller's task, in pages and whole, now and in the past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_range_is_one_moment_and_counted_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for batch in 0..10 {
        let op = |n| Op::Put { key: format!("k/{batch}/{n:03}").into(), value: "v".into(), lease: None };
        store.txn(Txn { success: (0..100).map(op).collect(), ..Txn::default() }).await.unwrap();
    }
    let all = RangeRequest::new(KeyRange::prefix("k/"));
    let read = |request: RangeRequest| async { store.range(request).await.unwrap() };
    let whole = read(all.clone()).await;
    assert_eq!((whole.kvs.len(), whole.count, whole.more), (1000, Some(1000), false));
    let page = read(RangeRequest { limit: 600, ..all.clone() }).await;
    assert_eq!((page.kvs.len(), page.count, page.more), (600, None, true));
    let counted = read(RangeRequest { limit: 10, count: true, ..all.clone() }).await;
    assert_eq!((counted.kvs.len(), counted.count, counted.more), (10, Some(1000), true));
    let past = read(RangeRequest { revision: Some(nth(5)), limit: 400, ..all.clone() }).await;
    assert_eq!((past.kvs.len(), past.count, past.more), (400, None, true));
    let past = read(RangeRequest { revision: Some(nth(5)), count_only: true, ..all }).await;
    assert_eq!((past.kvs.len(), past.count, past.more), (0, Some(500), false));
    store.close().await;
}
