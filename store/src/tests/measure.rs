//! Measurements, run by hand: `cargo test -p store --release measure -- --ignored --nocapture`.

use std::time::Instant;

use super::single::put;
use crate::kv::{Kv, MemberId};
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
