//! Watches: one on everything through each member for the whole run, begun again where it stopped whenever it
//! ends; and short ones that begin somewhere around the present.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etcd_client::{EventType, WatchOptions, WatchResponse};

use super::client::{ATTEMPT, revision, state, text};
use super::history::{Event, Keys, Revision, Seen, Watched};
use super::random::Random;
use super::workload::Run;

/// A watch that hears nothing for so long, not even an answer to its question for progress, is begun again.
const SILENCE: Duration = Duration::from_secs(3);

/// Follows everything through one member until the last revision is seen.
pub async fn collect(run: &Run, member: usize) {
    let mut start = 1;
    while !over(run, start) {
        let watched = follow(run, member, start, Keys::all(), None).await;
        start = watched.covered() + 1;
        run.watched(watched);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn over(run: &Run, start: Revision) -> bool {
    let last = run.last.load(Ordering::SeqCst);
    last > 0 && start > last
}

/// Begins watches at revisions around the present, on some keys, each for a short while.
pub async fn browse(run: &Run, number: u64) {
    let mut random = Random::stream(run.seed, 3000 + number);
    while run.goes_on() {
        let offset = i64::try_from(random.below(120)).expect("small") - 100;
        let keys = match random.below(3) {
            0 => Keys::all(),
            1 => Keys::one(&format!("k{}", random.below(8))),
            _ => Keys { from: "k2".to_owned(), to: "k6".to_owned() },
        };
        let (member, length) = (random.index(run.clients.count()), random.milliseconds(200, 2000));
        let start = (run.known() + offset).max(1);
        let until = Instant::now() + length;
        run.watched(follow(run, member, start, keys, Some(until)).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One watch, until it ends, falls silent, has seen the last revision, or `until`.
async fn follow(run: &Run, member: usize, start: Revision, keys: Keys, until: Option<Instant>) -> Watched {
    let long = until.is_none();
    let options = WatchOptions::new().with_range(keys.to.as_str()).with_start_revision(start).with_prev_key();
    let mut watched = Watched { member, start, keys: keys.clone(), seen: Vec::new() };
    let mut client = run.clients.of(member);
    let Ok(Ok(stream)) = tokio::time::timeout(ATTEMPT, client.watch(keys.from, Some(options))).await else {
        return watched;
    };
    let (mut requests, mut messages) = stream.split();
    let mut quiet = false;
    loop {
        let patience = until.map_or(SILENCE / 2, |until| until.saturating_duration_since(Instant::now()));
        match tokio::time::timeout(patience, messages.message()).await {
            Ok(Ok(Some(message))) if !message.canceled() => {
                quiet = false;
                note(&mut watched, &message);
            }
            Ok(_) => break,
            // Nothing happens: is the member still there?
            Err(_) if long && !quiet && requests.request_progress().await.is_ok() => quiet = true,
            Err(_) => break,
        }
        if long {
            run.collected[member].fetch_max(watched.covered(), Ordering::SeqCst);
        }
        if over(run, watched.covered() + 1) || until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    watched
}

fn note(watched: &mut Watched, message: &WatchResponse) {
    let now = Instant::now();
    if message.events().is_empty() && !message.created() {
        watched.seen.push((now, Seen::Progress(revision(message.header()))));
    }
    for event in message.events() {
        let kv = event.kv().expect("an event is about a key");
        let seen = Event {
            key: text(kv.key()),
            now: (event.event_type() == EventType::Put).then(|| state(kv)),
            before: event.prev_kv().map(state),
        };
        watched.seen.push((now, Seen::Event(kv.mod_revision(), seen)));
    }
}
