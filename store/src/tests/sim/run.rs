//! Running plans: one, many on all cores, and the shrinking of one that fails.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::plan::Plan;
use super::summary::Summary;
use super::verdict::{Violation, judge};
use super::world::World;
use crate::bug::{self, Bug};

/// Runs of a plan while it is shrunk.
const MAX_SHRINKING: usize = 400;

/// Runs a plan on a store with `bug`, or on the real one.
pub fn run(plan: &Plan, bug: Option<Bug>) -> Result<Summary, Violation> {
    judge(|| bug::with(bug, || World::new(plan.clone()).run()))
}

/// A plan that fails, with as few faults as could be found.
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
    plan: Plan,
    kept: Vec<usize>,
    shrunk: Plan,
}

impl Failure {
    /// What to read and what to type.
    pub fn report(&self) -> String {
        let mut out = String::new();
        let Self { seed, violation, plan, kept, shrunk } = self;
        let faults: Vec<String> = kept.iter().map(usize::to_string).collect();
        let _infallible = writeln!(
            out,
            "seed {seed} fails: {violation}\n{} of its {} faults are enough:\n{shrunk}\
             replay: SIM_SEED={seed} SIM_FAULTS={} cargo test -p store sim -- --nocapture  (SIM_TRACE=1 tells all)",
            kept.len(),
            plan.faults.len(),
            if faults.is_empty() { "none".into() } else { faults.join(",") },
        );
        out
    }
}

/// Leaves out faults, first many at once, while the same oracle still objects.
pub fn shrink(plan: &Plan, violation: Violation, bug: Option<Bug>) -> Failure {
    let mut kept: Vec<usize> = (0..plan.faults.len()).collect();
    let mut newest = violation;
    let (mut chunk, mut runs) = (kept.len().max(1), 0);
    while runs < MAX_SHRINKING {
        let mut from = 0;
        let mut removed = false;
        while from < kept.len() && runs < MAX_SHRINKING {
            let to = (from + chunk).min(kept.len());
            let candidate: Vec<usize> = kept[..from].iter().chain(&kept[to..]).copied().collect();
            runs += 1;
            match run(&plan.only(&candidate), bug) {
                Err(violation) if violation.judge == newest.judge => {
                    (kept, newest, removed) = (candidate, violation, true);
                }
                _ => from = to,
            }
        }
        if chunk == 1 && !removed {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    Failure { seed: plan.seed, violation: newest, shrunk: plan.only(&kept), plan: plan.clone(), kept }
}

/// Runs all `seeds` on `threads` threads; the first failure ends it.
pub fn run_many(
    seeds: std::ops::Range<u64>,
    threads: usize,
    bug: Option<Bug>,
) -> Result<Summary, (Summary, Violation, u64)> {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Summary::default());
    let failed: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    let work = || {
        let mut sum = Summary::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match run(&Plan::new(seed), bug) {
                Ok(summary) => sum.add(&summary),
                Err(violation) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    let mut failed = failed.lock().expect("no thread panics");
                    // The lowest seed that was tried counts: so one thread or many find the same.
                    if failed.as_ref().is_none_or(|(first, _)| seed < *first) {
                        *failed = Some((seed, violation));
                    }
                }
            }
        }
        total.lock().expect("no thread panics").add(&sum);
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let total = total.into_inner().expect("no thread panics");
    match failed.into_inner().expect("no thread panics") {
        Some((seed, violation)) => Err((total, violation, seed)),
        None => Ok(total),
    }
}

/// Runs all seeds on all cores, and fails with a shrunk plan.
pub fn prove(seeds: std::ops::Range<u64>) -> Summary {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (begun, count) = (Instant::now(), seeds.end - seeds.start);
    match run_many(seeds, threads, None) {
        Ok(total) => {
            let rate = count as f64 / begun.elapsed().as_secs_f64();
            println!("{count} schedules, {rate:.0} a second on {threads} threads: {total:#?}");
            total
        }
        Err((_, violation, seed)) => panic!("{}", shrink(&Plan::new(seed), violation, None).report()),
    }
}

/// What became of a hunt.
pub struct Found {
    pub schedules: u64,
    pub violation: Violation,
}

/// Runs seeds one after another until an oracle objects to `bug`.
pub fn hunt(bug: Bug, most: u64) -> Option<Found> {
    (0..most).find_map(|seed| {
        let violation = run(&Plan::new(seed), Some(bug)).err()?;
        Some(Found { schedules: seed + 1, violation })
    })
}
