//! Objects as they lie in the store: keys, stored form, transactions, and the cache that all reads of many
//! objects and all watches are served from.

pub mod cache;
pub mod change;
mod event_lease;
pub mod follower;
pub mod history;
pub mod key;
pub mod object;
pub mod selection;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use store::kv::{
    Compare, Consistency, KeyRange, KeyValue, Kv, Op, OpResponse, Origin, RangeRequest, RangeResponse,
    Revision, Txn, TxnResponse,
};

use crate::config::Config;
use crate::error::{Failure, Outcome};
use crate::storage::cache::Cache;
use crate::storage::event_lease::EventLeases;
use crate::storage::object::Stored;

/// The store and the cache above it.
pub struct Storage {
    store: Arc<dyn Kv>,
    /// All objects in memory.
    pub cache: Arc<Cache>,
    event_leases: EventLeases,
    patience: std::time::Duration,
    /// The last write of this server to each resource that [`Storage::catch_up`] was asked for, by prefix.
    written: Mutex<HashMap<Bytes, Revision>>,
}

/// What became of a conditional write.
#[derive(Debug)]
pub enum Commit {
    /// It was written, at this revision.
    Done(Revision),
    /// A condition didn't hold, nothing was written; this is the object now.
    Lost(Option<Stored>),
}

/// A write of one object, on conditions.
#[derive(Clone, Debug)]
pub struct Write {
    /// The object's key.
    pub key: Bytes,
    /// The revision that is to be replaced; 0 if the object must not exist.
    pub expected: Revision,
    /// The new stored form; `None` deletes.
    pub value: Option<Bytes>,
    /// Other keys that must be unchanged since these revisions.
    pub guards: Vec<(Bytes, Revision)>,
    /// What else is written, all or nothing.
    pub also: Vec<Also>,
    /// Ends by itself after the time to live of events.
    pub expires: bool,
    /// Who and why.
    pub origin: Origin,
}

/// A write beside the object's own, in the same transaction.
#[derive(Clone, Debug)]
pub struct Also {
    /// Where.
    pub key: Bytes,
    /// The revision that is to be replaced; 0 if nothing must be there.
    pub expected: Revision,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
}

impl Also {
    fn compare(&self) -> Compare {
        Compare::mod_revision(self.key.clone(), self.expected)
    }

    fn step(self) -> Op {
        match self.value {
            Some(value) => Op::Put { key: self.key, value, lease: None },
            None => Op::Delete(KeyRange::key(self.key)),
        }
    }
}

impl Storage {
    /// Over a store; the cache is filled by somebody else.
    pub fn new(store: Arc<dyn Kv>, cache: Arc<Cache>, config: &Config) -> Self {
        let patience = config.limits.freshness;
        Self {
            store,
            cache,
            event_leases: EventLeases::new(config.event_ttl),
            patience,
            written: Mutex::default(),
        }
    }

    /// The object at `key`, including every write acknowledged before.
    pub async fn read(&self, key: &Bytes) -> Outcome<Option<Stored>> {
        let answer = self.store.range(RangeRequest::new(KeyRange::key(key.clone()))).await?;
        Ok(answer.kvs.first().map(Stored::new))
    }

    /// The object at `key` as it was at a revision that this member has reached.
    pub async fn read_at(&self, key: &Bytes, at: Revision) -> Outcome<Option<Stored>> {
        let request = RangeRequest {
            revision: Some(at),
            consistency: Consistency::Serializable,
            ..RangeRequest::new(KeyRange::key(key.clone()))
        };
        Ok(self.store.range(request).await?.kvs.first().map(Stored::new))
    }

    /// Who wrote what, if the store records it.
    pub fn journal(&self) -> Option<&dyn store::journal::Journal> {
        self.store.journal()
    }

    /// A range.
    pub async fn range(&self, request: RangeRequest) -> Outcome<RangeResponse> {
        Ok(self.store.range(request).await?)
    }

    /// A revision that includes every write acknowledged before.
    pub async fn newest(&self) -> Outcome<Revision> {
        let nothing = KeyRange::key(Bytes::from_static(b"/"));
        let request = RangeRequest {
            count_only: true,
            consistency: Consistency::Linearizable,
            ..RangeRequest::new(nothing)
        };
        Ok(self.store.range(request).await?.revision)
    }

    /// Waits until the cache includes every write acknowledged before.
    pub async fn refresh(&self) -> Outcome<()> {
        let newest = self.newest().await?;
        self.reach(newest).await
    }

    /// Waits until the cache has reached `revision`.
    ///
    /// # Errors
    /// 504 if it doesn't in time: the client has seen a revision that this member hasn't.
    pub async fn reach(&self, revision: Revision) -> Outcome<()> {
        if self.cache.revision() >= revision || self.cache.wait_for(revision, self.patience).await {
            return Ok(());
        }
        let current = self.cache.revision();
        Err(api::status::Status::too_large_resource_version(revision.0, current.0).into())
    }

    /// Waits until the cache has every write of this server to the resource with this prefix: what somebody
    /// was told to be written counts for what he asks next.
    pub async fn catch_up(&self, prefix: &Bytes) -> Outcome<()> {
        let written = self.written.lock().get(prefix).copied();
        match written {
            Some(revision) => self.reach(revision).await,
            None => {
                self.written.lock().insert(prefix.clone(), Revision::default());
                self.refresh().await
            }
        }
    }

    fn remember(&self, key: &Bytes, revision: Revision) {
        let mut written = self.written.lock();
        if let Some(last) = key::prefix_of(key).and_then(|prefix| written.get_mut(prefix)) {
            *last = revision.max(*last);
        }
    }

    /// Follows the store itself, for changes that the cache no longer has.
    pub async fn replay(&self, range: KeyRange, after: Revision) -> Outcome<store::kv::Watch> {
        let start = Some(Revision(after.0 + 1));
        Ok(self.store.watch(store::kv::WatchRequest { range, start }).await?)
    }

    /// This member's view of the group; never waits.
    pub fn status(&self) -> store::kv::Status {
        self.store.status()
    }

    /// Writes all or nothing; `None` if a condition of one doesn't hold.
    pub async fn commit_all(&self, writes: Vec<Write>) -> Outcome<Option<Revision>> {
        let mut txn = Txn::default();
        // What several steps charge is in the last one's.
        let mut also: BTreeMap<Bytes, Also> = BTreeMap::new();
        let mut written = Vec::new();
        for mut write in writes {
            also.extend(std::mem::take(&mut write.also).into_iter().map(|also| (also.key.clone(), also)));
            written.push(write.key.clone());
            txn.compare.push(Compare::mod_revision(write.key.clone(), write.expected));
            let guards =
                write.guards.iter().map(|(key, revision)| Compare::mod_revision(key.clone(), *revision));
            for guard in guards {
                if !txn.compare.contains(&guard) {
                    txn.compare.push(guard);
                }
            }
            txn.origin = Origin { verb: "transaction".to_owned(), ..write.origin.clone() };
            txn.success.push(self.step(write).await?);
        }
        for also in also.into_values() {
            written.push(also.key.clone());
            txn.compare.push(also.compare());
            txn.success.push(also.step());
        }
        let answer = self.store.txn(txn).await?;
        if answer.succeeded {
            written.iter().for_each(|key| self.remember(key, answer.revision));
        }
        Ok(answer.succeeded.then_some(answer.revision))
    }

    async fn step(&self, write: Write) -> Outcome<Op> {
        let lease = match write.expires {
            true => Some(self.event_leases.lease(self.store.as_ref()).await?),
            false => None,
        };
        Ok(match write.value {
            Some(value) => Op::Put { key: write.key, value, lease },
            None => Op::Delete(KeyRange::key(write.key)),
        })
    }

    /// Writes if all conditions hold.
    pub async fn commit(&self, mut write: Write) -> Outcome<Commit> {
        let (key, expected) = (write.key.clone(), write.expected);
        let (guards, origin) = (std::mem::take(&mut write.guards), std::mem::take(&mut write.origin));
        let also = std::mem::take(&mut write.also);
        let step = self.step(write).await?;
        let guards = guards.into_iter().map(|(key, revision)| Compare::mod_revision(key, revision));
        let own = Compare::mod_revision(key.clone(), expected);
        let compare = [own].into_iter().chain(guards).chain(also.iter().map(Also::compare)).collect();
        let look = Op::Range(RangeRequest::new(KeyRange::key(key.clone())));
        let written: Vec<Bytes> = [key].into_iter().chain(also.iter().map(|also| also.key.clone())).collect();
        let success = [step].into_iter().chain(also.into_iter().map(Also::step)).collect();
        let txn = Txn { compare, success, failure: vec![look], origin };
        let answer = self.store.txn(txn).await?;
        if !answer.succeeded {
            return Ok(Commit::Lost(found(answer)));
        }
        written.iter().for_each(|key| self.remember(key, answer.revision));
        Ok(Commit::Done(answer.revision))
    }
}

fn found(answer: TxnResponse) -> Option<Stored> {
    let pair = |response: OpResponse| match response {
        OpResponse::Range(range) => range.kvs.into_iter().next(),
        _ => None,
    };
    answer.responses.into_iter().find_map(pair).as_ref().map(|kv: &KeyValue| Stored::new(kv))
}

/// The object as a value.
///
/// # Errors
/// If what is stored is no JSON.
pub fn decode(stored: &Stored) -> Outcome<serde_json::Value> {
    stored.to_value().map_err(|source| corrupt(stored, source))
}

/// The same, decoded once for all who look at the object in this state.
///
/// # Errors
/// As [`decode`].
pub fn decode_shared(stored: &Stored) -> Outcome<Arc<serde_json::Value>> {
    stored.shared_value().map_err(|source| corrupt(stored, source))
}

/// A part of the object, of which nothing else is read.
///
/// # Errors
/// If what is stored has no such part.
pub fn decode_part<'a, T: serde::Deserialize<'a>>(stored: &'a Stored) -> Outcome<T> {
    serde_json::from_slice(&stored.json).map_err(|source| corrupt(stored, source))
}

fn corrupt(stored: &Stored, source: serde_json::Error) -> Failure {
    Failure::Corrupt { key: String::from_utf8_lossy(&stored.key).into_owned(), source }
}
