//! The tests of the tests: every seeded bug of [`crate::bug`] is found by the simulation.

use std::sync::Mutex;

use super::sim::{self, Found};
use crate::bug::Bug;

/// Schedules after which a bug counts as missed.
const MOST: u64 = 10_000;

/// Hunts all bugs on all cores.
fn hunt_all() -> Vec<(Bug, Option<Found>)> {
    let left = Mutex::new(Bug::ALL.to_vec());
    let found = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(bug) = left.lock().expect("no thread panics").pop() else { break };
            let result = sim::hunt(bug, MOST);
            found.lock().expect("no thread panics").push((bug, result));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().expect("no thread panics")
}

#[test]
fn every_seeded_bug_is_caught() {
    let mut found = hunt_all();
    found.sort_by_key(|(bug, _)| *bug as usize);
    for (bug, found) in &found {
        match found {
            Some(Found { schedules, violation }) => {
                let what: String = violation.what.chars().take(90).collect();
                println!("{bug:?}: {} — after {schedules}, {:?}: {what}", bug.what(), violation.judge);
            }
            None => println!("{bug:?}: {} — MISSED in {MOST} schedules", bug.what()),
        }
    }
    let missed: Vec<Bug> = found.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "missed: {missed:?}");
    assert_eq!(found.len(), Bug::ALL.len());
}
