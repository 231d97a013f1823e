//! Keeps the registry's custom rows as new as the cache.
//!
//! It is told before any reader of the cache can see a change, so a client that has seen a definition
//! established may rely on its resource, on this server.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::aggregation::feed::API_SERVICES;
use crate::registry::resource::Resource;
use crate::registry::{Registry, custom};
use crate::storage::cache::Observer;
use crate::storage::change::Change;
use crate::storage::object::Stored;
use crate::webhook::Webhooks;

const PREFIX: &[u8] = b"/registry/apiextensions.k8s.io/customresourcedefinitions/";

type Rows = Vec<Arc<Resource>>;

/// Tells the registry of definitions, and the controller that there is something to do.
pub struct CrdFeed {
    registry: Arc<Registry>,
    /// Those that convert.
    webhooks: Webhooks,
    by_key: Mutex<BTreeMap<Bytes, Rows>>,
    changed: watch::Sender<()>,
}

impl CrdFeed {
    /// For this registry.
    pub fn new(registry: Arc<Registry>, webhooks: Webhooks) -> Self {
        Self { registry, webhooks, by_key: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Wakes whenever a definition or an APIService changes; ends with the feed.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn rows_of(&self, stored: &Stored) -> Rows {
        let crd: Value = serde_json::from_slice(&stored.json).unwrap_or_default();
        custom::rows(&crd, &self.webhooks).into_iter().map(Arc::new).collect()
    }

    fn publish(&self, by_key: &BTreeMap<Bytes, Rows>) {
        let mut rows: Rows = by_key.values().flatten().cloned().collect();
        rows.sort_by_cached_key(|row| custom::order(row));
        self.registry.replace_custom(rows);
        self.changed.send_replace(());
    }
}

impl Observer for CrdFeed {
    fn reset(&self, objects: &mut dyn Iterator<Item = &Arc<Stored>>) {
        let definitions = objects.filter(|stored| stored.key.starts_with(PREFIX));
        let mut by_key = self.by_key.lock();
        *by_key = definitions.map(|stored| (stored.key.clone(), self.rows_of(stored))).collect();
        self.publish(&by_key);
    }

    fn changed(&self, change: &Change) {
        let Some(either) = change.now.as_ref().or(change.before.as_ref()) else { return };
        if either.key.starts_with(API_SERVICES) {
            self.changed.send_replace(());
        }
        if !either.key.starts_with(PREFIX) {
            return;
        }
        let mut by_key = self.by_key.lock();
        match &change.now {
            Some(stored) => drop(by_key.insert(stored.key.clone(), self.rows_of(stored))),
            None => drop(by_key.remove(&either.key)),
        }
        self.publish(&by_key);
    }
}
