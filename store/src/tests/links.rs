//! What becomes of a group whose links are cut in one direction.

use std::collections::BTreeSet;

use super::network::{ELECTION_TICKS, Network};
use crate::kv::MemberId;
use crate::raft::replica::Input;

#[test]
fn a_full_member_that_the_leader_does_not_hear_stops_nobody_for_long() {
    for seed in 0..20 {
        let (mut network, leader) = Network::settled(3, seed);
        let full = MemberId(leader.0 % 3 + 1);
        network.give(full, Input::Space(Some("full".into())));
        network.until(4, |network| network.members.iter().all(|member| member.state().no_space().is_some()));
        (0..100).for_each(|_| network.tick());
        assert!(!network.writes(leader), "seed {seed}: as long as it is heard, its alarm counts");
        network.cut = BTreeSet::from([(full.0, leader.0)]);
        network.give(full, Input::Space(None));
        network.until(20 * ELECTION_TICKS as u32, |network| network.members[0].state().no_space().is_none());
        let leader = network.members.iter().find(|member| member.member().is_leader()).unwrap().id();
        assert!(network.writes(leader), "seed {seed}");
    }
}

#[test]
fn a_full_member_that_does_not_hear_the_leader_stops_nobody_for_long() {
    for seed in 0..20 {
        let (mut network, leader) = Network::settled(3, seed);
        let full = MemberId(leader.0 % 3 + 1);
        network.give(full, Input::Space(Some("full".into())));
        network.until(4, |network| network.members.iter().all(|member| member.state().no_space().is_some()));
        network.cut = BTreeSet::from([(leader.0, full.0)]);
        network
            .until(20 * ELECTION_TICKS as u32, |network| network.member(leader).state().no_space().is_none());
        assert!(network.leads(leader) && network.writes(leader), "seed {seed}");
        network.cut.clear();
        network.until(40, |network| network.members.iter().all(|member| member.state().no_space().is_some()));
    }
}

#[test]
fn a_follower_that_does_not_hear_the_leader_disturbs_nobody() {
    for seed in 0..50 {
        let (mut network, leader) = Network::settled(3, seed);
        let term = network.term();
        let follower = (1..=3).find(|id| *id != leader.0).unwrap();
        network.cut = BTreeSet::from([(leader.0, follower)]);
        (0..200).for_each(|_| network.tick());
        assert!(network.leads(leader), "seed {seed}");
        network.cut.clear();
        (0..20).for_each(|_| network.tick());
        assert_eq!((network.agreed(), network.term()), (Some(leader), term), "seed {seed}");
    }
}
#[test]
fn a_new_group_elects_its_first_leader_at_once() {
    for seed in 0..50 {
        let mut network = Network::new(3, seed);
        let ticks = network.until(30, |network| network.agreed().is_some());
        assert!(ticks <= 3, "seed {seed}: {ticks} ticks, an election timeout is {ELECTION_TICKS}");
    }
}

#[test]
fn a_leader_that_hears_nobody_steps_down_and_the_term_grows_by_one() {
    for seed in 0..50 {
        let (mut network, deaf) = Network::settled(3, seed);
        let term = network.term();
        network.cut = (1..=3).filter(|id| *id != deaf.0).map(|id| (id, deaf.0)).collect();
        // Two check-quorum rounds at most: the first may still have what came before the cut.
        network.until(2 * ELECTION_TICKS as u32 + 1, |network| !network.leads(deaf));
        let others =
            |network: &Network| network.members.iter().any(|m| m.id() != deaf && m.member().is_leader());
        network.until(3 * ELECTION_TICKS as u32, others);
        (0..200).for_each(|_| network.tick());
        assert!(network.term() <= term + 1, "seed {seed}: {} after {term}", network.term());
        network.cut.clear();
        network.until(20, |network| network.agreed().is_some());
        assert!(network.term() <= term + 1, "seed {seed}: coming back deposes nobody");
        assert_ne!(network.agreed(), Some(deaf));
    }
}

#[test]
fn a_leader_that_nobody_hears_is_replaced_and_the_term_grows_by_one() {
    for seed in 0..50 {
        let (mut network, mute) = Network::settled(3, seed);
        let term = network.term();
        network.cut = (1..=3).filter(|id| *id != mute.0).map(|id| (mute.0, id)).collect();
        let replaced = |network: &Network| !network.leads(mute) && network.agreed().is_some();
        network.until(4 * ELECTION_TICKS as u32, replaced);
        (0..200).for_each(|_| network.tick());
        network.cut.clear();
        (0..20).for_each(|_| network.tick());
        assert!(network.agreed().is_some());
        assert_eq!(network.term(), term + 1, "seed {seed}");
    }
}
