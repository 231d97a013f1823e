//! Measurements, run by hand: `cargo test -p store --release measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::single::put;
use crate::kv::{KeyRange, Kv, LeaseId, MemberId, Op, Revision, Txn, WatchMessage, WatchRequest};
use crate::{Config, Store};

const WRITERS: usize = 64;
const WRITES: usize = 300;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, asserts nothing about time"]
async fn durable_writes_per_second_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let before = resident_kib();
    let begun = Instant::now();
    let store = Store::open(Config::single(dir.path(), MemberId(1))).await.unwrap();
    println!("opened in {:?}, {} KiB more", begun.elapsed(), resident_kib() - before);
    let value = "x".repeat(400);
    for writers in [1, WRITERS] {
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let (store, value) = (store.clone(), value.clone());
            tasks.spawn(async move {
                for n in 0..WRITES {
                    store.txn(put(&format!("{writer}/{n}"), &value)).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        let rate = (writers * WRITES) as f64 / begun.elapsed().as_secs_f64();
        println!("{writers} writers: {rate:.0} durable writes/s, {} KiB more", resident_kib() - before);
    }
    store.close().await;
}

/// Events delivered per second to watchers of one prefix, in this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, asserts nothing about time"]
async fn watch_deliveries_per_second() {
    const WATCHERS: u64 = 1000;
    const EVENTS: u64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::single(dir.path(), MemberId(1))).await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let request = WatchRequest { range: KeyRange::prefix("w/"), start: None };
        let mut watch = store.watch(request).await.unwrap();
        readers.spawn(async move {
            let mut seen = 0;
            while seen < EVENTS {
                match watch.recv().await.unwrap() {
                    WatchMessage::Events { events, .. } => seen += events.len() as u64,
                    WatchMessage::Progress(_) => {}
                    WatchMessage::Compacted(at) => panic!("compacted at {at}"),
                }
            }
        });
    }
    let (before, begun) = (resident_kib(), Instant::now());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..EVENTS / 16 {
                store.txn(put(&format!("w/{writer}/{n}"), "v")).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    println!("written in {:?}", begun.elapsed());
    readers.join_all().await;
    let rate = (WATCHERS * EVENTS) as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{WATCHERS} watchers: {rate:.0} deliveries/s, {} KiB more",
        resident_kib().saturating_sub(before)
    );
    store.close().await;
}

/// How late the last of 100,000 leases ends that all run out at once, each with a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; takes a minute"]
async fn a_hundred_thousand_leases_end() {
    const LEASES: u64 = 100_000;
    const TTL: Duration = Duration::from_secs(30);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::single(dir.path(), MemberId(1))).await.unwrap();
    let (before, begun) = (resident_kib(), Instant::now());
    let mut grants = tokio::task::JoinSet::new();
    for part in 0..256 {
        let store = store.clone();
        grants.spawn(async move {
            for n in (part..LEASES).step_by(256) {
                let id = LeaseId(n + 1);
                store.lease_grant(Some(id), TTL.as_secs()).await.unwrap();
                let op = Op::Put { key: format!("l/{n}").into(), value: "v".into(), lease: Some(id) };
                store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
            }
        });
    }
    grants.join_all().await;
    println!("granted in {:?}, {} KiB more", begun.elapsed(), resident_kib().saturating_sub(before));
    // All start again within a moment, so all end within a moment.
    let renewing = Instant::now();
    let mut renewals = tokio::task::JoinSet::new();
    for part in 0..256 {
        let store = store.clone();
        renewals.spawn(async move {
            for n in (part..LEASES).step_by(256) {
                store.lease_keep_alive(LeaseId(n + 1)).await.unwrap();
            }
        });
    }
    renewals.join_all().await;
    let (renewed, took) = (Instant::now(), renewing.elapsed());
    println!("renewed in {took:?}: {:.0} renewals/s", LEASES as f64 / took.as_secs_f64());
    let start = Some(Revision(store.status().revision.0 + 1));
    let mut watch = store.watch(WatchRequest { range: KeyRange::prefix("l/"), start }).await.unwrap();
    let mut ended = 0;
    while ended < LEASES {
        if let WatchMessage::Events { events, .. } = watch.recv().await.unwrap() {
            assert!(renewing.elapsed() >= TTL, "a lease ended early");
            ended += events.len() as u64;
        }
    }
    println!("the last ended {:?} after its time", renewed.elapsed().saturating_sub(TTL));
    assert!(store.leases().await.unwrap().is_empty());
    store.close().await;
}
