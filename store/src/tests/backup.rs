//! Backups: what is restored is what was there, on each member alike, and a damaged one is refused.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::single::{get, put};
use crate::backup::{self, BackupError, Manifest, RestoreOptions};
use crate::kv::{KeyRange, Kv, KvError, LeaseId, MemberId, Op, RangeRequest, Revision, Txn, WatchRequest};
use crate::mvcc::family::Family;
use crate::mvcc::view::ReadView;
use crate::recovery::{self, NewCluster};
use crate::rocks::Rocks;
use crate::{ClusterId, Config, Limits, OpenError, Store};

const BUMP: u64 = backup::BUMP_REVISION;

async fn save(store: &Store, path: &Path) -> Manifest {
    let mut backup = store.backup().await.unwrap();
    let mut file = tokio::fs::File::create(path).await.unwrap();
    while let Some(block) = backup.blocks.recv().await {
        file.write_all(&block.unwrap()).await.unwrap();
    }
    file.sync_all().await.unwrap();
    backup.manifest
}

/// A store with a compaction behind it, a lease, and writers that go on while it is saved.
async fn saved(dir: &Path) -> (Manifest, Vec<(String, Revision)>) {
    let store = Store::open(Config::single(dir.join("old"), MemberId(1))).await.unwrap();
    for n in 0..200 {
        store.txn(put(&format!("k{}", n % 50), &format!("{n}{}", "v".repeat(2000)))).await.unwrap();
    }
    store.compact(Revision(120)).await.unwrap();
    store.lease_grant(Some(LeaseId(77)), 3600).await.unwrap();
    let op = Op::Put { key: "leased".into(), value: "v".into(), lease: Some(LeaseId(77)) };
    store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    let writer = async {
        let mut written = Vec::new();
        for n in 0..100 {
            let key = format!("during{n}");
            written.push((key.clone(), store.txn(put(&key, "x")).await.unwrap().revision));
        }
        written
    };
    let file = dir.join("file");
    let (manifest, written) = tokio::join!(save(&store, &file), writer);
    store.close().await;
    (manifest, written)
}

fn options(dir: &Path, id: u64) -> RestoreOptions {
    let peers = (1..=3).map(|id| (MemberId(id), format!("127.0.0.1:{}", 20_000 + id))).collect();
    RestoreOptions {
        dir: dir.join(format!("new{id}")),
        id: MemberId(id),
        cluster: ClusterId(99),
        peers,
        bump_revision: BUMP,
        mark_compacted: true,
    }
}

fn records(dir: &Path) -> BTreeMap<(Family, Vec<u8>), Bytes> {
    let rocks = Rocks::open(&dir.join("db"), &dir.join("snapshots"), &Limits::default()).unwrap();
    let mut all = BTreeMap::new();
    for family in Family::REPLICATED {
        let mut visit = |key: &[u8], value: &[u8]| {
            all.insert((family, key.to_vec()), Bytes::copy_from_slice(value));
            Ok(ControlFlow::Continue(()))
        };
        rocks.scan(family, &[], None, &mut visit).unwrap();
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment_and_restores_alike_on_all_members() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, written) = saved(dir.path()).await;
    let file = dir.path().join("file");
    assert_eq!(backup::verify(&file).unwrap(), manifest);
    for id in 1..=3 {
        let restored = backup::restore(&file, &options(dir.path(), id)).unwrap();
        assert_eq!(restored.revision.0, manifest.revision.0 + BUMP);
        assert_eq!(restored.compacted, restored.revision);
    }
    let again = backup::restore(&file, &options(dir.path(), 1));
    assert!(matches!(again, Err(BackupError::NotEmpty { .. })));
    let first = records(&dir.path().join("new1"));
    assert!(first.len() > 50);
    assert_eq!(first, records(&dir.path().join("new2")));
    assert_eq!(first, records(&dir.path().join("new3")));
    let alone = RestoreOptions {
        dir: dir.path().join("alone"),
        peers: BTreeMap::from([(MemberId(1), String::new())]),
        ..options(dir.path(), 1)
    };
    let restored = backup::restore(&file, &alone).unwrap();
    let config = Config { cluster: Some(ClusterId(99)), ..Config::single(&alone.dir, MemberId(1)) };
    let store = Store::open(config).await.unwrap();
    for (key, revision) in &written {
        assert_eq!(get(&store, key).await.is_some(), *revision <= manifest.revision, "{key} at {revision}");
    }
    assert_eq!(get(&store, "k7").await.unwrap(), format!("157{}", "v".repeat(2000)));
    old_watchers_are_told_to_read_again(&store, &manifest).await;
    assert!(store.lease_info(LeaseId(77)).await.unwrap().remaining > Duration::from_secs(3500));
    let next = store.txn(put("new", "1")).await.unwrap();
    assert_eq!(next.revision.0, restored.revision.0 + 1);
    let fresh = store.lease_grant(None, 60).await.unwrap();
    assert_ne!(fresh.id, LeaseId(77));
    store.close().await;
}

async fn old_watchers_are_told_to_read_again(store: &Store, manifest: &Manifest) {
    let request = WatchRequest { range: KeyRange::prefix(""), start: Some(manifest.revision) };
    assert!(matches!(store.watch(request).await, Err(KvError::Compacted { .. })));
    let mut read = RangeRequest::new(KeyRange::key("k7"));
    read.revision = Some(manifest.revision);
    assert!(matches!(store.range(read).await, Err(KvError::Compacted { .. })));
}

#[test]
fn a_damaged_backup_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(saved(dir.path()));
    let whole = std::fs::read(dir.path().join("file")).unwrap();
    let bad = dir.path().join("bad");
    let refused = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        backup::verify(&bad).is_err() && backup::restore(&bad, &options(dir.path(), 1)).is_err()
    };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let damage = (0..whole.len(), 1..=255u8, any::<bool>());
    runner
        .run(&damage, |(at, mask, cut)| {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(at)
            } else {
                bytes[at] ^= mask
            }
            prop_assert!(refused(&bytes), "byte {} of {}", at, whole.len());
            Ok(())
        })
        .unwrap();
    assert!(refused(&[&whole[..], b"x"].concat()), "a longer one");
    assert!(!dir.path().join("new1").exists() && !dir.path().join("new1.restoring").exists());
    std::fs::write(&bad, &whole).unwrap();
    let same = RestoreOptions { cluster: backup::verify(&bad).unwrap().cluster, ..options(dir.path(), 1) };
    assert!(matches!(backup::restore(&bad, &same), Err(BackupError::Options(_))), "the old cluster's id");
}

/// The two other members of a restored group of three are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_alone_and_is_a_stranger_to_the_lost() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path()).await;
    let restored = backup::restore(&dir.path().join("file"), &options(dir.path(), 1)).unwrap();
    let survivor = dir.path().join("new1");
    let wanted = NewCluster { id: None, cluster: ClusterId(6), bump_revision: BUMP, mark_compacted: true };
    let running = crate::store::lock_dir(&survivor).unwrap();
    assert!(recovery::force_new_cluster(&survivor, &wanted).is_err(), "it runs");
    drop(running);
    let same = NewCluster { cluster: ClusterId(99), ..wanted.clone() };
    assert!(recovery::force_new_cluster(&survivor, &same).is_err(), "the old cluster's id");
    let report = recovery::force_new_cluster(&survivor, &wanted).unwrap();
    assert_eq!((report.old_cluster, report.old_voters), (ClusterId(99), [1, 2, 3].map(MemberId).to_vec()));
    assert_eq!((report.old_revision, report.revision.0), (restored.revision, restored.revision.0 + BUMP));
    assert!(report.last >= report.committed);
    let old = Config { cluster: Some(ClusterId(99)), ..Config::single(&survivor, MemberId(1)) };
    assert!(matches!(Store::open(old.clone()).await, Err(OpenError::Start { .. })), "as the old cluster's");
    let store = Store::open(Config { cluster: Some(ClusterId(6)), ..old }).await.unwrap();
    assert_eq!(get(&store, "k7").await.unwrap(), format!("157{}", "v".repeat(2000)));
    assert_eq!(store.txn(put("k", "x")).await.unwrap().revision.0, report.revision.0 + 1);
    store.close().await;
}
