//! What all services share: the store, the limits, and the header of every answer.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use store::Store;
use store::kv::{Kv, MemberId, Revision};
use tokio::sync::watch;

use crate::config::{Config, Limits};
use crate::error;
use crate::grpc::{Metadata, Status};
use crate::proto::etcdserverpb::ResponseHeader;
use crate::watch::EncodedEvents;

/// A member of the cluster as etcd's clients see it.
pub struct Member {
    /// What it serves.
    pub store: Store,
    /// Sizes and times.
    pub limits: Limits,
    /// Becomes true when the server stops.
    pub stop: watch::Receiver<bool>,
    /// Events as they are on the wire, for all watchers.
    pub encoded: EncodedEvents,
    /// Of the URLs of members.
    pub peer_scheme: &'static str,
    /// Leaders that this member has seen come after another.
    pub leader_changes: AtomicU64,
    cluster: u64,
    id: MemberId,
}

impl Member {
    /// Serves `store`.
    pub fn new(store: Store, config: &Config, stop: watch::Receiver<bool>) -> Self {
        let (cluster, id) = (store.cluster(), store.status().member);
        let peer_scheme = if config.peer_tls { "https" } else { "http" };
        let encoded = EncodedEvents::default();
        let leader_changes = AtomicU64::new(0);
        Self { store, limits: config.limits, stop, encoded, peer_scheme, leader_changes, cluster, id }
    }

    /// The header of an answer given at `revision`.
    pub fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster,
            member_id: self.id.0,
            revision: wire(revision),
            raft_term: self.store.term(),
        }
    }

    /// The header of an answer that has no revision of its own.
    pub fn header_now(&self) -> ResponseHeader {
        self.header(self.store.status().revision)
    }

    /// Refuses a call that wants a leader while none is known.
    ///
    /// # Errors
    /// [`error::no_leader`].
    pub fn check_leader(&self, metadata: &Metadata) -> Result<(), Status> {
        match metadata.require_leader && self.store.leadership().borrow().is_none() {
            true => Err(error::no_leader()),
            false => Ok(()),
        }
    }

    /// Counts leaders until the server stops.
    pub async fn count_leaders(&self) {
        let mut leadership = self.store.leadership();
        let mut last = *leadership.borrow_and_update();
        let mut stopped = pin!(self.stopped());
        loop {
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = stopped.as_mut() => return,
            }
            let leader = *leadership.borrow_and_update();
            if last.is_some() && leader.is_some() && leader != last {
                self.leader_changes.fetch_add(1, Ordering::Relaxed);
            }
            last = leader.or(last);
        }
    }

    /// Returns when the server stops.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // An error means that the sender is gone, which stops the server too.
        let _stopped = stop.wait_for(|stop| *stop).await;
    }

    /// Returns when there is no leader for long enough that a client which wants one should look
    /// elsewhere. etcd waits for three election timeouts; ours elects well within one second.
    pub async fn leader_lost(&self) {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
        let mut leader = self.store.leadership();
        loop {
            if leader.wait_for(Option::is_none).await.is_err() {
                return;
            }
            let back = tokio::time::timeout(PATIENCE, leader.wait_for(Option::is_some));
            if back.await.is_err() {
                return;
            }
        }
    }
}

/// A revision as the wire has it.
pub fn wire(revision: Revision) -> i64 {
    i64::try_from(revision.0).expect("a store doesn't live to see 2^63 revisions")
}
