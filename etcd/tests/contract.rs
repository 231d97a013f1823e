//! What every implementation of the store's contract promises, held by all of them: the store, the model,
//! and the client of an etcd over our own server and over a real etcd.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{RealEtcd, Server};
use etcd::client::EtcdKv;
use store::kv::{
    Compare, CompareOp, EventKind, KeyRange, Kv, KvError, LeaseId, Op, OpResponse, RangeRequest, Revision,
    Target, Txn, TxnResponse, Watch, WatchMessage, WatchRequest,
};
use store::model::Model;

type Subject = Arc<dyn Kv>;

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned().into(), value: value.to_owned().into(), lease: None }
}

async fn write(kv: &Subject, success: Vec<Op>) -> TxnResponse {
    kv.txn(Txn { success, ..Txn::default() }).await.expect("a write")
}

async fn read(kv: &Subject, range: KeyRange) -> Vec<(String, String)> {
    let response = kv.range(RangeRequest::new(range)).await.expect("a read");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    response.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

async fn next(watch: &mut Watch) -> WatchMessage {
    let message = tokio::time::timeout(Duration::from_secs(10), watch.recv()).await;
    message.expect("a message within 10 s").expect("the watch goes on")
}

/// The next events, as `+key=value` and `-key`, with their revision.
async fn events(watch: &mut Watch) -> (Revision, Vec<String>) {
    loop {
        if let WatchMessage::Events { revision, events } = next(watch).await {
            let text = events.iter().map(|event| {
                let (key, value) = (&event.kv.key, &event.kv.value);
                let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
                match event.kind {
                    EventKind::Put => format!("+{key}={value}"),
                    EventKind::Delete => format!("-{key}"),
                }
            });
            return (revision, text.collect());
        }
    }
}

async fn revisions_and_versions(kv: &Subject) {
    let first = write(kv, vec![put("rv/a", "1")]).await.revision;
    let second = write(kv, vec![put("rv/a", "2"), put("rv/b", "1")]).await;
    assert_eq!(second.revision, Revision(first.0 + 1));
    let OpResponse::Put(Some(prev)) = &second.responses[0] else { panic!("a put tells what it replaced") };
    assert_eq!((prev.value.as_ref(), prev.mod_revision, prev.version), (&b"1"[..], first, 1));
    let response = kv.range(RangeRequest::new(KeyRange::prefix("rv/"))).await.expect("a read");
    assert_eq!((response.count, response.more, response.revision), (Some(2), false, second.revision));
    let a = &response.kvs[0];
    assert_eq!((a.create_revision, a.mod_revision, a.version), (first, second.revision, 2));
    let gone = write(kv, vec![Op::Delete(KeyRange::prefix("rv/"))]).await;
    let OpResponse::Delete(prev) = &gone.responses[0] else { panic!("a delete is answered by a delete") };
    assert_eq!(prev.len(), 2);
    let nothing = write(kv, vec![Op::Delete(KeyRange::prefix("rv/"))]).await;
    assert_eq!(nothing.revision, gone.revision, "what changes nothing has no revision of its own");
    write(kv, vec![put("rv/a", "3")]).await;
    let again = kv.range(RangeRequest::new(KeyRange::key("rv/a"))).await.expect("a read");
    assert_eq!(again.kvs[0].version, 1, "a new life begins at version 1");
}

async fn ranges(kv: &Subject) {
    write(kv, ["a", "b", "c", "d"].map(|k| put(&format!("rg/{k}"), k)).into()).await;
    let limited = RangeRequest { limit: 2, count: true, ..RangeRequest::new(KeyRange::prefix("rg/")) };
    let response = kv.range(limited.clone()).await.expect("a read");
    assert_eq!((response.kvs.len(), response.more, response.count), (2, true, Some(4)));
    let uncounted = RangeRequest { count: false, ..limited };
    assert_eq!(kv.range(uncounted).await.expect("a read").count, None);
    let counted = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::prefix("rg/")) };
    let response = kv.range(counted).await.expect("a read");
    assert_eq!((response.kvs.len(), response.count), (0, Some(4)));
    let keys = RangeRequest { keys_only: true, ..RangeRequest::new(KeyRange::between("rg/b", "rg/d")) };
    let response = kv.range(keys).await.expect("a read");
    assert_eq!(response.kvs.iter().map(|kv| kv.value.len()).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(read(kv, KeyRange::between("rg/d", "rg/b")).await, []);
    let from = KeyRange { start: "rg/d".into(), end: None };
    assert_eq!(read(kv, from).await.first(), Some(&("rg/d".into(), "d".into())));
}

async fn history(kv: &Subject) {
    let old = write(kv, vec![put("hi/a", "1")]).await.revision;
    let new = write(kv, vec![put("hi/a", "2"), put("hi/b", "1")]).await.revision;
    let at =
        |revision| RangeRequest { revision: Some(revision), ..RangeRequest::new(KeyRange::prefix("hi/")) };
    let then = kv.range(at(old)).await.expect("history is kept");
    assert_eq!((then.kvs.len(), then.kvs[0].value.as_ref(), then.revision), (1, &b"1"[..], new));
    let future = Revision(new.0 + 100);
    match kv.range(at(future)).await {
        Err(KvError::FutureRevision { requested, .. }) => assert_eq!(requested, future),
        other => panic!("{other:?}"),
    }
    kv.compact(new).await.expect("compaction");
    match kv.range(at(old)).await {
        Err(KvError::Compacted { requested, .. }) => assert_eq!(requested, old),
        other => panic!("{other:?}"),
    }
    assert!(matches!(kv.compact(new).await, Err(KvError::Compacted { .. })));
    assert!(matches!(kv.compact(future).await, Err(KvError::FutureRevision { .. })));
    let watched = WatchRequest { range: KeyRange::prefix("hi/"), start: Some(old) };
    assert!(matches!(kv.watch(watched).await, Err(KvError::Compacted { .. })));
}

fn compare(key: &str, op: CompareOp, target: Target) -> Compare {
    Compare { range: KeyRange::key(key.to_owned()), op, target }
}

async fn comparisons(kv: &Subject) {
    let revision = write(kv, vec![put("cm/a", "5")]).await.revision;
    use CompareOp::{Equal, Greater, Less, NotEqual};
    let cases = [
        (compare("cm/a", Equal, Target::Value("5".into())), true),
        (compare("cm/a", Less, Target::Value("6".into())), true),
        (compare("cm/a", Equal, Target::ModRevision(revision)), true),
        (compare("cm/a", Greater, Target::CreateRevision(revision)), false),
        (compare("cm/a", NotEqual, Target::Version(2)), true),
        (compare("cm/a", Equal, Target::Lease(None)), true),
        (compare("cm/none", Equal, Target::Value("".into())), false),
        (compare("cm/none", Equal, Target::Version(0)), true),
        (Compare::absent("cm/none"), true),
        (Compare::absent("cm/a"), false),
        (Compare { range: KeyRange::prefix("cm/"), op: Equal, target: Target::Version(1) }, true),
    ];
    for (compare, holds) in cases {
        let txn = Txn { compare: vec![compare.clone()], ..Txn::default() };
        assert_eq!(kv.txn(txn).await.expect("a comparison").succeeded, holds, "{compare:?}");
    }
}

async fn transactions(kv: &Subject) {
    write(kv, vec![put("tx/a", "1")]).await;
    let look = Op::Range(RangeRequest::new(KeyRange::prefix("tx/")));
    let nested = Txn {
        compare: vec![Compare::absent("tx/b")],
        success: vec![put("tx/b", "2"), look.clone()],
        failure: vec![],
        ..Txn::default()
    };
    let response = write(kv, vec![look.clone(), Op::Txn(Box::new(nested)), look]).await;
    let seen = |response: &OpResponse| match response {
        OpResponse::Range(range) => range.kvs.len(),
        other => panic!("{other:?}"),
    };
    let OpResponse::Txn(inner) = &response.responses[1] else { panic!("a nested answer") };
    assert!(inner.succeeded);
    assert_eq!(
        (seen(&response.responses[0]), seen(&inner.responses[1]), seen(&response.responses[2])),
        (1, 2, 2)
    );
    let twice = kv.txn(Txn { success: vec![put("tx/c", "1"), put("tx/c", "2")], ..Txn::default() }).await;
    assert!(matches!(twice, Err(KvError::DuplicateKey(_))), "{twice:?}");
    let empty = kv.txn(Txn { success: vec![put("", "1")], ..Txn::default() }).await;
    assert!(matches!(empty, Err(KvError::Invalid(_))), "{empty:?}");
}

async fn amendments(kv: &Subject) {
    let lease = kv.lease_grant(None, 60).await.expect("a lease").id;
    let attached = Op::Put { key: "am/a".into(), value: "1".into(), lease: Some(lease) };
    write(kv, vec![attached]).await;
    write(kv, vec![Op::Amend { key: "am/a".into(), value: Some("2".into()), lease: None }]).await;
    let kept = kv.range(RangeRequest::new(KeyRange::key("am/a"))).await.expect("a read");
    assert_eq!((kept.kvs[0].value.as_ref(), kept.kvs[0].lease), (&b"2"[..], Some(lease)));
    write(kv, vec![Op::Amend { key: "am/a".into(), value: None, lease: Some(None) }]).await;
    let kept = kv.range(RangeRequest::new(KeyRange::key("am/a"))).await.expect("a read");
    assert_eq!((kept.kvs[0].value.as_ref(), kept.kvs[0].lease), (&b"2"[..], None));
    let missing = Op::Amend { key: "am/none".into(), value: None, lease: Some(None) };
    let missing = kv.txn(Txn { success: vec![missing], ..Txn::default() }).await;
    assert!(matches!(&missing, Err(KvError::KeyNotFound(key)) if key == "am/none"), "{missing:?}");
}

async fn leases(kv: &Subject) {
    let id = LeaseId(0x5eed);
    assert_eq!(kv.lease_grant(Some(id), 60).await.expect("a lease").id, id);
    assert!(matches!(kv.lease_grant(Some(id), 60).await, Err(KvError::LeaseExists(_))));
    write(kv, vec![Op::Put { key: "le/a".into(), value: "1".into(), lease: Some(id) }]).await;
    assert_eq!(kv.lease_keep_alive(id).await.expect("it lives").ttl_seconds, 60);
    let info = kv.lease_info(id).await.expect("it lives");
    assert_eq!((info.granted_ttl_seconds, info.keys), (60, vec!["le/a".into()]));
    assert!(info.remaining > Duration::from_secs(50) && info.remaining <= Duration::from_secs(60));
    assert!(kv.leases().await.expect("a list").contains(&id));
    kv.lease_revoke(id).await.expect("it lives");
    assert_eq!(read(kv, KeyRange::key("le/a")).await, []);
    assert!(matches!(kv.lease_keep_alive(id).await, Err(KvError::LeaseNotFound(_))));
    assert!(matches!(kv.lease_info(id).await, Err(KvError::LeaseNotFound(_))));
    assert!(matches!(kv.lease_revoke(id).await, Err(KvError::LeaseNotFound(_))));
    let attach = Op::Put { key: "le/b".into(), value: "1".into(), lease: Some(id) };
    let attached = kv.txn(Txn { success: vec![attach], ..Txn::default() }).await;
    assert!(matches!(attached, Err(KvError::LeaseNotFound(found)) if found == id), "{attached:?}");
}

async fn watches(kv: &Subject) {
    let before = write(kv, vec![put("wa/a", "1")]).await.revision;
    let watched = |start| WatchRequest { range: KeyRange::prefix("wa/"), start };
    let mut live = kv.watch(watched(None)).await.expect("a watch");
    let mut past = kv.watch(watched(Some(before))).await.expect("a watch");
    let both = write(kv, vec![put("wa/a", "2"), put("wa/b", "1"), put("elsewhere", "1")]).await.revision;
    let gone = write(kv, vec![Op::Delete(KeyRange::key("wa/a"))]).await.revision;
    assert_eq!(events(&mut past).await, (before, vec!["+wa/a=1".to_owned()]));
    for watch in [&mut live, &mut past] {
        assert_eq!(events(watch).await, (both, vec!["+wa/a=2".into(), "+wa/b=1".into()]));
    }
    let WatchMessage::Events { revision, events: last } = next_events(&mut live).await else {
        unreachable!()
    };
    assert_eq!(revision, gone);
    let prev = last[0].prev.as_ref().map(|kv| kv.value.clone());
    assert_eq!((last[0].kv.mod_revision, prev), (gone, Some("2".into())));
    let future = Revision(gone.0 + 2);
    let mut later = kv.watch(watched(Some(future))).await.expect("a watch of the future");
    write(kv, vec![put("wa/a", "early")]).await;
    write(kv, vec![put("wa/a", "late")]).await;
    assert_eq!(events(&mut later).await, (future, vec!["+wa/a=late".to_owned()]));
}

async fn next_events(watch: &mut Watch) -> WatchMessage {
    loop {
        let message = next(watch).await;
        if matches!(message, WatchMessage::Events { .. }) {
            return message;
        }
    }
}

async fn progress(kv: &Subject) {
    let request = WatchRequest { range: KeyRange::prefix("pr/"), start: None };
    let mut watch = kv.watch(request).await.expect("a watch");
    let revision = write(kv, vec![put("elsewhere", "2")]).await.revision;
    watch.request_progress();
    loop {
        match next(&mut watch).await {
            WatchMessage::Progress(reached) if reached >= revision => return,
            WatchMessage::Progress(_) => watch.request_progress(),
            other => panic!("{other:?}"),
        }
    }
}

async fn everything(kv: Subject) {
    revisions_and_versions(&kv).await;
    ranges(&kv).await;
    comparisons(&kv).await;
    transactions(&kv).await;
    amendments(&kv).await;
    leases(&kv).await;
    watches(&kv).await;
    history(&kv).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_keeps_the_contract() {
    let model: Subject = Arc::new(Model::new());
    everything(model.clone()).await;
    progress(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_the_contract() {
    let server = Server::start().await;
    let store: Subject = Arc::new(server.store.clone());
    everything(store.clone()).await;
    progress(&store).await;
    drop(store);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_our_server_keeps_the_contract() {
    let server = Server::start().await;
    let client = EtcdKv::connect(vec![server.endpoint()], None).await.expect("it connects");
    let client: Subject = Arc::new(client);
    everything(client.clone()).await;
    progress(&client).await;
    drop(client);
    server.stop().await;
}

/// Without progress on request: this etcd is too old to order it with events.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_real_etcd_keeps_the_contract() {
    let etcd = RealEtcd::start().await;
    let client = EtcdKv::connect(vec![etcd.endpoint.clone()], None).await.expect("it connects");
    everything(Arc::new(client)).await;
}
