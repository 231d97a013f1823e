//! Random faults against three real members, each in a network namespace of its own, judged by etcd's promises.
//!
//! The seed makes the plan, and the plan is printed before it begins. `FAULT_SEED=7 cargo test -p e2e --test
//! store_faults -- --nocapture` does one again; `FAULT_SEEDS=30` does so many, one after the other, from
//! `FAULT_SEED` on, each for `FAULT_SECONDS`. `STORE_UNDER_TEST=etcd` judges stock etcd instead. The times of
//! the processes themselves are not the seed's, so a rare failure may need several runs of its seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::store::group::{Program, may_make_namespaces};
use e2e::store::schedule;

/// One of each theme.
const SEEDS: u64 = 4;
const SECONDS: u64 = 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn random_faults_break_no_promise() {
    if !may_make_namespaces() {
        return;
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let first = number("FAULT_SEED");
    let seeds = number("FAULT_SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(clock % 1_000_000);
    let length = Duration::from_secs(number("FAULT_SECONDS").unwrap_or(SECONDS));
    let mut broken = Vec::new();
    for seed in first..first + seeds {
        match schedule::run(Program::chosen(), seed, length) {
            Ok(counts) => {
                assert!(counts.revisions > 20 && counts.events > 100, "nothing happened: {counts:?}")
            }
            Err(violations) => {
                violations.iter().take(12).for_each(|what| println!("VIOLATION (seed {seed}): {what}"));
                broken.push(seed);
            }
        }
    }
    println!("{seeds} fault schedules, {} with violations: {broken:?}", broken.len());
    assert!(broken.is_empty(), "seeds {broken:?} broke promises");
}
