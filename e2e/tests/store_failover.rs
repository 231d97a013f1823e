//! The time without writes after the leader's death. Not part of every test run, as a hundred kills take minutes:
//! `LEADER_KILLS=100 cargo test -p e2e --test store_failover -- --ignored --nocapture` prints the histogram.

use std::time::Duration;

use e2e::store::failover::{Death, kill_leaders};
use e2e::store::group::{Program, may_make_namespaces};

/// What a machine with other work may need; the figure to look at is the printed one.
const BOUND: Duration = Duration::from_secs(5);

#[test]
#[ignore = "takes minutes; `make soak` runs it"]
fn writes_go_on_soon_after_the_leaders_death() {
    if !may_make_namespaces() {
        return;
    }
    let kills = std::env::var("LEADER_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(100);
    for death in [Death::Process, Death::Host] {
        let gaps = kill_leaders(Program::chosen(), death, kills);
        let gaps = gaps.unwrap_or_else(|violations| panic!("{violations:#?}"));
        println!("the leader's {death:?} dies\n{gaps}");
        assert!(gaps.quantile(0.99) < BOUND, "{gaps}");
    }
}
