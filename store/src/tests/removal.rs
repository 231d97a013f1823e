//! Removing a member, when the power fails for everyone at any moment of it.

use std::collections::BTreeSet;

use super::network::{ELECTION_TICKS, Network};
use crate::bug::{self, Bug};
use crate::kv::MemberId;

/// Inputs after which a removal is over.
const LONGEST: usize = 200;

/// Lets the power fail after so many inputs of a removal. True if the removal was over before.
fn removal_with_a_power_cut(members: u64, seed: u64, remove_leader: bool, inputs: usize) -> bool {
    let (mut network, leader) = Network::settled(members, seed);
    let removed = if remove_leader { leader } else { MemberId(leader.0 % members + 1) };
    network.fail_in(inputs);
    network.remove(leader, removed);
    (0..10).for_each(|_| network.tick());
    let ended = network.gone.contains(&removed);
    network.power_returns();
    network.until(20 * ELECTION_TICKS as u32, |network| network.leader().is_some());
    let leader = network.leader().unwrap();
    assert!(network.writes(leader), "{members} members, seed {seed}, {inputs} inputs: {leader} can't write");
    let after = network.member(leader).membership();
    assert!(!ended || after.was_removed(removed), "who has ended is removed");
    ended
}

#[test]
fn a_removal_costs_no_quorum_wherever_the_power_fails() {
    for (members, remove_leader) in [(2, false), (2, true), (3, false), (3, true), (4, false), (4, true)] {
        for seed in 0..3 {
            let cuts = 0..LONGEST;
            let ended = cuts.filter(|at| removal_with_a_power_cut(members, seed, remove_leader, *at)).count();
            assert!((1..LONGEST).contains(&ended), "{members} members: it ended {ended} times");
        }
    }
}

/// A leader removes one of four, and is lost for good soon after. One of the other two heard nothing of it, and the
/// other only the first `messages`: perhaps the removal, but not that it is committed. Whether they go on.
fn goes_on_without_the_leader(seed: u64, messages: usize) -> bool {
    let (mut network, leader) = Network::settled(4, seed);
    let [removed, deaf, hard_of_hearing] = [1, 2, 3].map(|after| MemberId((leader.0 + after - 1) % 4 + 1));
    network.cut = BTreeSet::from([(leader.0, deaf.0)]);
    network.failing = Some((leader.0, hard_of_hearing.0, messages));
    network.remove(leader, removed);
    (0..3).for_each(|_| network.tick());
    network.gone.insert(leader);
    network.cut.clear();
    (0..20 * ELECTION_TICKS).for_each(|_| network.tick());
    network.leader().is_some_and(|leader| network.writes(leader))
}

#[test]
fn a_removal_costs_no_quorum_even_if_the_only_one_who_told_the_removed_member_is_lost() {
    let fails = |messages: &usize| (0..3).any(|seed| !goes_on_without_the_leader(seed, *messages));
    assert_eq!((0..12).find(fails), None, "messages that arrived");
    let lost = bug::with(Some(Bug::OneDismissesTheRemoved), || (0..12).filter(fails).count());
    assert!(lost > 0, "if the first who tells it to could end a removed member, a quorum would be lost");
}

#[test]
fn a_learner_that_was_removed_while_it_was_away_hears_of_it() {
    let (mut network, leader) = Network::settled(1, 1);
    let learner = network.add_learner(leader);
    network.until(20, |network| network.member(learner).membership().get(learner).is_some());
    network.cut = BTreeSet::from([(leader.0, learner.0)]);
    network.remove(leader, learner);
    network.until(4, |network| network.member(leader).membership().was_removed(learner));
    network.cut.clear();
    network.until(4 * ELECTION_TICKS as u32, |network| network.gone.contains(&learner));
}

#[test]
fn a_removed_member_ends_when_another_says_so_and_not_before() {
    let (mut network, leader) = Network::settled(3, 1);
    let removed = MemberId(leader.0 % 3 + 1);
    // It gets everything, but nobody hears it after the removal is committed by the other two.
    network.cut = (1..=3).map(|to| (removed.0, to)).collect();
    network.remove(leader, removed);
    (0..100).for_each(|_| network.tick());
    assert!(network.member(leader).membership().was_removed(removed));
    assert!(!network.gone.contains(&removed), "nobody has told it");
    network.cut.clear();
    network.until(4, |network| network.gone.contains(&removed));
}

#[test]
fn who_joins_hears_that_it_was_removed_before_anybody_could_speak_to_it() {
    let (mut network, leader) = Network::settled(3, 7);
    network.cut = (1..=3).flat_map(|member| [(member, 4), (4, member)]).collect();
    let new = network.add_learner(leader);
    (0..3).for_each(|_| network.tick());
    network.remove(leader, new);
    (0..ELECTION_TICKS).for_each(|_| network.tick());
    assert!(network.member(leader).membership().was_removed(new) && !network.gone.contains(&new));
    network.cut.clear();
    network.until(4, |network| network.gone.contains(&new));
}
