//! [`EtcdKv`]: the store's contract over a stock etcd cluster (3.4 or later).
//!
//! What etcd doesn't have is missing: the journal (the origin of a write is dropped), and the revision that
//! history is compacted to is not told with an error. Progress of a quiet watch comes once a second from
//! etcd 3.5.13 and 3.4.31 on; before, requested progress could overtake events
//! (<https://github.com/etcd-io/etcd/issues/15220>), so there it comes only every ten minutes, by itself.

mod channel;
mod convert;
mod failure;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use prost::Message;
use store::kv::{
    Consistency, Kv, KvError, Lease, LeaseId, LeaseInfo, MemberId, RangeRequest, RangeResponse, Revision,
    Status, Txn, TxnResponse, Watch, WatchRequest,
};

use crate::proto::etcdserverpb as pb;
use channel::{CallError, Channel};
use failure::{Attempt, Subject};

pub use channel::EndpointError;

/// An answer that takes longer counts as none.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An endpoint can't be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No endpoint answered.
    #[error("none of the etcd endpoints {endpoints} answers: {why}")]
    Unreachable {
        /// All of them.
        endpoints: String,
        /// What the last one said.
        why: String,
    },
}

/// The store's contract over an etcd cluster. Clones share connections.
#[derive(Clone)]
pub struct EtcdKv {
    inner: Arc<Inner>,
}

struct Inner {
    channel: Channel,
    status: RwLock<Status>,
    /// Requested progress never overtakes events.
    ordered_progress: bool,
}

impl EtcdKv {
    /// Connects to the first endpoint (`http://host:port`, `https://host:port` or `host:port`) that answers;
    /// the others take over when it doesn't any more. `tls` is for `https` endpoints.
    ///
    /// # Errors
    /// If an endpoint is malformed, or none answers.
    pub async fn connect(
        endpoints: Vec<String>,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Result<Self, ConnectError> {
        let channel = Channel::new(&endpoints, tls)?;
        let unreachable = |error: CallError| ConnectError::Unreachable {
            endpoints: endpoints.join(", "),
            why: error.to_string(),
        };
        let answer = channel.unary("etcdserverpb.Maintenance/Status", &pb::StatusRequest {}, REQUEST_TIMEOUT);
        let answer: pb::StatusResponse = answer.await.map_err(unreachable)?;
        tracing::info!(
            version = answer.version,
            "the store is an etcd: the journal is missing, who wrote what and why is not recorded"
        );
        let ordered_progress = orders_progress(&answer.version);
        let inner = Inner { channel, status: RwLock::new(convert::status(&answer)), ordered_progress };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Calls, and learns from the header of the answer.
    async fn call<Q: Message, A: Message + Default + HasHeader>(
        &self,
        path: &'static str,
        request: &Q,
    ) -> Result<A, CallError> {
        let called = self.inner.channel.unary::<Q, A>(path, request, REQUEST_TIMEOUT).await;
        match &called {
            Ok(answer) => self.inner.learn(answer.header()),
            Err(error) if error.is_no_leader() || error.was_not_sent() => {
                self.inner.status.write().leader = None
            }
            Err(_) => {}
        }
        called
    }

    /// Calls something that may be asked twice.
    async fn read<Q: Message, A: Message + Default + HasHeader>(
        &self,
        path: &'static str,
        request: &Q,
        subject: Subject<'_>,
    ) -> Result<A, KvError> {
        let answer = self.try_endpoints(path, request, CallError::is_transient).await;
        answer.map_err(|error| self.error(error, Attempt::Read, subject))
    }

    /// Calls something that must happen once: when its outcome is unknown, the caller has to know.
    async fn write<Q: Message, A: Message + Default + HasHeader>(
        &self,
        path: &'static str,
        request: &Q,
        subject: Subject<'_>,
    ) -> Result<A, KvError> {
        let answer = self.try_endpoints(path, request, CallError::was_not_sent).await;
        answer.map_err(|error| self.error(error, Attempt::Write, subject))
    }

    /// Calls one endpoint after the other while they fail in a way after which the call may be repeated.
    async fn try_endpoints<Q: Message, A: Message + Default + HasHeader>(
        &self,
        path: &'static str,
        request: &Q,
        may_repeat: impl Fn(&CallError) -> bool,
    ) -> Result<A, CallError> {
        for _endpoint in 0..self.inner.channel.endpoints() {
            match self.call(path, request).await {
                Err(error) if may_repeat(&error) => {}
                answer => return answer,
            }
        }
        self.call(path, request).await
    }

    fn error(&self, error: CallError, attempt: Attempt, subject: Subject<'_>) -> KvError {
        let status = self.inner.status.read();
        failure::kv_error(error, attempt, subject, &status)
    }
}

impl Inner {
    /// Revisions only rise; an answer may be older than one that overtook it.
    fn learn(&self, header: Option<&pb::ResponseHeader>) {
        let Some(header) = header else { return };
        let mut status = self.status.write();
        status.member = MemberId(header.member_id);
        status.revision = status.revision.max(convert::revision(header.revision));
        status.term = status.term.max(header.raft_term);
    }

    /// A leader is known again.
    fn learn_leader(&self, answer: &pb::StatusResponse) {
        let fresh = convert::status(answer);
        let mut status = self.status.write();
        let (revision, compacted) = (status.revision.max(fresh.revision), status.compacted);
        *status = Status { revision, compacted, ..fresh };
    }

    fn learn_compacted(&self, compacted: Revision) {
        let mut status = self.status.write();
        status.compacted = status.compacted.max(compacted);
    }
}

#[async_trait]
impl Kv for EtcdKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let subject = Subject { revision: request.revision, ..Subject::default() };
        let wire = convert::range(&request);
        let answer: pb::RangeResponse = self.read("etcdserverpb.KV/Range", &wire, subject).await?;
        if self.inner.status.read().leader.is_none() && request.consistency == Consistency::Linearizable {
            self.refresh().await;
        }
        let revision = convert::header_revision(answer.header.as_ref());
        Ok(convert::range_response(answer, &request, revision))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        let subject = Subject { txn: Some(&txn), ..Subject::default() };
        let wire = convert::txn(&txn);
        let answer: pb::TxnResponse = self.write("etcdserverpb.KV/Txn", &wire, subject).await?;
        convert::txn_response(answer, &txn)
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError> {
        watch::start(self.clone(), request).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        let subject = Subject { revision: Some(revision), ..Subject::default() };
        let wire = pb::CompactionRequest { revision: convert::wire(revision), physical: false };
        let _done: pb::CompactionResponse = self.write("etcdserverpb.KV/Compact", &wire, subject).await?;
        self.inner.learn_compacted(revision);
        Ok(())
    }

    async fn lease_grant(&self, id: Option<LeaseId>, ttl_seconds: u64) -> Result<Lease, KvError> {
        if ttl_seconds == 0 {
            // etcd would choose a time to live by itself.
            return Err(KvError::Invalid("a lease needs a time to live of at least one second".into()));
        }
        let ttl = i64::try_from(ttl_seconds).unwrap_or(i64::MAX);
        let wire = pb::LeaseGrantRequest { ttl, id: id.map_or(0, convert::lease_id) };
        let subject = Subject { lease: id, ..Subject::default() };
        let answer: pb::LeaseGrantResponse =
            self.write("etcdserverpb.Lease/LeaseGrant", &wire, subject).await?;
        Ok(Lease { id: LeaseId(answer.id.cast_unsigned()), ttl_seconds: convert::seconds(answer.ttl) })
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, KvError> {
        let wire = pb::LeaseKeepAliveRequest { id: convert::lease_id(id) };
        let subject = Subject { lease: Some(id), ..Subject::default() };
        // One message on a stream is a unary call.
        let answer: pb::LeaseKeepAliveResponse =
            self.read("etcdserverpb.Lease/LeaseKeepAlive", &wire, subject).await?;
        match convert::seconds(answer.ttl) {
            0 => Err(KvError::LeaseNotFound(id)),
            ttl_seconds => Ok(Lease { id, ttl_seconds }),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), KvError> {
        let wire = pb::LeaseRevokeRequest { id: convert::lease_id(id) };
        let subject = Subject { lease: Some(id), ..Subject::default() };
        let _done: pb::LeaseRevokeResponse =
            self.write("etcdserverpb.Lease/LeaseRevoke", &wire, subject).await?;
        Ok(())
    }

    async fn lease_info(&self, id: LeaseId) -> Result<LeaseInfo, KvError> {
        let wire = pb::LeaseTimeToLiveRequest { id: convert::lease_id(id), keys: true };
        let subject = Subject { lease: Some(id), ..Subject::default() };
        let answer: pb::LeaseTimeToLiveResponse =
            self.read("etcdserverpb.Lease/LeaseTimeToLive", &wire, subject).await?;
        let Ok(remaining) = u64::try_from(answer.ttl) else { return Err(KvError::LeaseNotFound(id)) };
        let mut keys = answer.keys;
        keys.sort();
        Ok(LeaseInfo {
            id,
            granted_ttl_seconds: convert::seconds(answer.granted_ttl),
            remaining: Duration::from_secs(remaining),
            keys,
        })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        let answer: pb::LeaseLeasesResponse = self
            .read("etcdserverpb.Lease/LeaseLeases", &pb::LeaseLeasesRequest {}, Subject::default())
            .await?;
        let mut leases: Vec<_> =
            answer.leases.into_iter().map(|lease| LeaseId(lease.id.cast_unsigned())).collect();
        leases.sort();
        Ok(leases)
    }

    fn status(&self) -> Status {
        self.inner.status.read().clone()
    }
}

impl EtcdKv {
    /// Asks who leads, after an answer has shown that somebody does.
    async fn refresh(&self) {
        let request = pb::StatusRequest {};
        let asked = self.inner.channel.unary("etcdserverpb.Maintenance/Status", &request, REQUEST_TIMEOUT);
        match asked.await {
            Ok(answer) => self.inner.learn_leader(&answer),
            Err(error) => tracing::debug!(%error, "etcd doesn't say who leads"),
        }
    }
}

/// Whether requested progress is ordered with events in this version.
fn orders_progress(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version = (next(), next(), next());
    match (version.0, version.1) {
        (3, 4) => version.2 >= 31,
        _ => version >= (3, 5, 13),
    }
}

/// Answers that say at which revision they were given.
trait HasHeader {
    fn header(&self) -> Option<&pb::ResponseHeader>;
}

macro_rules! has_header {
    ($($answer:ident),*) => {
        $(impl HasHeader for pb::$answer {
            fn header(&self) -> Option<&pb::ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}

has_header!(
    RangeResponse,
    TxnResponse,
    CompactionResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    LeaseLeasesResponse
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_ordered_since_the_fix() {
        for (version, ordered) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("3.3.99", false),
            ("", false),
        ] {
            assert_eq!(orders_progress(version), ordered, "{version}");
        }
    }
}
