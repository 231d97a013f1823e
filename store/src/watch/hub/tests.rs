use super::*;
use crate::mvcc::read::deletion;

fn events(revision: u64, keys: &[&'static str]) -> RevisionEvents {
    let event = |key: &&'static str| {
        let mut event = deletion((*key).into(), Revision(revision), some_kv(key));
        event.prev = None;
        event
    };
    (Revision(revision), keys.iter().map(event).collect())
}

fn some_kv(key: &'static str) -> crate::kv::KeyValue {
    crate::kv::KeyValue {
        key: key.into(),
        value: "".into(),
        create_revision: Revision(1),
        mod_revision: Revision(1),
        version: 1,
        lease: None,
    }
}

fn sent(step: Option<Step>) -> u64 {
    match step {
        Some(Step::Send(WatchMessage::Events { revision, .. })) => revision.0,
        other => panic!("expected events, got {other:?}"),
    }
}

#[test]
fn a_synced_watcher_is_woken_only_by_what_concerns_it() {
    let mut hub = Hub::new(Revision(0), Revision(0), 1 << 20);
    let (a, _) = hub.register(KeyRange::prefix("a"), None).unwrap();
    assert_eq!(hub.publish(vec![events(1, &["b"])], Revision(1), Revision(0)), []);
    assert_eq!(hub.publish(vec![events(2, &["a", "b"])], Revision(2), Revision(0)), [a]);
    assert_eq!(sent(hub.next(a)), 2);
    assert!(matches!(hub.next(a), Some(Step::Wait)));
}

#[test]
fn a_late_watcher_is_fed_from_disk_then_ring_without_gap_or_repeat() {
    let mut hub = Hub::new(Revision(0), Revision(0), 500);
    for revision in 1..=5 {
        hub.publish(vec![events(revision, &["a"])], Revision(revision), Revision(0));
    }
    let (a, _) = hub.register(KeyRange::prefix("a"), Some(Revision(1))).unwrap();
    assert!(matches!(hub.next(a), Some(Step::Load(Revision(1)))));
    hub.loaded(Revision(1), (1..=4).map(|r| events(r, &["a"])).collect(), Revision(5));
    for expected in 1..=5 {
        assert_eq!(sent(hub.next(a)), expected);
    }
    assert!(matches!(hub.next(a), Some(Step::Wait)));
}

#[test]
fn a_watcher_whose_history_is_gone_is_told_so() {
    let mut hub = Hub::new(Revision(9), Revision(0), 500);
    let (a, _) = hub.register(KeyRange::prefix("a"), Some(Revision(3))).unwrap();
    let (b, _) = hub.register(KeyRange::prefix("a"), Some(Revision(5))).unwrap();
    hub.publish(vec![], Revision(9), Revision(4));
    assert!(matches!(hub.next(a), Some(Step::End(WatchMessage::Compacted(Revision(4))))));
    assert!(hub.next(a).is_none());
    assert!(matches!(hub.next(b), Some(Step::Load(Revision(5)))));
    let refused = hub.register(KeyRange::prefix("a"), Some(Revision(4)));
    assert!(matches!(refused, Err(KvError::Compacted { .. })));
}

#[test]
fn progress_never_overtakes_events_and_never_precedes_the_start() {
    let mut hub = Hub::new(Revision(0), Revision(0), 1 << 20);
    let (a, _) = hub.register(KeyRange::prefix("a"), None).unwrap();
    let (_future, _) = hub.register(KeyRange::prefix("b"), Some(Revision(10))).unwrap();
    hub.publish(vec![events(1, &["a"])], Revision(1), Revision(0));
    let told = |hub: &mut Hub, room| {
        let mut told = Vec::new();
        hub.progress(|id, message| {
            assert!(matches!(message, WatchMessage::Progress(Revision(2))), "{message:?}");
            told.push(id);
            room
        });
        told
    };
    assert!(told(&mut hub, true).is_empty(), "an event is still to be delivered");
    sent(hub.next(a));
    assert!(told(&mut hub, true).is_empty(), "the event itself told");
    hub.publish(vec![events(2, &["b"])], Revision(2), Revision(0));
    assert_eq!(told(&mut hub, false), [a], "no room");
    assert_eq!(told(&mut hub, true), [a]);
    assert!(told(&mut hub, true).is_empty(), "told once");
}
