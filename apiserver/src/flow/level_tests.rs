use proptest::prelude::*;

use super::*;

fn shape(nominal: u32, queues: usize, queue_length: usize) -> Shape {
    Shape { exempt: false, nominal, lendable: 0, borrowable: u32::MAX, queues, hand: 1, queue_length }
}

/// The hash whose hand of one is this queue.
fn flow(queue: u64) -> u64 {
    queue
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Lets a request arrive, and everybody begin for whom there is room.
fn arrive(level: &mut Level, id: RequestId, hash: u64, spare: u32, now: Duration) -> Arrival {
    match level.arrive(id, hash, 1, spare, now) {
        Arrival::Waits if level.dispatch(spare, now).contains(&id) => Arrival::Served,
        arrival => arrival,
    }
}

#[test]
fn what_finds_no_seat_waits_or_is_refused() {
    let mut level = Level::new(shape(2, 2, 1));
    assert_eq!(arrive(&mut level, 1, flow(0), 0, ms(0)), Arrival::Served);
    assert_eq!(arrive(&mut level, 2, flow(0), 0, ms(0)), Arrival::Served);
    assert_eq!(arrive(&mut level, 3, flow(0), 0, ms(0)), Arrival::Waits);
    assert_eq!(arrive(&mut level, 4, flow(0), 0, ms(0)), Arrival::Rejected(Rejection::QueueFull));
    assert_eq!(arrive(&mut level, 5, flow(1), 0, ms(0)), Arrival::Waits, "another queue has a place");
    assert!(level.finish(1, ms(1)));
    assert_eq!(level.dispatch(0, ms(1)).len(), 1);
    let mut level = Level::new(shape(1, 0, 0));
    assert_eq!(arrive(&mut level, 1, flow(0), 0, ms(0)), Arrival::Served);
    assert_eq!(arrive(&mut level, 2, flow(0), 0, ms(0)), Arrival::Rejected(Rejection::ConcurrencyLimit));
}

#[test]
fn seats_of_others_are_used_while_they_are_spare() {
    let mut level = Level::new(shape(1, 1, 9));
    assert_eq!(arrive(&mut level, 1, flow(0), 0, ms(0)), Arrival::Served);
    assert_eq!(arrive(&mut level, 2, flow(0), 1, ms(0)), Arrival::Served);
    assert_eq!((level.borrowed(), level.idle_lendable()), (1, 0));
    assert_eq!(arrive(&mut level, 3, flow(0), 0, ms(0)), Arrival::Waits);
}

#[test]
fn a_flood_waits_behind_a_trickle() {
    let mut level = Level::new(shape(1, 2, 100));
    for id in 0..50 {
        arrive(&mut level, id, flow(0), 0, ms(0));
    }
    assert_eq!(arrive(&mut level, 100, flow(1), 0, ms(5)), Arrival::Waits);
    level.finish(0, ms(10));
    assert_eq!(level.dispatch(0, ms(10)), [100], "the queue that had nothing yet comes first");
}

#[test]
fn who_gives_up_leaves_its_place() {
    let mut level = Level::new(shape(1, 1, 9));
    for id in 0..3 {
        arrive(&mut level, id, flow(0), 0, ms(0));
    }
    assert!(level.abandon(1, ms(1)) && !level.abandon(1, ms(1)) && !level.abandon(0, ms(1)));
    level.finish(0, ms(1));
    assert_eq!(level.dispatch(0, ms(1)), [2]);
}

/// Serves for a simulated while; gives the seat-milliseconds that each queue got.
fn serve_all(level: &mut Level, length: &[u64], mut now: u64, until: u64, mut id: u64) -> Vec<u64> {
    let mut got = vec![0; length.len()];
    let mut ends: BTreeMap<(u64, RequestId), usize> = BTreeMap::new();
    let mut queue_of: BTreeMap<RequestId, usize> = BTreeMap::new();
    while now < until {
        // Every flow always has some that wait.
        for (queue, _) in length.iter().enumerate() {
            while level.queues[queue].waiting.len() < 5 {
                id += 1;
                queue_of.insert(id, queue);
                level.arrive(id, flow(queue as u64), 1, 0, ms(now));
            }
        }
        for begun in level.dispatch(0, ms(now)) {
            let queue = queue_of[&begun];
            ends.insert((now + length[queue], begun), queue);
        }
        let ((end, done), queue) = ends.pop_first().expect("somebody is served");
        now = end;
        got[queue] += length[queue];
        level.finish(done, ms(now));
    }
    got
}

#[test]
fn flows_get_equal_shares_however_long_their_requests_take() {
    let mut level = Level::new(shape(4, 3, 100));
    let got = serve_all(&mut level, &[5, 50, 200], 0, 60_000, 0);
    let most = got.iter().max().expect("three");
    assert!(got.iter().all(|share| share * 100 >= most * 90), "{got:?}");
}

proptest! {
    /// Seats never exceed what there is, nobody is lost, and nobody waits while there is room.
    #[test]
    fn seats_are_kept_and_nobody_is_lost(
        nominal in 1u32..6, queues in 0usize..4,
        steps in prop::collection::vec((0u8..4, any::<u64>(), 1u32..4, 0u64..20), 1..200),
    ) {
        let mut level = Level::new(shape(nominal, queues, 3));
        let (mut waiting, mut running) = (Vec::new(), Vec::new());
        let mut now = 0;
        for (id, (what, hash, seats, passed)) in steps.into_iter().enumerate() {
            now += passed;
            let at = usize::try_from(hash % 97).expect("small");
            match what {
                0 | 1 => match level.arrive(id as u64, hash, seats, 0, ms(now)) {
                    Arrival::Served => running.push(id as u64),
                    Arrival::Waits => waiting.push(id as u64),
                    Arrival::Rejected(_) => {}
                },
                2 if !running.is_empty() => {
                    let done = running.remove(at % running.len());
                    prop_assert!(level.finish(done, ms(now)));
                }
                3 if !waiting.is_empty() => {
                    let gone = waiting.remove(at % waiting.len());
                    prop_assert!(level.abandon(gone, ms(now)));
                }
                _ => {}
            }
            for begun in level.dispatch(0, ms(now)) {
                waiting.retain(|id| *id != begun);
                running.push(begun);
            }
            prop_assert!(level.seats() <= nominal);
            prop_assert_eq!((level.running(), level.waiting()), (running.len(), waiting.len()));
            prop_assert!(waiting.is_empty() || !running.is_empty(), "somebody is served if somebody waits");
        }
    }
}
