//! Clients that read and write through all members while faults happen, and owners of leases.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, Error, LeaseGrantOptions};

use super::client::{ATTEMPT, Clients};
use super::history::{Call, Change, History, KeyState, Keys, Lease, Reply, Request, Revision, Watched};
use super::random::Random;

/// Few keys, so that the clients meet.
const KEYS: u64 = 8;

/// One value in so many is large, so that members that were away need a snapshot.
const FAT: u64 = 24;

/// Shared by everything that runs during a schedule.
pub struct Run {
    /// To all members.
    pub clients: Clients,
    /// What the workload's choices follow from.
    pub seed: u64,
    /// Set when the faults are over.
    stopping: AtomicBool,
    /// The greatest revision that anybody was told.
    known: AtomicI64,
    /// The last revision, once it is known; 0 before.
    pub last: AtomicI64,
    /// Up to where every long watch has seen the history: a compaction stays below.
    pub collected: Vec<AtomicI64>,
    /// Puts, transactions and deletes acknowledged so far.
    pub acknowledged: AtomicU64,
    counter: AtomicU64,
    story: Mutex<History>,
}

impl Run {
    /// Of a group whose members these clients reach.
    pub fn new(clients: Clients, seed: u64) -> Self {
        let collected = (0..clients.count()).map(|_| AtomicI64::new(0)).collect();
        Self {
            clients,
            seed,
            stopping: AtomicBool::new(false),
            known: AtomicI64::new(1),
            last: AtomicI64::new(0),
            collected,
            acknowledged: AtomicU64::new(0),
            counter: AtomicU64::new(0),
            story: Mutex::new(History::default()),
        }
    }

    /// Whether clients go on.
    pub fn goes_on(&self) -> bool {
        !self.stopping.load(Ordering::SeqCst)
    }

    /// Tells clients to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// The greatest revision that anybody was told.
    pub fn known(&self) -> Revision {
        self.known.load(Ordering::SeqCst)
    }

    /// A number that nobody else gets.
    pub fn unique(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::SeqCst)
    }

    fn story(&self) -> std::sync::MutexGuard<'_, History> {
        self.story.lock().expect("nobody panics with it")
    }

    /// Writes a call down.
    pub fn record(&self, call: Call) {
        if let Some(reply) = call.reply() {
            self.known.fetch_max(reply.revision(), Ordering::SeqCst);
            self.acknowledged.fetch_add(u64::from(matches!(reply, Reply::Wrote { .. })), Ordering::SeqCst);
        }
        self.story().calls.push(call);
    }

    /// Writes a watch down.
    pub fn watched(&self, watched: Watched) {
        // A watch from the future that saw nothing knows nothing.
        if !watched.seen.is_empty() {
            self.known.fetch_max(watched.covered(), Ordering::SeqCst);
        }
        self.story().watches.push(watched);
    }

    /// Writes a compaction down; false if that is the store's own business.
    fn compacting(&self, at: Revision) -> bool {
        let mut story = self.story();
        let ours = story.compacted < Revision::MAX;
        story.compacted = story.compacted.max(at);
        ours
    }

    /// The store compacts by itself, so nobody knows which previous values are gone.
    pub fn compacts_by_itself(&self) {
        self.story().compacted = Revision::MAX;
    }

    /// What was written down, when all is over.
    pub fn history(&self) -> History {
        let mut history = std::mem::take(&mut *self.story());
        history.last = self.last.load(Ordering::SeqCst);
        history
    }

    /// The leases that nobody renews any more.
    pub fn leases(&self) -> Vec<Lease> {
        self.story().leases.clone()
    }
}

/// One client: one call after the other, each to any member, until the run stops.
pub async fn client(run: &Run, number: u64, pace: Duration) {
    let mut random = Random::stream(run.seed, number);
    let mut seen: Option<(String, Revision)> = None;
    for count in 0.. {
        if !run.goes_on() {
            break;
        }
        let fat = if random.below(FAT) == 0 { "~65536" } else { "" };
        let value = format!("c{number}-{count}{fat}");
        let request = request(&mut random, &value, seen.as_ref(), run.known());
        let member = random.index(run.clients.count());
        let call = run.clients.call(number, member, request).await;
        if let (Request::Read { keys, at: None, .. }, Some(Reply::Found { keys: found, .. })) =
            (&call.request, call.reply())
        {
            seen = found.iter().next().map(|(key, state)| (key.clone(), state.modified));
            seen = seen.or_else(|| (keys.to.ends_with('\0')).then(|| (keys.from.clone(), 0)));
        }
        run.record(call);
        tokio::time::sleep(random.milliseconds(0, 1) + pace).await;
    }
}

fn request(random: &mut Random, value: &str, seen: Option<&(String, Revision)>, known: Revision) -> Request {
    let key = format!("k{}", random.below(KEYS));
    match (random.below(100), seen) {
        (0..30, _) => write(None, [put(&key, value)]),
        (30..50, Some((key, at))) => write(Some((key.clone(), *at)), [put(key, value)]),
        (50..60, _) => write(None, [Change::Delete { key }]),
        (60..68, _) => transfer(random, value, seen.cloned()),
        (68..85, _) => read(random, key, None, false),
        (85..94, _) => read(random, key, None, true),
        _ => {
            let at = (known - i64::try_from(random.below(60)).expect("small")).max(1);
            read(random, key, Some(at), false)
        }
    }
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned(), value: value.to_owned(), lease: 0 }
}

fn write(guard: Option<(String, Revision)>, changes: impl Into<Vec<Change>>) -> Request {
    Request::Write { guard, changes: changes.into() }
}

/// Two puts and a delete of different keys, at once.
fn transfer(random: &mut Random, value: &str, guard: Option<(String, Revision)>) -> Request {
    let first = random.below(KEYS);
    let key = |step: u64| format!("k{}", (first + step) % KEYS);
    let changes = [
        put(&key(0), &format!("a{value}")),
        put(&key(1), &format!("b{value}")),
        Change::Delete { key: key(2) },
    ];
    write(guard.filter(|_| random.below(2) == 0), changes)
}

fn read(random: &mut Random, key: String, at: Option<Revision>, serializable: bool) -> Request {
    let keys = if random.below(4) == 0 { Keys::all() } else { Keys::one(&key) };
    Request::Read { keys, at, serializable }
}

/// Grants a lease, hangs a key on it, renews it for a while, lets it end, and begins again.
pub async fn lease_owner(run: &Run, number: u64) {
    let mut random = Random::stream(run.seed, 1000 + number);
    for count in 0.. {
        if !run.goes_on() {
            break;
        }
        let key = format!("l{number}-{count}");
        let Some(mut lease) = grant(run, &mut random, &key).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        for _ in 0..random.below(4) {
            tokio::time::sleep(random.milliseconds(100, 1500)).await;
            renew(run, &mut random, &mut lease).await;
        }
        if random.below(4) == 0 {
            revoke(run, &mut random, &mut lease).await;
        }
        run.story().leases.push(lease);
    }
}

async fn grant(run: &Run, random: &mut Random, key: &str) -> Option<Lease> {
    let member = random.index(run.clients.count());
    let id = 1 + i64::try_from(random.below(1 << 40)).expect("small");
    let sent = Instant::now();
    let options = LeaseGrantOptions::new().with_id(id);
    let mut client = run.clients.of(member);
    let granted = tokio::time::timeout(ATTEMPT, client.lease_grant(2, Some(options))).await.ok()?.ok()?;
    let ttl = Duration::from_secs(u64::try_from(granted.ttl()).expect("a positive time to live"));
    let put = Change::Put { key: key.to_owned(), value: key.to_owned(), lease: id };
    let call = run.clients.call(1000, member, write(None, [put])).await;
    let revoked = call.reply().is_none();
    run.record(call);
    Some(Lease { id, ttl, key: key.to_owned(), renewed: vec![sent], revoked })
}

async fn renew(run: &Run, random: &mut Random, lease: &mut Lease) {
    let mut client = run.clients.of(random.index(run.clients.count()));
    let sent = Instant::now();
    if let Ok(Ok(_)) = tokio::time::timeout(ATTEMPT, client.lease_keep_alive(lease.id)).await {
        lease.renewed.push(sent);
    }
}

async fn revoke(run: &Run, random: &mut Random, lease: &mut Lease) {
    lease.revoked = true;
    let mut client = run.clients.of(random.index(run.clients.count()));
    tokio::time::timeout(ATTEMPT, client.lease_revoke(lease.id)).await.ok();
}

/// Compacts now and then what every long watch has seen.
pub async fn compactor(run: &Run) {
    let mut random = Random::stream(run.seed, 2000);
    while run.goes_on() {
        tokio::time::sleep(random.milliseconds(300, 1200)).await;
        let seen = run.collected.iter().map(|seen| seen.load(Ordering::SeqCst)).min().unwrap_or(0);
        let at = seen - 100;
        if at > 1 && run.compacting(at) {
            let mut client = run.clients.of(random.index(run.clients.count()));
            tokio::time::timeout(ATTEMPT, client.compact(at, None)).await.ok();
        }
    }
}

/// Takes backups.
pub async fn maintainer(run: &Run) {
    let mut random = Random::stream(run.seed, 2500);
    while run.goes_on() {
        tokio::time::sleep(random.milliseconds(100, 400)).await;
        let member = random.index(run.clients.count());
        tokio::time::timeout(ATTEMPT, backup(run.clients.of(member))).await.ok();
    }
}

/// Reads a backup to its end, and throws it away.
async fn backup(mut client: Client) -> Result<(), Error> {
    let mut stream = client.snapshot().await?;
    while stream.message().await?.is_some() {}
    Ok(())
}

/// The content of a key now, by a linearizable read through `member`.
pub async fn look(run: &Run, member: usize, key: &str) -> Option<Option<KeyState>> {
    let request = Request::Read { keys: Keys::one(key), at: None, serializable: false };
    let call = run.clients.call(2000, member, request).await;
    let found = match call.reply() {
        Some(Reply::Found { keys, .. }) => Some(keys.get(key).cloned()),
        _ => None,
    };
    run.record(call);
    found
}
