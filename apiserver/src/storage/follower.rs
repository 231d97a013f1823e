//! Keeps the cache as new as the store: reads everything once, then follows one watch.

use std::sync::Arc;
use std::time::Duration;

use store::kv::{KeyRange, Kv, KvError, RangeRequest, Revision, WatchMessage, WatchRequest};

use crate::storage::cache::Cache;
use crate::storage::key::ROOT;
use crate::storage::object::Stored;

/// Pause before the store is read again after it failed.
const RETRY: Duration = Duration::from_millis(100);

/// Fills the cache for the first time.
///
/// # Errors
/// If the store can't be read.
pub async fn load(store: &dyn Kv, cache: &Cache) -> Result<Revision, KvError> {
    let everything = store.range(RangeRequest::new(KeyRange::prefix(ROOT))).await?;
    cache.reset(everything.kvs.iter().map(Stored::new), everything.revision);
    Ok(everything.revision)
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
                tracing::warn!(%error, "the watch of the store failed; reading it again");
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
    while let Some(message) = watch.messages.recv().await {
        match message {
            WatchMessage::Events { revision, events } => cache.apply(revision, &events),
            WatchMessage::Progress(revision) => cache.pass(revision),
            WatchMessage::Compacted(_) => return Ok(None),
        }
    }
    Err(KvError::Closed)
}
