//! Keeps the cache as new as the store: reads everything once, then follows one watch.

use std::sync::Arc;
use std::time::Duration;

use store::kv::{KeyRange, Kv, KvError, RangeRequest, Revision, WatchMessage, WatchRequest};

use crate::storage::cache::Cache;
use crate::storage::key::ROOT;
use crate::storage::object::Stored;

/// Pause before the store is asked again after it could not answer: about an election's length.
pub const RETRY: Duration = Duration::from_millis(100);

/// Fills the cache, as soon as the store can be read: without a leader that may take a while.
///
/// # Errors
/// If the store will never answer.
pub async fn load(store: &dyn Kv, cache: &Cache) -> Result<Revision, KvError> {
    loop {
        match store.range(RangeRequest::new(KeyRange::prefix(ROOT))).await {
            Ok(everything) => {
                cache.reset(everything.kvs.iter().map(Stored::compact), everything.revision);
                return Ok(everything.revision);
            }
            Err(error) if passes(&error) => {
                tracing::info!(%error, "waiting for the store");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the same question may be answered later.
fn passes(error: &KvError) -> bool {
    matches!(error, KvError::Unavailable(_) | KvError::Unknown | KvError::Overloaded)
}

/// Follows the store from `loaded` until it is closed.
pub async fn follow(store: Arc<dyn Kv>, cache: Arc<Cache>, loaded: Revision) {
    let mut next = Some(loaded);
    loop {
        let outcome = match next {
            Some(revision) => watch(store.as_ref(), &cache, revision).await,
            None => load(store.as_ref(), &cache).await.map(Some),
        };
        next = match outcome {
            Ok(next) => next,
            Err(KvError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "the watch of the store failed; reading everything again");
                tokio::time::sleep(RETRY).await;
                None
            }
        };
    }
}

/// Follows one watch to its end. `None`: history is missing, everything must be read again.
async fn watch(store: &dyn Kv, cache: &Cache, after: Revision) -> Result<Option<Revision>, KvError> {
    // All keys, not only ours: so every revision of the store passes by, and waiting for one always ends.
    let range = KeyRange { start: Default::default(), end: None };
    let request = WatchRequest { range, start: Some(Revision(after.0 + 1)) };
    let mut watch = match store.watch(request).await {
        Err(KvError::Compacted { .. }) => return Ok(None),
        watch => watch?,
    };
    while let Some(message) = watch.recv().await {
        match message {
            WatchMessage::Events { revision, events } => cache.apply(revision, &events),
            WatchMessage::Progress(revision) => cache.pass(revision),
            WatchMessage::Compacted(_) => return Ok(None),
        }
    }
    // Either the store is closing, which the next read tells, or it gave up this watch.
    Err(KvError::Unavailable("the store ended the watch".into()))
}
