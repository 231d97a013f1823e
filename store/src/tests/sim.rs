//! Seeded simulation of a group: the real [`crate::raft::replica::Replica`] and [`crate::watch::hub::Hub`]
//! over disks that lose unsynced writes and a network that loses, delays, doubles and reorders messages.
//! Members crash, stand still and have wrong clocks; clients read, write, hold leases and watch.
//!
//! - [`plan`]: seed → faults and workload; [`faults`] makes them happen in a [`world`] of [`clients`],
//!   [`watchers`], a [`network`] and [`disk`]s.
//! - [`oracle`]: the members' log, merged and replayed ([`replay`]) against every answer and event; the
//!   operations on each key in some order ([`registers`], [`crate::proof::linearizable`]); the nine
//!   guarantees of every watch ([`crate::proof::watch`]); leases; invariants of Raft.
//! - [`run`]: on all cores; a failure is shrunk and printed with the command that replays it.
//!
//! `SIM_SEEDS=200000 cargo test -p store sim` runs more; `SIM_SEED=7 cargo test -p store sim -- --nocapture`
//! runs one again, `SIM_FAULTS=0,3` only these of its faults, and `SIM_TRACE=1` tells every message.

mod clients;
pub mod disk;
mod faults;
mod network;
pub mod node;
mod oracle;
mod plan;
mod random;
mod registers;
mod replay;
mod run;
mod summary;
mod turn;
mod verdict;
mod watchers;
mod world;

pub use run::{Found, hunt};

use plan::Plan;

/// Schedules in an ordinary test run.
const SEEDS: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The plan that the environment asks for.
fn chosen() -> Option<Plan> {
    let plan = Plan::new(number("SIM_SEED")?);
    let Ok(faults) = std::env::var("SIM_FAULTS") else { return Some(plan) };
    Some(plan.only(&faults.split(',').filter_map(|at| at.parse().ok()).collect::<Vec<_>>()))
}

#[test]
fn a_group_keeps_its_promises_under_faults() {
    if let Some(plan) = chosen() {
        println!("seed {}: {plan}", plan.seed);
        match run::run(&plan, None) {
            Ok(summary) => println!("{summary:#?}"),
            Err(violation) => panic!("{}", run::shrink(&plan, violation, None).report()),
        }
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let total = run::prove(first..first + count);
    // A simulation in which nothing happens proves nothing.
    assert!(total.writes > 20 * count && total.reads > 10 * count && total.events > 20 * count, "{total:#?}");
    assert!(total.crashes > count && total.leaders > 2 * count && total.installs > count / 10, "{total:#?}");
    assert!(total.lost_disks > count / 20, "{total:#?}");
    assert!(total.expired > count / 10 && total.compactions > count / 2, "{total:#?}");
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in 0..20 {
        let plan = Plan::new(seed);
        assert_eq!(run::run(&plan, None), run::run(&plan, None));
    }
}
