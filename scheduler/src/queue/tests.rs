//! The queue under a clock that only tests move.

use super::*;
use crate::diagnosis::Diagnosis;
use crate::object::PodObject;
use serde_json::json;

fn pod(name: &str, priority: i32, cpu: &str) -> Arc<PodInfo> {
    let pod: PodObject = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        },
    }))
    .expect("a pod");
    Arc::new(PodInfo::of(&pod))
}

fn key(name: &str) -> PodKey {
    PodKey::new("default", name)
}

fn pop_name(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.pop(now).map(|taken| taken.pod.key.name.to_string())
}

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

#[test]
fn higher_priority_first_then_name() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for (name, priority) in [("b", 0), ("a", 0), ("z", 5)] {
        queue.put(pod(name, priority, "1"));
    }
    let order: Vec<_> = std::iter::from_fn(|| pop_name(&mut queue, now)).collect();
    assert_eq!(order, ["z", "a", "b"]);
}

#[test]
fn back_off_doubles_to_its_limit() {
    let (mut queue, mut now) = (Queue::default(), Instant::now());
    queue.put(pod("a", 0, "1"));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let taken = queue.pop(now).expect("its back-off is over");
        queue.retry(taken, now);
        assert!(queue.pop(now).is_none(), "a failed binding isn't repeated early");
        let until = queue.next_wake().expect("a back-off ends");
        waits.push((until - now).as_secs());
        now = until;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn a_parked_pod_needs_a_reason_to_try_again() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.put(pod("a", 0, "1"));
    let taken = queue.pop(now).expect("active");
    queue.park(taken, Hopes::default(), now);
    let late = now + seconds(3600.0);
    assert!(queue.pop(late).is_none());
    assert_eq!(queue.next_wake(), None, "nothing polls");
    queue.wake(late, |_, _| false);
    assert!(queue.pop(late).is_none());
    queue.wake(late, |_, hopes| hopes == Hopes::default());
    assert_eq!(pop_name(&mut queue, late).as_deref(), Some("a"));
}

#[test]
fn equal_pods_are_asked_about_once() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for name in ["a", "b", "c"] {
        queue.put(pod(name, 0, "1"));
    }
    queue.put(pod("other", 0, "2"));
    while let Some(taken) = queue.pop(now) {
        queue.park(taken, Hopes::default(), now);
        if queue.lengths().0 == 0 {
            break;
        }
    }
    let mut asked = 0;
    queue.wake(now + seconds(60.0), |_, _| {
        asked += 1;
        true
    });
    assert_eq!(asked, 2, "two shapes");
    assert_eq!(queue.lengths(), (4, 0, 0));
}

#[test]
fn equal_pods_that_wait_for_different_things_are_each_asked() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let first_node = Hopes::after(&Diagnosis::new([].into_iter()), &pod("any", 0, "1"));
    for (name, hopes) in [("a", first_node), ("b", Hopes::default())] {
        queue.put(pod(name, 0, "1"));
        let taken = queue.pop(now).expect("active");
        queue.park(taken, hopes, now);
    }
    queue.wake(now + seconds(60.0), |_, hopes| hopes == first_node);
    assert_eq!(["a", "b"].map(|name| queue.place(&key(name))), [Some("active"), Some("parked")]);
}

#[test]
fn a_woken_pod_waits_behind_others_but_not_for_nothing() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.put(pod("a", 0, "1"));
    let taken = queue.pop(now).expect("active");
    queue.park(taken, Hopes::default(), now);
    queue.wake(now, |_, _| true);
    assert_eq!(queue.lengths(), (0, 1, 0));
    queue.put(pod("b", -5, "1"));
    assert_eq!(pop_name(&mut queue, now).as_deref(), Some("b"), "active pods go first");
    assert_eq!(pop_name(&mut queue, now).as_deref(), Some("a"), "an idle scheduler needs no back-off");
}

#[test]
fn a_change_of_demands_activates_and_any_other_change_does_not() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.put(pod("a", 0, "2"));
    let taken = queue.pop(now).expect("active");
    queue.park(taken, Hopes::default(), now);
    let relabelled = PodInfo { reported: Some("x".into()), ..(*pod("a", 0, "2")).clone() };
    queue.put(Arc::new(relabelled));
    assert_eq!(queue.place(&key("a")), Some("parked"));
    queue.put(pod("a", 0, "1"));
    assert_eq!(queue.place(&key("a")), Some("active"));
    assert!(queue.remove(&key("a")).is_some());
    assert_eq!(queue.lengths(), (0, 0, 0));
}
