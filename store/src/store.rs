//! [`Store`]: the real [`Kv`], Raft over RocksDB.
//!
//! Reads run on the caller's task over a view of one moment; writes go through the store's thread. A
//! linearizable read waits until a quorum has confirmed the commit index and this member has applied it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::fcntl::Flock;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::command::{Command, Outcome};
use crate::config::Config;
use crate::driver::{self, Driver, Handle, Request};
use crate::journal::Journal;
use crate::kv::{
    Consistency, Kv, KvError, Lease, LeaseId, LeaseInfo, MemberId, RangeRequest, RangeResponse, Revision,
    Status, Txn, TxnResponse, Watch, WatchRequest,
};
use crate::mark::{self, Mark};
use crate::mvcc::state::Head;
use crate::mvcc::view::DiskError;
use crate::mvcc::{apply, read};
use crate::peer::{self, PeerContext};
use crate::raft::lease_desk::{LeaseAsk, LeaseLeft};
use crate::raft::replica::{Input, Replica};
use crate::rocks::Rocks;
use crate::snapshot::incoming;
use crate::space::Space;
use crate::start;
use crate::validate;
use crate::verify;
use crate::watch::hub::Hub;
use crate::watch::task::{self, Watches};

mod journal;
mod opening;

pub use opening::OpenError;
pub(crate) use opening::lock_dir;
use opening::{check, check_mark, dir_error, replica_config};

/// How long [`Store::open`] of a group of one waits until it leads itself.
const SOLE_START_TIMEOUT: Duration = Duration::from_secs(10);

/// A read that looks at no more records than this is made on the caller's task: waking another thread takes
/// longer. One that turns out to be longer begins again on a thread that may block.
const INLINE_RECORDS: usize = 256;
/// Long reads at once; more wait.
const LONG_READS: usize = 4;

/// How long a closing leader waits for another to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(500);

/// A member of the replicated store. Clones share it; [`Store::close`] ends it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: u64,
    rocks: Rocks,
    mark: Mark,
    handle: Handle,
    watches: Arc<Watches>,
    shutdown: watch::Sender<bool>,
    running: Mutex<Option<Running>>,
    /// Places for reads that take long.
    long_reads: Semaphore,
}

/// What has to be joined at the end.
struct Running {
    thread: std::thread::JoinHandle<()>,
    tasks: JoinSet<()>,
    /// Held as long as the directory is used.
    _lock: Flock<OwnedFd>,
}

impl Store {
    /// Opens the member's directory, recovers everything acknowledged, and joins its group.
    ///
    /// # Errors
    /// [`OpenError`] says what was attempted on which path or address.
    pub async fn open(config: Config) -> Result<Store, OpenError> {
        Self::open_with(config, None).await
    }

    /// Like [`Store::open`], on a listener that is bound already if there is one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(config: Config, listener: Option<TcpListener>) -> Result<Store, OpenError> {
        check(&config)?;
        let snapshots = config.dir.join("snapshots");
        std::fs::create_dir_all(&snapshots).map_err(dir_error(&snapshots, "create the directory"))?;
        let lock = lock_dir(&config.dir)?;
        let path = config.dir.clone();
        let rocks = Rocks::open(&path.join("db"), &snapshots, &config.limits)
            .map_err(|source| OpenError::Database { path: path.clone(), source })?;
        // Files of snapshots that were on their way are worth nothing now.
        incoming::remove_all(&snapshots);
        let start = start::resolve(&config, &rocks).await?;
        let listener = match listener {
            None => start::listen(&config, &start).await?,
            bound => bound,
        };
        let (id, cluster) = (start.id, start.cluster.0);
        let replica_config = replica_config(&config, &start);
        let replica = Replica::start(replica_config, rocks.clone(), driver::now(Instant::now()))
            .map_err(|source| OpenError::Start { path: path.clone(), source })?;
        let mark = Mark::new(&config.dir);
        check_mark(&mark, &replica)?;
        let head = replica.state().head;
        let hub = Hub::new(head.revision, head.compacted, config.limits.recent_events_bytes);
        let watches = Watches::new(hub, config.limits.watch_buffer);
        let (shutdown, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let (outbox, links) = peer::outbox(id);
        let sole = replica.membership().voters() == [id];
        let driver = Driver {
            replica,
            outbox,
            watches: watches.clone(),
            snapshots: snapshots.clone(),
            history: config.history,
            tick: config.tick,
            introduced: start.introduced,
            space: Space::new(&config.dir, &config.limits),
        };
        let (handle, thread) = driver::spawn(driver).map_err(dir_error(&path, "start the store's thread"))?;
        tasks.spawn(task::serve(watches.clone(), rocks.clone(), stop.clone()));
        tasks.spawn(mark::keep(mark.clone(), handle.clone(), stop.clone()));
        tasks.spawn(verify::run(rocks.clone(), handle.clone(), id, stop.clone()));
        let context = PeerContext::new(cluster, id, &config, handle.clone(), snapshots);
        peer::spawn(&mut tasks, &context, links, listener, &stop);
        let running = Mutex::new(Some(Running { thread, tasks, _lock: lock }));
        let long_reads = Semaphore::new(LONG_READS);
        let inner = Inner { cluster, rocks, mark, handle, watches, shutdown, running, long_reads };
        let store = Store { inner: Arc::new(inner) };
        if sole {
            store.wait_until_sole().await?;
            store.move_to(start.peer_address).await;
        }
        Ok(store)
    }

    /// Ends the member: waiting callers get [`KvError::Closed`], watches end, and when this returns the
    /// directory is free, provided that nobody is still reading.
    ///
    /// A leader first hands over, so that the others needn't notice its absence.
    pub async fn close(self) {
        self.hand_over().await;
        self.stop().await;
    }

    /// Ends the member without handing over, as a crash would, but for the joined threads.
    pub(crate) async fn stop(self) {
        self.inner.shutdown.send_replace(true);
        let Some(mut running) = self.inner.running.lock().take() else { return };
        let handle = self.inner.handle.clone();
        let joined = tokio::task::spawn_blocking(move || {
            handle.stop();
            running.thread.join()
        });
        while running.tasks.join_next().await.is_some() {}
        // Nobody takes their blocks any more, so the threads that stream end, too.
        let handle = self.inner.handle.clone();
        let _ended = tokio::task::spawn_blocking(move || handle.shared.offers.close()).await;
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the store's thread ended by a panic");
            return;
        }
        if let Err(error) = self.inner.mark.write(self.status().applied_index) {
            tracing::debug!(%error, "the high-water mark can't be written");
        }
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Option<MemberId>> {
        self.inner.handle.shared.leadership()
    }

    /// The Raft term, as in [`Status::term`] but cheaper: every answer to an etcd client has it.
    pub fn term(&self) -> u64 {
        self.inner.handle.shared.term()
    }

    /// Asks for leadership to move to `to`; returns when this member sees it there.
    ///
    /// # Errors
    /// [`KvError::Unavailable`] if that doesn't happen within `timeout`.
    pub async fn transfer_leader(&self, to: MemberId, timeout: Duration) -> Result<(), KvError> {
        let mut leader = self.leadership();
        self.inner.handle.send(Request::Input(Input::TransferLeader(to)))?;
        let arrived = tokio::time::timeout(timeout, leader.wait_for(|leader| *leader == Some(to))).await;
        match arrived {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(KvError::Closed),
            Err(_) => Err(KvError::Unavailable(format!("leadership didn't move to member {to}"))),
        }
    }

    /// The digest of everything applied up to the returned Raft index; equal on all members at equal index.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn digest(&self) -> Result<(u64, u64), KvError> {
        let head = Head::load(&self.rocks()?.view()).map_err(unreadable)?;
        Ok((head.index, head.digest))
    }

    /// Gives leadership to another member if it is ours, within a short time.
    async fn hand_over(&self) {
        let status = self.status();
        if status.leader == Some(status.member)
            && let Some(other) = status.voters.iter().find(|id| **id != status.member)
            && let Err(error) = self.transfer_leader(*other, HAND_OVER_TIMEOUT).await
        {
            tracing::debug!(%error, "leadership isn't handed over; the others will elect a leader");
        }
    }

    async fn wait_until_sole(&self) -> Result<(), OpenError> {
        let mut leader = self.leadership();
        let ready = async {
            while !self.inner.handle.shared.is_sole() {
                if self.confirm_read().await.is_err() && leader.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(SOLE_START_TIMEOUT, ready).await.map_err(|_| OpenError::NotReady)
    }

    /// What the store's thread tells everyone.
    pub(crate) fn shared(&self) -> &crate::driver::Shared {
        &self.inner.handle.shared
    }

    /// The database, for reading.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] if this member is fenced.
    pub(crate) fn rocks(&self) -> Result<&Rocks, KvError> {
        self.inner.handle.shared.check_fence()?;
        Ok(&self.inner.rocks)
    }

    /// The number of the cluster that this member belongs to.
    pub fn cluster(&self) -> u64 {
        self.inner.cluster
    }

    /// Which member.
    pub(crate) fn member_id(&self) -> MemberId {
        self.status().member
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, KvError> {
        let (reply, result) = oneshot::channel();
        self.inner.handle.send(Request::Propose(command, reply))?;
        // The thread answers every request or is gone; then the write may be in the log.
        result.await.unwrap_or(Err(KvError::Unknown))
    }

    async fn propose_lease(&self, command: Command) -> Result<Lease, KvError> {
        match self.propose(command).await? {
            Outcome::Lease(lease) => Ok(lease),
            other => unreachable!("a lease command has a lease as its outcome, not {other:?}"),
        }
    }

    /// Asks whoever leads about a lease.
    async fn ask_leader(&self, ask: LeaseAsk) -> Result<LeaseLeft, KvError> {
        let (reply, result) = oneshot::channel();
        self.inner.handle.send(Request::Lease(ask, reply))?;
        result.await.unwrap_or(Err(KvError::Closed))
    }

    /// Runs a read that may take long where it holds up no other task; few at a time.
    async fn read_aside<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Rocks) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        // Waits while as many others read; the semaphore is never closed.
        let _place = self.inner.long_reads.acquire().await;
        let rocks = self.rocks()?.clone();
        let done = tokio::task::spawn_blocking(move || read(&rocks)).await;
        done.unwrap_or_else(|_| Err(KvError::Unavailable("the read was broken off".into())))
    }

    /// Returns when everything acknowledged before the call is applied here.
    async fn confirm_read(&self) -> Result<(), KvError> {
        if self.inner.handle.shared.is_sole() {
            return Ok(());
        }
        let (reply, result) = oneshot::channel();
        self.inner.handle.send(Request::Read(reply))?;
        result.await.unwrap_or(Err(KvError::Closed))
    }
}

#[async_trait]
impl Kv for Store {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        if request.consistency == Consistency::Linearizable {
            self.confirm_read().await?;
        }
        if let Some(response) = read_range(self.rocks()?, &request, INLINE_RECORDS)? {
            return Ok(response);
        }
        let read = move |rocks: &Rocks| read_range(rocks, &request, usize::MAX);
        Ok(self.read_aside(read).await?.expect("no range has so many records"))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        validate::check_txn(&txn)?;
        match self.propose(Command::Txn(txn)).await? {
            Outcome::Txn(response) => Ok(response),
            other => unreachable!("a transaction has a transaction as its outcome, not {other:?}"),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError> {
        self.inner.handle.shared.check_fence()?;
        self.inner.watches.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.propose(Command::Compact(revision)).await.map(drop)
    }

    async fn lease_grant(&self, id: Option<LeaseId>, ttl_seconds: u64) -> Result<Lease, KvError> {
        validate::check_lease(id, ttl_seconds)?;
        self.propose_lease(Command::LeaseGrant { id, ttl_seconds }).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, KvError> {
        let left = self.ask_leader(LeaseAsk::KeepAlive(id)).await?;
        Ok(Lease { id, ttl_seconds: left.ttl_seconds })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), KvError> {
        self.propose(Command::LeaseRevoke(id)).await.map(drop)
    }

    async fn lease_info(&self, id: LeaseId) -> Result<LeaseInfo, KvError> {
        let left = self.ask_leader(LeaseAsk::Left(id)).await?;
        // The leader knew it a moment ago; its keys are read as of after that.
        self.confirm_read().await?;
        let view = self.rocks()?.view();
        if !apply::lease_exists(&view, id).map_err(unreadable)? {
            return Err(KvError::LeaseNotFound(id));
        }
        let keys = apply::attached(&view, id).map_err(unreadable)?;
        let LeaseLeft { ttl_seconds: granted_ttl_seconds, remaining } = left;
        Ok(LeaseInfo { id, granted_ttl_seconds, remaining, keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        self.confirm_read().await?;
        let leases = apply::leases(&self.rocks()?.view()).map_err(unreadable)?;
        Ok(leases.into_iter().map(|(id, _)| id).collect())
    }

    fn status(&self) -> Status {
        self.inner.handle.shared.status()
    }

    fn journal(&self) -> Option<&dyn Journal> {
        Some(self)
    }
}

/// Answers a range request from the newest state here, unless it takes a look at more than `most` records.
fn read_range(rocks: &Rocks, request: &RangeRequest, most: usize) -> Result<Option<RangeResponse>, KvError> {
    let view = rocks.view();
    let head = Head::load(&view).map_err(unreadable)?;
    read::check_revision(&head, request.revision)?;
    read::range_within(&view, head.revision, request, most).map_err(unreadable)
}

/// A read failed: told to the log here, and to the caller.
pub(crate) fn unreadable(error: DiskError) -> KvError {
    tracing::error!(%error, "a read failed on this member's disk");
    KvError::Unavailable(format!("this member's disk can't be read: {error}"))
}
