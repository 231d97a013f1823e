//! The way to the store's thread, and what everyone may see of its state.

use std::collections::BTreeSet;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use crate::command::{Applied, Command};
use crate::kv::{KvError, MemberId, Status};
use crate::membership::Membership;
use crate::raft::lease_desk::{LeaseAnswer, LeaseAsk};
use crate::raft::replica::Input;
use crate::snapshot::offer::Offers;

/// What the thread is asked.
pub enum Request {
    /// Do this and tell the result.
    Propose(Command, oneshot::Sender<Applied>),
    /// Tell when a linearizable read may be made.
    Read(oneshot::Sender<Result<(), KvError>>),
    /// Ask the leader about a lease.
    Lease(LeaseAsk, oneshot::Sender<LeaseAnswer>),
    /// Anything that nobody waits for.
    Input(Input),
    /// A member calls whom the membership doesn't know yet; answer it at this address.
    Answer(MemberId, String),
    /// End.
    Stop,
}

/// How others see the thread's state. Cheap to read, updated after every batch.
pub struct Shared {
    pub(super) status: RwLock<Status>,
    /// Every acknowledged write is applied here and nobody else can acknowledge any: reads need no quorum.
    pub(super) sole: std::sync::atomic::AtomicBool,
    pub(super) leader: watch::Sender<Option<MemberId>>,
    pub(super) membership: RwLock<Arc<Membership>>,
    pub(super) healthy: RwLock<BTreeSet<MemberId>>,
    pub(super) removed: watch::Sender<bool>,
    /// Why this member may answer nothing any more.
    pub(super) fence: OnceLock<KvError>,
    /// The moments of the database that are kept for others.
    pub offers: Offers,
}

/// The way to the thread.
#[derive(Clone)]
pub struct Handle {
    pub(super) queue: SyncSender<Request>,
    /// Its state.
    pub shared: Arc<Shared>,
}

impl Handle {
    /// Hands a request over.
    ///
    /// # Errors
    /// [`KvError::Overloaded`] or [`KvError::Closed`].
    pub fn send(&self, request: Request) -> Result<(), KvError> {
        self.queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => KvError::Overloaded,
            TrySendError::Disconnected(_) => KvError::Closed,
        })
    }

    /// Hands over something that may be lost.
    pub fn notify(&self, input: Input) {
        let _lost = self.send(Request::Input(input));
    }

    /// Lets a caller be answered whom the membership doesn't know yet. May be lost: it calls again.
    pub fn answer(&self, caller: MemberId, address: String) {
        let _lost = self.send(Request::Answer(caller, address));
    }

    /// Hands over something that must not be lost, waiting for a place in the queue on a thread that
    /// may block.
    pub async fn deliver(&self, input: Input) {
        let queue = self.queue.clone();
        let delivered = tokio::task::spawn_blocking(move || queue.send(Request::Input(input)).is_ok()).await;
        // Otherwise the store's thread is gone, and nobody needs the input any more.
        tracing::trace!(?delivered, "an input that must not be lost");
    }

    /// Asks the thread to end, waiting for a place in its queue.
    pub fn stop(&self) {
        let _already_gone = self.queue.send(Request::Stop);
    }
}

impl Shared {
    /// This member's view of the group.
    pub fn status(&self) -> Status {
        self.status.read().clone()
    }

    /// The Raft term.
    pub fn term(&self) -> u64 {
        self.status.read().term
    }

    /// From now on nothing is answered but this.
    pub fn fence(&self, reason: KvError) {
        // Who was first has said it all.
        let _already = self.fence.set(reason);
    }

    /// Whether this member may answer at all.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] if it is fenced.
    pub fn check_fence(&self) -> Result<(), KvError> {
        self.fence.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Whether reads here are linearizable without asking anyone.
    pub fn is_sole(&self) -> bool {
        self.sole.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Who belongs to the group, as far as this member has applied.
    pub fn membership(&self) -> Arc<Membership> {
        self.membership.read().clone()
    }

    /// Whom this member has heard of lately, itself included. As of the last tick.
    pub fn healthy(&self) -> BTreeSet<MemberId> {
        self.healthy.read().clone()
    }

    /// Follows whether the group has removed this member.
    pub fn removal(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    /// Follows the leader.
    pub fn leadership(&self) -> watch::Receiver<Option<MemberId>> {
        self.leader.subscribe()
    }
}
