//! Snapshots on real databases: whole or not at all, beside everything else.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::group::{tls, write};
use super::growth::retry;
use super::network::Network;
use super::single::get;
use crate::config::Limits;
use crate::disk::{Disk, Durability};
use crate::kv::{Kv, MemberId};
use crate::mvcc::family::Family;
use crate::mvcc::view::{Batch, DiskError, ReadView};
use crate::raft::replica::{Fatal, Input, Now};
use crate::rocks::Rocks;
use crate::snapshot::incoming::{self, Arriving, Unstored};
use crate::snapshot::offer::Offers;
use crate::{Config, Join, Store, snapshot};

type Records = Vec<(Family, Vec<u8>, Bytes)>;

fn open(dir: &Path) -> Rocks {
    std::fs::create_dir_all(dir.join("snapshots")).unwrap();
    Rocks::open(&dir.join("db"), &dir.join("snapshots"), &Limits::default()).unwrap()
}

/// A database with `count` records in each of two families.
fn filled(dir: &Path, word: &str, count: u32) -> Rocks {
    let rocks = open(dir);
    let mut batch = Batch::default();
    for n in 0..count {
        batch.put(Family::Latest, format!("{word}/{n:06}").into_bytes(), Bytes::from(vec![7; 200]));
        batch.put(Family::Meta, format!("{word}/{n:06}").into_bytes(), Bytes::from(format!("{word} {n}")));
    }
    batch.put(Family::Log, *b"entry", Bytes::from_static(b"of the log"));
    rocks.write(&batch, Durability::Synced).unwrap();
    rocks
}

fn records(view: &impl ReadView) -> Records {
    let mut records = Records::new();
    for family in Family::REPLICATED {
        let mut visit = |key: &[u8], value: &[u8]| {
            records.push((family, key.to_vec(), Bytes::copy_from_slice(value)));
            Ok(ControlFlow::Continue(()))
        };
        view.scan(family, &[], None, &mut visit).unwrap();
    }
    records
}

fn encoded(view: &impl ReadView) -> Vec<u8> {
    let mut out = Vec::new();
    let mut collect = |block: &[u8]| {
        out.extend_from_slice(block);
        Ok(())
    };
    snapshot::encode(view, &mut collect).unwrap();
    out
}

#[test]
fn tables_replace_everything_and_who_reads_keeps_what_it_saw() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = filled(from.path(), "new", 5000);
    let target = filled(to.path(), "old", 300);
    let before = records(&target);
    let reader = target.view();
    for name in ["in-1", "in-2"] {
        let incoming_dir = to.path().join("snapshots").join(name);
        incoming::store(&incoming_dir, &encoded(&source.view())[..]).unwrap();
        let mut last = Batch::default();
        last.put(Family::Raft, *b"after", Bytes::from_static(name.as_bytes()));
        target.install(name.as_bytes(), &last).unwrap();
        assert_eq!(records(&target), records(&source));
        assert_eq!(target.get(Family::Raft, b"after").unwrap().unwrap(), name);
        assert_eq!(target.get(Family::Log, b"entry").unwrap(), None, "the log begins anew");
        assert!(!incoming_dir.exists(), "nothing is left");
    }
    assert_eq!(records(&reader), before);
    drop(reader);
    drop(target);
    assert_eq!(records(&open(to.path())), records(&source), "and after a restart");
}

#[test]
fn a_damaged_or_torn_snapshot_is_refused_before_anything_is_touched() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = encoded(&filled(from.path(), "new", 40).view());
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let flipped = incoming::store(&to.path().join(format!("flip-{at}")), &damaged[..]);
        assert!(matches!(flipped, Err(Unstored::Broken(_))), "byte {at}: {flipped:?}");
        let cut = incoming::store(&to.path().join(format!("cut-{at}")), &whole[..at]);
        assert!(matches!(cut, Err(Unstored::Broken(_))), "cut at {at}: {cut:?}");
    }
    let target = filled(to.path(), "old", 10);
    let before = records(&target);
    assert!(target.install(b"nothing-came", &Batch::default()).is_err());
    assert_eq!(records(&target), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_moment_is_streamed_to_several_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = filled(dir.path(), "a", 3000);
    let expected = encoded(&rocks.view());
    let offers = Offers::default();
    offers.keep("moment".into(), rocks.clone()).unwrap();
    let mut more = Batch::default();
    more.put(Family::Meta, *b"later", Bytes::new());
    rocks.write(&more, Durability::Later).unwrap();
    assert!(offers.open("another").is_none());
    let mut streams = vec![offers.open("moment").unwrap(), offers.open("moment").unwrap()];
    let abandoned = offers.open("moment").unwrap();
    for stream in &mut streams {
        let mut got: Vec<u8> = Vec::new();
        while let Some(block) = stream.recv().await {
            got.extend_from_slice(&block.unwrap());
        }
        assert!(got == expected, "{} bytes, not {}", got.len(), expected.len());
    }
    drop(abandoned);
    tokio::task::spawn_blocking(move || offers.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_early_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (blocks, arriving) = tokio::sync::mpsc::channel(4);
    let whole = encoded(&filled(&dir.path().join("from"), "a", 3000).view());
    let path = dir.path().join("in");
    let storing = tokio::task::spawn_blocking(move || incoming::store(&path, Arriving::new(arriving)));
    blocks.send(Bytes::copy_from_slice(&whole[..whole.len() / 2])).await.unwrap();
    drop(blocks);
    let error = storing.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Unstored::Broken(DiskError::Engine { operation: "read the snapshot", .. })),
        "{error}"
    );
}

/// The log keeps 50 entries, and the snapshot takes seconds: who joins must be caught up all the same, and
/// nobody else may wait for it. How much is written meanwhile is fixed: who writes without end and faster than
/// a snapshot is allowed to travel needs a new one each time the log's last bound is reached, by design.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_by_a_slow_snapshot_while_everything_goes_on() {
    let tls = tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (first_dir, second_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = MemberId(1);
    let peers = BTreeMap::from([(id, address.clone())]);
    let mut config = Config::group(first_dir.path(), id, peers, Some(tls.clone()));
    config.limits.log_keep_entries = 50;
    config.limits.snapshot_bytes_per_second = 3 << 20;
    let store = Store::open_with(config, Some(listener)).await.unwrap();
    let value = "v".repeat(20_000);
    for n in 0..300 {
        write(&store, &format!("big/{n}"), &value).await;
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let learner = store.member_add(&own, true).await.unwrap().id;
    let join = Join { members: vec![address], peer_address: own };
    let joined =
        Store::open_with(Config::join(second_dir.path(), join, Some(tls)), Some(listener)).await.unwrap();
    // Side by side, so that they are over soon even where each sync takes long: eight times what the log keeps.
    let mut writers = JoinSet::new();
    for n in 0..400 {
        let store = store.clone();
        writers.spawn(async move { write(&store, &format!("k/{n}"), "v").await });
    }
    writers.join_all().await;
    println!("the joiner was at entry {} when all was written", joined.status().applied_index);
    retry(|| store.member_promote(learner)).await;
    assert_eq!(get(&joined, "big/299").await.unwrap().len(), value.len());
    for n in 0..400 {
        assert_eq!(get(&joined, &format!("k/{n}")).await.unwrap(), "v");
    }
    joined.close().await;
    store.stop().await;
}

#[test]
fn a_disk_that_fails_a_snapshot_ends_the_member() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = encoded(&filled(from.path(), "new", 1).view());
    let failed = incoming::store(&to.path().join("missing/in"), &whole[..]);
    let Err(Unstored::Disk(error)) = failed else { panic!("{failed:?}") };
    let mut member = Network::new(1, 7).members.remove(0);
    let now = Now { mono: Duration::ZERO, wall_ms: 0 };
    let ended = member.handle(now, [Input::DiskFailed(error)], &mut |_| {});
    assert!(matches!(ended, Err(Fatal::Disk(_))));
}
