//! Watches: one on everything through each member for the whole run, begun again where it stopped whenever it
//! ends; and short ones that begin somewhere around the present.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etcd_client::{Error, EventType, WatchOptions, WatchResponse, WatchStream};

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

/// Begins watches at revisions around the present, on some keys, each for a short while. Some readers are slow,
/// some ask for progress.
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
        let nap = (random.below(4) == 0).then(|| random.milliseconds(100, 1500));
        let habit = Habit {
            until: Instant::now() + nap.unwrap_or_default() + length,
            nap,
            curious: random.below(3) == 0,
        };
        run.watched(follow(run, member, start, keys, Some(habit)).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How a short watch is read.
struct Habit {
    until: Instant,
    /// Nothing is read for so long at first.
    nap: Option<Duration>,
    /// Asks for progress all the time.
    curious: bool,
}

/// Between two questions of a curious reader.
const CURIOSITY: Duration = Duration::from_millis(40);

/// One watch, until it ends, falls silent, has seen the last revision, or its reader has had enough.
async fn follow(run: &Run, member: usize, start: Revision, keys: Keys, habit: Option<Habit>) -> Watched {
    let options = WatchOptions::new().with_range(keys.to.as_str()).with_start_revision(start).with_prev_key();
    let mut watched = Watched { member, start, keys: keys.clone(), seen: Vec::new(), end: None };
    let slow = habit.as_ref().is_some_and(|habit| habit.nap.is_some());
    let mut client = if slow { run.clients.apart(member).await } else { run.clients.of(member) };
    let stream = match tokio::time::timeout(ATTEMPT, client.watch(keys.from, Some(options))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Watched { end: Some(error.to_string()), ..watched },
        Err(_) => return Watched { end: Some("not created in time".to_owned()), ..watched },
    };
    watched.end = match habit {
        Some(habit) => browse_one(stream, &mut watched, &habit).await,
        None => collect_one(run, stream, &mut watched).await,
    };
    watched
}

/// Returns why it ended before its reader had enough.
async fn browse_one(stream: WatchStream, watched: &mut Watched, habit: &Habit) -> Option<String> {
    let (mut requests, mut messages) = stream.split();
    tokio::time::sleep(habit.nap.unwrap_or_default()).await;
    loop {
        let left = habit.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let patience = if habit.curious { CURIOSITY.min(left) } else { left };
        match tokio::time::timeout(patience, messages.message()).await {
            Ok(message) => {
                if let Err(why) = take(watched, message) {
                    return Some(why);
                }
            }
            Err(_) if habit.curious => {
                requests.request_progress().await.ok();
            }
            Err(_) => {}
        }
    }
}

/// Returns why it ended before it had seen the last revision.
async fn collect_one(run: &Run, stream: WatchStream, watched: &mut Watched) -> Option<String> {
    let (mut requests, mut messages) = stream.split();
    let mut quiet = false;
    while !over(run, watched.covered() + 1) {
        match tokio::time::timeout(SILENCE / 2, messages.message()).await {
            Ok(message) => match take(watched, message) {
                Ok(()) => quiet = false,
                Err(why) => return Some(why),
            },
            Err(_) if quiet => return Some(format!("silent for {SILENCE:?}")),
            // Nothing happens: is the member still there?
            Err(_) => quiet = requests.request_progress().await.is_ok(),
        }
        run.collected[watched.member].fetch_max(watched.covered(), Ordering::SeqCst);
    }
    None
}

/// Writes a message down; an error says why there will be no other.
fn take(watched: &mut Watched, message: Result<Option<WatchResponse>, Error>) -> Result<(), String> {
    match message {
        Ok(Some(message)) if message.canceled() => {
            Err(format!("canceled, compacted at {}: {}", message.compact_revision(), message.cancel_reason()))
        }
        Ok(Some(message)) => {
            note(watched, &message);
            Ok(())
        }
        Ok(None) => Err("the stream ended".to_owned()),
        Err(error) => Err(error.to_string()),
    }
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
