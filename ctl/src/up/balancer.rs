//! The one address of a cluster with several members: connections go to members that answer.
//!
//! Each member is asked `/readyz` again and again; one that doesn't answer in time, such as a stopped
//! process, is left out and its connections are cut, so that clients come back and reach another one. Bytes
//! pass untouched: TLS is between client and member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::health::Health;
use super::layout::ChildId;

/// Between two questions to one member.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// A member that takes longer to answer counts as dead.
const PROBE_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a new connection waits for a living member before it is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time. The next ones wait in the listener's backlog: their clients wait.
const CONNECTIONS: usize = 4096;

/// Asks one member whether it can serve.
pub type Probe = Arc<dyn Fn(ChildId) -> futures::future::BoxFuture<'static, bool> + Send + Sync>;

struct Shared {
    addresses: BTreeMap<ChildId, SocketAddr>,
    health: Mutex<Health>,
    /// Counts changes of `health`; whoever waits for a member, or must drop one, looks again.
    changed: watch::Sender<u64>,
}

/// Accepts and forwards until it is dropped or aborted; everything it started ends with it.
pub async fn run(listener: TcpListener, addresses: BTreeMap<ChildId, SocketAddr>, probe: Probe) {
    let shared = Arc::new(Shared {
        health: Mutex::new(Health::new(addresses.keys().copied())),
        addresses,
        changed: watch::Sender::new(0),
    });
    let mut tasks = JoinSet::new();
    for id in shared.addresses.keys().copied().collect::<Vec<_>>() {
        tasks.spawn(watch_member(shared.clone(), id, probe.clone()));
    }
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("this semaphore is never closed");
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let shared = shared.clone();
                    tasks.spawn(async move {
                        forward(shared, client).await;
                        drop(slot);
                    });
                }
                // Out of descriptors, or the client is gone already: the next one may work.
                Err(error) => tracing::warn!(%error, "cannot accept a connection"),
            },
            // Finished connections are collected as they end.
            Some(_) = tasks.join_next() => {}
        }
    }
}

impl Shared {
    fn observe(&self, id: ChildId, lives: bool) {
        if self.health.lock().observe(id, lives) {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

async fn watch_member(shared: Arc<Shared>, id: ChildId, probe: Probe) {
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let lives = timeout(PROBE_TIMEOUT, probe(id)).await.unwrap_or(false);
        shared.observe(id, lives);
    }
}

async fn forward(shared: Arc<Shared>, mut client: TcpStream) {
    let Ok(Some((id, mut member))) = timeout(PATIENCE, connect(&shared)).await else { return };
    // Small answers must not wait for more; an error here only costs time.
    let _ = client.set_nodelay(true);
    let _ = member.set_nodelay(true);
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut member) => {}
        () = dies(&shared, id) => {}
    }
}

/// A connection to a living member, as soon as there is one.
async fn connect(shared: &Shared) -> Option<(ChildId, TcpStream)> {
    let mut changed = shared.changed.subscribe();
    loop {
        let chosen = shared.health.lock().choose();
        match chosen {
            Some(id) => match timeout(PROBE_TIMEOUT, TcpStream::connect(shared.addresses[&id])).await {
                Ok(Ok(stream)) => return Some((id, stream)),
                _ => shared.observe(id, false),
            },
            None => changed.changed().await.ok()?,
        }
    }
}

async fn dies(shared: &Shared, id: ChildId) {
    let mut changed = shared.changed.subscribe();
    while shared.health.lock().lives(id) {
        if changed.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::ports::local;
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A member that greets with its name.
    async fn member(name: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind(local(0)).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(name.as_bytes()).await.expect("written");
                open.push(stream);
            }
        });
        (address, task)
    }

    async fn greeted(address: SocketAddr) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let mut name = [0; 2];
        stream.read_exact(&mut name).await.expect("a greeting");
        (String::from_utf8_lossy(&name).into_owned(), stream)
    }

    #[tokio::test]
    async fn connections_go_to_living_members_and_are_cut_when_theirs_dies() {
        let (one, two) = (ChildId::Member(1), ChildId::Member(2));
        let ((first, _first), (second, _second)) = (member("m1").await, member("m2").await);
        let (lives, living) = watch::channel(vec![one]);
        let probe: Probe = Arc::new(move |id| {
            let lives = living.borrow().contains(&id);
            async move { lives }.boxed()
        });
        let listener = TcpListener::bind(local(0)).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let balancer = tokio::spawn(run(listener, BTreeMap::from([(one, first), (two, second)]), probe));
        let (name, mut stream) = greeted(address).await;
        assert_eq!(name, "m1");
        lives.send_replace(vec![two]);
        let cut = timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await.expect("cut in time");
        assert!(matches!(cut, Ok(0) | Err(_)), "the connection to a dead member is cut: {cut:?}");
        assert_eq!(greeted(address).await.0, "m2");
        balancer.abort();
    }
}
