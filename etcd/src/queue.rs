//! A queue of keys below a prefix: what locks and elections are made of.
//!
//! Who wants its turn makes a key named for its lease. Keys have their turn in the order of their create
//! revisions; a key ends with its lease, so a holder that is gone doesn't hold up the others. The create
//! revision is a fencing token: it rises from holder to holder.

use bytes::Bytes;
use store::kv::{
    Compare, EventKind, KeyRange, KeyValue, Kv, KvError, LeaseId, Op, OpResponse, Origin, RangeRequest,
    Revision, Txn, WatchMessage, WatchRequest,
};

use crate::member::Member;

/// Longest life of the lease that we make for a client that has none, in seconds. Nobody keeps it alive.
const DEFAULT_TTL: u64 = 60;

/// A key in a queue.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name.
    pub key: Bytes,
    /// Its rank.
    pub created: Revision,
    /// Its value.
    pub value: Bytes,
    /// Its lease.
    pub lease: LeaseId,
}

/// All keys of the queue `name`.
pub fn keys(name: &[u8]) -> KeyRange {
    KeyRange::prefix([name, b"/"].concat())
}

/// The lease asked for, or a new one.
///
/// # Errors
/// If none can be made.
pub async fn lease(member: &Member, id: i64) -> Result<LeaseId, KvError> {
    match id {
        0 => Ok(member.store.lease_grant(None, DEFAULT_TTL).await?.id),
        id => Ok(LeaseId(id.cast_unsigned())),
    }
}

/// Takes a place, or finds the one that the lease has already.
///
/// # Errors
/// If the lease doesn't exist, or as any write.
pub async fn enter(
    member: &Member,
    name: &[u8],
    lease: LeaseId,
    value: Bytes,
    origin: Origin,
) -> Result<Place, KvError> {
    let key = Bytes::from([name, b"/", format!("{lease}").as_bytes()].concat());
    let txn = Txn {
        compare: vec![Compare::absent(key.clone())],
        success: vec![Op::Put { key: key.clone(), value: value.clone(), lease: Some(lease) }],
        failure: vec![Op::Range(RangeRequest::new(KeyRange::key(key.clone())))],
        origin,
    };
    let mut response = member.store.txn(txn).await?;
    match response.responses.pop() {
        Some(OpResponse::Range(mut found)) => {
            let kv = found.kvs.pop().expect("a key that isn't absent is there, in one transaction");
            Ok(Place { key, created: kv.create_revision, value: kv.value, lease })
        }
        _ => Ok(Place { key, created: response.revision, value, lease }),
    }
}

/// Returns when no key of the queue is older than `place`.
///
/// # Errors
/// As any read.
pub async fn wait_turn(member: &Member, name: &[u8], place: &Place) -> Result<(), KvError> {
    loop {
        let mut request = RangeRequest::new(keys(name));
        request.keys_only = true;
        let response = member.store.range(request).await?;
        let older = response.kvs.into_iter().filter(|kv| kv.create_revision < place.created);
        let Some(before) = older.max_by_key(|kv| kv.create_revision) else { return Ok(()) };
        wait_deleted(member, before.key, response.revision).await?;
    }
}

/// Returns when the key was deleted after `revision`, or may have been.
async fn wait_deleted(member: &Member, key: Bytes, revision: Revision) -> Result<(), KvError> {
    let request = WatchRequest { range: KeyRange::key(key), start: Some(Revision(revision.0 + 1)) };
    let mut watch = match member.store.watch(request).await {
        // The caller looks again.
        Err(KvError::Compacted { .. }) => return Ok(()),
        watch => watch?,
    };
    loop {
        match watch.recv().await {
            Some(WatchMessage::Events { events, .. }) => {
                if events.iter().any(|event| event.kind == EventKind::Delete) {
                    return Ok(());
                }
            }
            Some(WatchMessage::Progress(_)) => {}
            Some(WatchMessage::Compacted(_)) => return Ok(()),
            None => return Err(KvError::Closed),
        }
    }
}

/// Whose turn it is.
///
/// # Errors
/// As any read.
pub async fn first(member: &Member, name: &[u8]) -> Result<(Option<KeyValue>, Revision), KvError> {
    let response = member.store.range(RangeRequest::new(keys(name))).await?;
    let first = response.kvs.into_iter().min_by_key(|kv| kv.create_revision);
    Ok((first, response.revision))
}

/// Deletes a key; if `created` is given, only in the life that began there. Tells the revision, and whether
/// the key was in that life.
///
/// # Errors
/// As any write.
pub async fn leave(
    member: &Member,
    key: Bytes,
    created: Option<Revision>,
    origin: Origin,
) -> Result<(Revision, bool), KvError> {
    let compare = created.map(|created| created_at(key.clone(), created)).into_iter().collect();
    let success = vec![Op::Delete(KeyRange::key(key))];
    let response = member.store.txn(Txn { compare, success, failure: vec![], origin }).await?;
    Ok((response.revision, response.succeeded))
}

/// Changes the value of a place that is still held; `None` if it isn't any more.
///
/// # Errors
/// As any write.
pub async fn amend(
    member: &Member,
    key: Bytes,
    created: Revision,
    value: Bytes,
    origin: Origin,
) -> Result<Option<Revision>, KvError> {
    let txn = Txn {
        compare: vec![created_at(key.clone(), created)],
        success: vec![Op::Amend { key, value: Some(value), lease: None }],
        failure: vec![],
        origin,
    };
    let response = member.store.txn(txn).await?;
    Ok(response.succeeded.then_some(response.revision))
}

fn created_at(key: Bytes, created: Revision) -> Compare {
    Compare {
        range: KeyRange::key(key),
        op: store::kv::CompareOp::Equal,
        target: store::kv::Target::CreateRevision(created),
    }
}
