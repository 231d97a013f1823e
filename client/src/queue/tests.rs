//! The rules of the queue, first of the value, then of the driver.

use super::{Core, Outcome, WorkQueue};
use crate::{
    backoff::Policy,
    cause::{Cause, because},
    shutdown,
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

fn core() -> (Core<&'static str>, Instant) {
    (Core::new(Policy { first: 10 * MS, most: 40 * MS }), Instant::now())
}

#[test]
fn equal_keys_are_queued_once() {
    let (mut core, now) = core();
    assert!(core.add("a"));
    assert!(!core.add("a"));
    core.add("b");
    assert_eq!((core.next(now), core.next(now), core.next(now)), (Some("a"), Some("b"), None));
}

#[test]
fn a_key_added_while_running_runs_once_more_afterwards() {
    let (mut core, now) = core();
    core.add("a");
    core.next(now);
    core.add("a");
    core.add("a");
    assert_eq!(core.next(now), None, "never two runs of one key at a time");
    core.done("a", Outcome::Done, now, 0.0);
    assert_eq!(core.next(now), Some("a"));
    core.done("a", Outcome::Done, now, 0.0);
    assert!(core.is_empty());
}

#[test]
fn failures_pause_longer_and_success_forgets_them() {
    let (mut core, mut now) = core();
    core.add("a");
    for pause in [10, 20, 40, 40] {
        assert_eq!(core.next(now), Some("a"));
        core.done("a", Outcome::Retry, now, 0.0);
        assert_eq!(core.next_timer(), Some(now + pause * MS));
        assert_eq!(core.next(now + (pause - 1) * MS), None);
        now += pause * MS;
    }
    core.next(now);
    core.done("a", Outcome::After(5 * MS), now, 0.0);
    now += 5 * MS;
    core.next(now);
    core.done("a", Outcome::Retry, now, 0.0);
    assert_eq!(core.next_timer(), Some(now + 10 * MS));
}

#[test]
fn the_earliest_timer_wins_and_an_event_does_not_wait_for_it() {
    let (mut core, now) = core();
    core.add_at("a", now + 20 * MS);
    core.add_at("a", now + 10 * MS);
    core.add_at("a", now + 30 * MS);
    assert_eq!(core.len(), 1);
    assert_eq!(core.next_timer(), Some(now + 10 * MS));
    core.add("a");
    assert_eq!(core.next(now), Some("a"));
    core.done("a", Outcome::Done, now, 0.0);
    assert_eq!(core.next(now + 10 * MS), Some("a"), "the timer was not forgotten");
}

#[test]
fn the_newest_cause_counts_until_the_key_is_done() {
    let (mut core, now) = core();
    core.blame("a", Cause(5));
    core.add("a");
    core.blame("a", Cause(3));
    assert_eq!((core.next(now), core.cause(&"a")), (Some("a"), Some(Cause(5))));
    core.done("a", Outcome::Retry, now, 0.0);
    let now = now + 10 * MS;
    assert_eq!((core.next(now), core.cause(&"a")), (Some("a"), Some(Cause(5))), "a retry has the same cause");
    core.blame("a", Cause(7));
    core.add("a");
    core.done("a", Outcome::Done, now, 0.0);
    assert_eq!((core.next(now), core.cause(&"a")), (Some("a"), Some(Cause(7))));
    core.done("a", Outcome::Done, now, 0.0);
    assert_eq!(core.cause(&"a"), None);
}

#[tokio::test]
async fn what_is_added_while_a_change_is_told_has_its_cause() {
    let queue: WorkQueue<&str> = WorkQueue::default();
    let (trigger, shutdown) = shutdown::channel();
    because(Some(Cause(9)), || queue.add("a"));
    let seen = parking_lot::Mutex::new(None);
    let run = queue.run(1, shutdown, |_, cause| {
        *seen.lock() = Some(cause);
        trigger.request();
        std::future::ready(Outcome::Done)
    });
    run.await;
    assert_eq!(*seen.lock(), Some(Some(Cause(9))));
}

#[tokio::test]
async fn the_driver_runs_every_key_and_never_one_twice_at_a_time() {
    let queue: WorkQueue<u32> = WorkQueue::default();
    let (trigger, shutdown) = shutdown::channel();
    let running = Arc::new(parking_lot::Mutex::new(HashMap::<u32, u32>::new()));
    let runs = Arc::new(parking_lot::Mutex::new(0u32));
    (0..50).for_each(|key| queue.add(key));
    queue
        .run(4, shutdown, |key, _| {
            let (running, runs, queue) = (running.clone(), runs.clone(), queue.clone());
            let trigger = &trigger;
            async move {
                assert_eq!(running.lock().insert(key, 1), None, "key {key} runs twice at a time");
                queue.add(key);
                tokio::task::yield_now().await;
                running.lock().remove(&key);
                *runs.lock() += 1;
                if *runs.lock() >= 200 {
                    trigger.request();
                }
                Outcome::Done
            }
        })
        .await;
    assert!(*runs.lock() >= 200);
}

#[tokio::test]
async fn timers_wake_the_driver() {
    let queue: WorkQueue<&str> = WorkQueue::default();
    let (trigger, shutdown) = shutdown::channel();
    queue.add_after("later", 5 * MS);
    let run = queue.run(1, shutdown, |_, _| {
        trigger.request();
        async { Outcome::Done }
    });
    tokio::time::timeout(Duration::from_secs(5), run).await.expect("the timer fires");
}
