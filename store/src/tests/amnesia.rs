//! Members that start with an empty directory in the place of the one that they have lost, or with an old one.

use std::collections::BTreeSet;

use super::network::{ELECTION_TICKS, Network};
use crate::bug::{self, Bug};
use crate::kv::MemberId;

/// A leader, one that has what the leader has, and one that has fallen behind.
fn one_behind(seed: u64) -> (Network, [MemberId; 3]) {
    let (mut network, leader) = Network::settled(3, seed);
    let (keeps_up, behind) = (MemberId(leader.0 % 3 + 1), MemberId((leader.0 + 1) % 3 + 1));
    assert!(network.writes(leader));
    network.cut = BTreeSet::from([(leader.0, behind.0), (keeps_up.0, behind.0)]);
    assert!(network.writes(leader));
    (network, [leader, keeps_up, behind])
}

/// The leader stands still, and who has acknowledged its last write loses its disk. Whether the one that lacks
/// the write becomes leader.
fn the_one_behind_leads(seed: u64) -> bool {
    let (mut network, [leader, forgetful, behind]) = one_behind(seed);
    network.gone.insert(leader);
    network.cut.clear();
    network.lose_disk(forgetful);
    (0..20 * ELECTION_TICKS).for_each(|_| network.tick());
    network.leader() == Some(behind)
}

#[test]
fn who_has_lost_its_directory_makes_nobody_leader_who_lacks_what_it_acknowledged() {
    for seed in 0..20 {
        assert!(!the_one_behind_leads(seed), "seed {seed}");
    }
    let fooled = bug::with(Some(Bug::ForgottenVoterVotes), || {
        (0..20).filter(|seed| the_one_behind_leads(*seed)).count()
    });
    assert!(fooled > 0, "without the protection it happens");
}

#[test]
fn who_has_lost_its_directory_is_fenced_and_can_be_replaced() {
    for seed in 0..10 {
        let (mut network, leader) = Network::settled(3, seed);
        assert!(network.writes(leader));
        let forgetful = MemberId(leader.0 % 3 + 1);
        network.lose_disk(forgetful);
        network.until(4, |network| network.fenced.contains(&forgetful));
        assert!(network.writes(leader), "seed {seed}");
        network.remove(leader, forgetful);
        network.until(4 * ELECTION_TICKS as u32, |network| {
            network.member(leader).membership().was_removed(forgetful)
        });
        let new = network.add_learner(leader);
        network.until(4 * ELECTION_TICKS as u32, |network| {
            network.member(new).membership().get(new).is_some_and(|own| own.incarnation != 0)
        });
        assert!(network.writes(new), "seed {seed}: it forwards to the leader");
    }
}

#[test]
fn who_joined_and_lost_its_directory_is_recognised_even_by_those_whom_it_never_met() {
    let (mut network, leader) = Network::settled(1, 1);
    let learner = network.add_learner(leader);
    network.until(30, |network| {
        network.member(leader).membership().get(learner).is_some_and(|member| member.incarnation != 0)
    });
    network.lose_disk(learner);
    network.until(10, |network| network.fenced.contains(&learner));
}

#[test]
fn a_group_of_three_is_founded_by_all_three_and_needs_two_from_then_on() {
    let mut network = Network::new(3, 1);
    network.gone.insert(MemberId(3));
    (0..20 * ELECTION_TICKS).for_each(|_| network.tick());
    assert_eq!(network.leader(), None, "two could forget what the third never knew");
    network.gone.clear();
    network.until(20 * ELECTION_TICKS as u32, |network| network.leader().is_some());
    let other = MemberId(network.leader().unwrap().0 % 3 + 1);
    network.gone.insert(other);
    let leader = network.leader().unwrap();
    assert!(network.writes(leader));
}

#[test]
fn a_directory_that_was_put_back_to_an_earlier_state_is_recognised() {
    let (mut network, leader) = Network::settled(3, 2);
    let other = MemberId(leader.0 % 3 + 1);
    let earlier = network.copy_disk(other);
    assert!(network.writes(leader));
    network.put_back(other, earlier);
    network.until(10, |network| network.fenced.contains(&other));
}
