//! A store whose users never see sealed values, and which never sees theirs.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use store::journal::Journal;
use store::kv::{
    Compare, Event, KeyRange, KeyValue, Kv, KvError, Lease, LeaseId, LeaseInfo, Op, OpResponse, Origin,
    RangeRequest, RangeResponse, Revision, Status, Txn, TxnResponse, Watch, WatchMessage, WatchRequest,
};

use super::keys::EncryptionKeys;
use super::{SEALED, is_sealed};

/// Values that are sealed anew at the same time.
const AT_ONCE: usize = 8;

/// Seals what is written to another store, and opens what is read from it.
pub struct SealedKv {
    store: Arc<dyn Kv>,
    keys: Arc<EncryptionKeys>,
}

impl SealedKv {
    /// Over a store.
    pub fn new(store: Arc<dyn Kv>, keys: Arc<EncryptionKeys>) -> Self {
        Self { store, keys }
    }

    /// Seals anew what lies there in clear or under an old key, and says how many values that were. A value
    /// that somebody writes meanwhile is sealed by that.
    ///
    /// # Errors
    /// The store refuses, or a value can't be opened.
    pub async fn seal_anew(&self) -> Result<usize, KvError> {
        let mut stale = Vec::new();
        for prefix in SEALED {
            let found = self.store.range(RangeRequest::new(KeyRange::prefix(prefix))).await?;
            stale.extend(found.kvs.into_iter().filter(|kv| self.keys.is_stale(&kv.value)));
        }
        let count = stale.len();
        let mut done = stream::iter(stale).map(|kv| self.seal_one(kv)).buffer_unordered(AT_ONCE);
        while let Some(sealed) = done.next().await {
            sealed?;
        }
        Ok(count)
    }

    async fn seal_one(&self, kv: KeyValue) -> Result<(), KvError> {
        let value = self.keys.seal(&kv.key, &open(&self.keys, &kv.key, &kv.value)?);
        let origin =
            Origin { user: "system:apiserver".to_owned(), verb: "seal".to_owned(), ..Origin::default() };
        let txn = Txn {
            compare: vec![Compare::mod_revision(kv.key.clone(), kv.mod_revision)],
            success: vec![Op::Amend { key: kv.key, value: Some(value), lease: None }],
            failure: Vec::new(),
            origin,
        };
        self.store.txn(txn).await.map(drop)
    }

    fn seal(&self, key: &Bytes, value: Bytes) -> Bytes {
        if is_sealed(key) { self.keys.seal(key, &value) } else { value }
    }

    fn seal_op(&self, op: Op) -> Op {
        match op {
            Op::Put { key, value, lease } => Op::Put { value: self.seal(&key, value), key, lease },
            Op::Amend { key, value, lease } => {
                Op::Amend { value: value.map(|value| self.seal(&key, value)), key, lease }
            }
            Op::Txn(txn) => Op::Txn(Box::new(self.seal_txn(*txn))),
            Op::Range(_) | Op::Delete(_) => op,
        }
    }

    fn seal_txn(&self, txn: Txn) -> Txn {
        let seal = |ops: Vec<Op>| ops.into_iter().map(|op| self.seal_op(op)).collect();
        Txn { success: seal(txn.success), failure: seal(txn.failure), ..txn }
    }

    fn open_range(&self, mut answer: RangeResponse) -> Result<RangeResponse, KvError> {
        answer.kvs.iter_mut().try_for_each(|kv| open_pair(&self.keys, kv))?;
        Ok(answer)
    }

    fn open_txn(&self, answer: TxnResponse) -> Result<TxnResponse, KvError> {
        let responses = answer.responses.into_iter().map(|response| self.open_response(response));
        Ok(TxnResponse { responses: responses.collect::<Result<_, _>>()?, ..answer })
    }

    fn open_response(&self, response: OpResponse) -> Result<OpResponse, KvError> {
        Ok(match response {
            OpResponse::Range(range) => OpResponse::Range(self.open_range(range)?),
            OpResponse::Put(mut before) => {
                before.iter_mut().try_for_each(|kv| open_pair(&self.keys, kv))?;
                OpResponse::Put(before)
            }
            OpResponse::Delete(mut pairs) => {
                pairs.iter_mut().try_for_each(|kv| open_pair(&self.keys, kv))?;
                OpResponse::Delete(pairs)
            }
            OpResponse::Txn(answer) => OpResponse::Txn(self.open_txn(answer)?),
        })
    }
}

fn open(keys: &EncryptionKeys, key: &Bytes, value: &Bytes) -> Result<Bytes, KvError> {
    keys.open(key, value).map_err(|why| {
        KvError::Invalid(format!("the value at {} can't be opened: {why}", String::from_utf8_lossy(key)))
    })
}

fn open_pair(keys: &EncryptionKeys, kv: &mut KeyValue) -> Result<(), KvError> {
    // A deletion's value is empty, and was never sealed.
    if is_sealed(&kv.key) && !kv.value.is_empty() {
        kv.value = open(keys, &kv.key, &kv.value)?;
    }
    Ok(())
}

/// The message as the user sees it; `None`, which ends the watch, if it can't be opened. The reader reads
/// everything again then, and is told why that fails.
fn open_message(keys: &EncryptionKeys, message: WatchMessage) -> Option<WatchMessage> {
    let WatchMessage::Events { revision, events } = message else { return Some(message) };
    if !events.iter().any(|event| is_sealed(&event.kv.key)) {
        return Some(WatchMessage::Events { revision, events });
    }
    let opened: Result<Vec<Event>, KvError> = events.iter().map(|event| open_event(keys, event)).collect();
    match opened {
        Ok(events) => Some(WatchMessage::Events { revision, events: events.into() }),
        Err(error) => {
            tracing::error!(%error, "a watch of the store ends");
            None
        }
    }
}

fn open_event(keys: &EncryptionKeys, event: &Event) -> Result<Event, KvError> {
    let mut event = event.clone();
    open_pair(keys, &mut event.kv)?;
    event.prev.iter_mut().try_for_each(|kv| open_pair(keys, kv))?;
    Ok(event)
}

#[async_trait]
impl Kv for SealedKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let bare = request.keys_only || request.count_only;
        let answer = self.store.range(request).await?;
        if bare { Ok(answer) } else { self.open_range(answer) }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        self.open_txn(self.store.txn(self.seal_txn(txn)).await?)
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError> {
        let keys = self.keys.clone();
        Ok(self.store.watch(request).await?.map(Arc::new(move |message| open_message(&keys, message))))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.store.compact(revision).await
    }

    async fn lease_grant(&self, id: Option<LeaseId>, ttl_seconds: u64) -> Result<Lease, KvError> {
        self.store.lease_grant(id, ttl_seconds).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, KvError> {
        self.store.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), KvError> {
        self.store.lease_revoke(id).await
    }

    async fn lease_info(&self, id: LeaseId) -> Result<LeaseInfo, KvError> {
        self.store.lease_info(id).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        self.store.leases().await
    }

    fn status(&self) -> Status {
        self.store.status()
    }

    fn journal(&self) -> Option<&dyn Journal> {
        self.store.journal()
    }
}
