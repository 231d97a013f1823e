//! Candidates over a simulated server: never two that act, and leadership moves on.

use super::{Candidate, Decision, ElectionConfig};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// A server with one lease and optimistic concurrency.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    fn write(&mut self, mut lease: Lease) -> Option<Lease> {
        let current = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if lease.metadata.resource_version != current {
            return None;
        }
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Some(lease)
    }
}

fn candidate(identity: &str) -> Candidate {
    Candidate::new(ElectionConfig::fast("test", identity))
}

/// Lets `candidate` act once against `server`.
fn turn(candidate: &mut Candidate, server: &mut Server, now: Instant) {
    match candidate.decide(now, Timestamp::UNIX_EPOCH) {
        Decision::Create(lease) | Decision::Update(lease) => match server.write(lease) {
            Some(lease) => candidate.wrote(lease, now),
            None => candidate.observe(server.lease.clone(), now),
        },
        Decision::WaitUntil(when) => assert!(when > now, "a wait must lie in the future"),
    }
}

fn holder(server: &Server) -> String {
    let spec = server.lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
    spec.holder_identity.unwrap_or_default()
}

#[test]
fn the_first_creates_and_the_second_takes_over_after_the_lease() {
    let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
    let start = Instant::now();
    turn(&mut a, &mut server, start);
    assert!(a.leads(start));
    turn(&mut b, &mut server, start + 100 * MS);
    assert!(!b.leads(start + 100 * MS), "the create conflicts");
    assert_eq!(b.decide(start + 200 * MS, Timestamp::UNIX_EPOCH), Decision::WaitUntil(start + 1600 * MS));
    assert!(!a.leads(start + 1000 * MS), "a stops before b may start");
    turn(&mut b, &mut server, start + 1600 * MS);
    assert!(b.leads(start + 1600 * MS));
    let spec = server.lease.and_then(|lease| lease.spec).expect("a lease");
    assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(1), Some(2)));
}

#[test]
fn a_released_lease_is_free_at_once() {
    let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
    let start = Instant::now();
    turn(&mut a, &mut server, start);
    let Some(Decision::Update(lease)) = a.release(start + 10 * MS, Timestamp::UNIX_EPOCH) else {
        panic!("a leader can release");
    };
    server.write(lease);
    assert!(!a.leads(start + 10 * MS));
    b.observe(server.lease.clone(), start + 20 * MS);
    turn(&mut b, &mut server, start + 20 * MS);
    assert_eq!(holder(&server), "b");
}

#[test]
fn an_older_lease_from_the_watch_does_not_undo_our_write() {
    let (mut a, mut server) = (candidate("a"), Server::default());
    let start = Instant::now();
    turn(&mut a, &mut server, start);
    let old = server.lease.clone().expect("a lease");
    turn(&mut a, &mut server, start + 300 * MS);
    a.observe_if_newer(old, start + 310 * MS);
    turn(&mut a, &mut server, start + 600 * MS);
    assert_eq!(server.version, 3, "no conflict came from the old view");
}

/// 500 seeds: three candidates act at random times, stop for random times, lose replies.
#[test]
fn never_two_candidates_lead_at_once() {
    let terms: u32 = (0..500u64).map(simulate).sum();
    assert!(terms > 1000, "leadership moves: {terms} terms");
}

/// Returns how many terms there were.
fn simulate(seed: u64) -> u32 {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut server = Server::default();
    let mut candidates = [candidate("a"), candidate("b"), candidate("c")];
    let mut now = Instant::now();
    let mut terms = 0;
    let mut last = None;
    for _ in 0..400 {
        now += (random.below(200) as u32) * MS;
        let who = random.below(3) as usize;
        match random.below(10) {
            0 => candidates[who].observe(server.lease.clone(), now),
            1 => lose_reply(&mut candidates[who], &mut server, now),
            // A long stop of everybody lets leases expire.
            2 if random.below(5) == 0 => now += 1600 * MS,
            _ => turn(&mut candidates[who], &mut server, now),
        }
        let leaders: Vec<usize> = (0..3).filter(|n| candidates[*n].leads(now)).collect();
        assert!(leaders.len() <= 1, "seed {seed}: {leaders:?} lead at once");
        if let [leader] = leaders[..]
            && last != Some(leader)
        {
            last = Some(leader);
            terms += 1;
        }
    }
    terms
}

/// The write arrives, its answer doesn't.
fn lose_reply(candidate: &mut Candidate, server: &mut Server, now: Instant) {
    if let Decision::Create(lease) | Decision::Update(lease) = candidate.decide(now, Timestamp::UNIX_EPOCH) {
        server.write(lease);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn terms_have_different_fences() {
    let (mut server, start) = (Server::default(), Instant::now());
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    turn(&mut a, &mut server, start);
    let first = a.fence();
    assert_eq!(first.as_deref(), Some("kube-system/test/0/a"));
    b.observe(server.lease.clone(), start);
    assert_eq!(b.fence(), None, "only who leads has one");
    turn(&mut b, &mut server, start + 1600 * MS);
    assert_eq!(b.fence().as_deref(), Some("kube-system/test/1/b"));
    a.observe(server.lease.clone(), start + 1600 * MS);
    assert_eq!(a.fence(), None);
    turn(&mut a, &mut server, start + 3300 * MS);
    assert_eq!(a.fence().as_deref(), Some("kube-system/test/2/a"), "and not as in its first term");
}
