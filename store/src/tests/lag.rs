//! Members that fall behind the log.

use super::network::{ELECTION_TICKS, KEEP, Network};

#[test]
fn who_was_sent_a_snapshot_catches_up_from_the_log_however_much_was_written_meanwhile() {
    let (mut network, leader) = Network::settled(1, 1);
    for _ in 0..2 * KEEP {
        assert!(network.writes(leader));
    }
    network.held = Some(Vec::new());
    let learner = network.add_learner(leader);
    network.until(4 * ELECTION_TICKS as u32, |network| {
        network.held.as_ref().is_some_and(|held| !held.is_empty())
    });
    for _ in 0..3 * KEEP {
        assert!(network.writes(leader));
    }
    network.release_snapshots();
    let last = network.member(leader).state().head.index;
    network.until(60, |network| network.member(learner).state().head.index >= last);
    assert_eq!(network.snapshots, 1, "the log it needs next was kept");
    for _ in 0..2 * KEEP {
        assert!(network.writes(leader));
    }
    let log = network.member(leader).member().log();
    assert!(log.len() <= 2 * KEEP, "{} entries are kept for nobody", log.len());
}
