//! A member is killed at each of the store's failpoints, alone, as a follower and as leader of three, under load:
//! nothing acknowledged is lost, and all members agree afterwards.
//!
//! `FAILPOINT=raft_after_save` tries only that name, `FAILPOINT_SEED=7` chooses the passages and the sample.
//! The ignored test tries every name at every place; `make soak` runs it.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::store::failpoints::{Place, Trial, names, of_tools, round};
use e2e::store::group::may_make_namespaces;
use e2e::store::random::Random;
use e2e::store::tools::{kill_checkpoint, kill_recovery, kill_restore};

/// So many deaths share a group and its history.
const ROUND: usize = 12;
/// Long leases are written down every five minutes: this one has a test of its own.
const SLOW: &str = "lease_before_checkpoint";
/// Names in the sample of every test run.
const SAMPLE: usize = 10;

fn seed() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    std::env::var("FAILPOINT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(clock % 1_000_000)
}

/// Tries these names at a place; returns those that were reached.
fn try_all(place: Place, names: &[String], seed: u64) -> BTreeSet<String> {
    let mut random = Random::stream(seed, 1);
    let mut trials: Vec<_> = names.iter().map(|name| Trial::new(name, place, &mut random)).collect();
    trials.sort_by_key(Trial::need);
    let alike = trials.chunk_by(|one, other| one.need() == other.need());
    let rounds = alike.flat_map(|trials| trials.chunks(ROUND)).map(|trials| round(place, trials, seed));
    let (reached, broken): (Vec<_>, Vec<_>) = rounds.partition(Result::is_ok);
    let broken: Vec<_> = broken.into_iter().filter_map(Result::err).flatten().collect();
    broken.iter().take(12).for_each(|what| println!("VIOLATION: {what}"));
    assert!(broken.is_empty(), "FAILPOINT_SEED={seed}: {} violations", broken.len());
    reached.into_iter().filter_map(Result::ok).flatten().collect()
}

#[test]
fn a_sample_of_failpoints_costs_nothing_acknowledged() {
    if !may_make_namespaces() {
        return;
    }
    let (seed, chosen) = (seed(), std::env::var("FAILPOINT").ok());
    println!("replay: FAILPOINT_SEED={seed} cargo test -p e2e --test failpoints -- --nocapture");
    let mut random = Random::stream(seed, 0);
    for place in Place::ALL {
        let mut here: Vec<_> = names().into_iter().filter(|name| place.has(name) && name != SLOW).collect();
        match &chosen {
            Some(chosen) => here.retain(|name| name == chosen),
            None => {
                while here.len() > SAMPLE / place_cost(place) {
                    here.remove(random.index(here.len()));
                }
            }
        }
        let reached = try_all(place, &here, seed);
        println!("{place:?}: {} of {} failpoints reached", reached.len(), here.len());
        assert!(
            here.is_empty() || !reached.is_empty(),
            "no failpoint was reached: is `amoeba` built with them?"
        );
    }
}

/// With three members a death takes longer.
fn place_cost(place: Place) -> usize {
    if place == Place::Alone { 1 } else { 3 }
}

#[test]
fn a_restore_or_recovery_that_is_killed_can_be_done_again() {
    if !may_make_namespaces() {
        return;
    }
    for name in names().iter().filter(|name| of_tools(name)) {
        println!("{name}");
        match name.starts_with("restore_") {
            true => kill_restore(name),
            false => kill_recovery(name),
        }
    }
}

#[test]
#[ignore = "takes many minutes; `make soak` runs it"]
fn every_failpoint_costs_nothing_acknowledged() {
    if !may_make_namespaces() {
        return;
    }
    let (seed, all) = (seed(), names());
    println!("replay: FAILPOINT_SEED={seed} cargo test -p e2e --test failpoints -- --ignored --nocapture");
    let mut reached = BTreeSet::new();
    for place in Place::ALL {
        let here: Vec<_> = all.iter().filter(|name| place.has(name) && *name != SLOW).cloned().collect();
        let hit = try_all(place, &here, seed);
        println!("{place:?}: {} of {} failpoints reached", hit.len(), here.len());
        reached.extend(hit);
    }
    let of_members: Vec<_> = all.iter().filter(|name| !of_tools(name) && *name != SLOW).collect();
    let unreached: Vec<_> = of_members.iter().filter(|name| !reached.contains(**name)).collect();
    println!("{} of {} failpoints of members reached; not: {unreached:?}", reached.len(), of_members.len());
    assert!(unreached.is_empty(), "not reached at any place: {unreached:?}");
}

#[test]
#[ignore = "waits for five minutes; `make soak` runs it"]
fn a_long_lease_survives_a_death_while_it_is_written_down() {
    if may_make_namespaces() {
        kill_checkpoint(SLOW);
    }
}
