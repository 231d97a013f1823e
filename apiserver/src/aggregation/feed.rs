//! Keeps who serves what as new as the cache, and wakes the controller when there is something to look at.

use std::sync::Arc;

use serde_json::Value;

use super::{Aggregation, Backend};
use crate::storage::cache::Observer;
use crate::storage::change::Change;
use crate::storage::key::names_of;
use crate::storage::object::Stored;

/// Where APIServices are.
pub const API_SERVICES: &[u8] = b"/registry/apiregistration.k8s.io/apiservices/";
/// What an answer depends on.
const BEHIND: [&[u8]; 2] =
    [b"/registry/core/services/".as_slice(), b"/registry/discovery.k8s.io/endpointslices/".as_slice()];

/// Tells the aggregation of changes.
pub struct Feed(pub Arc<Aggregation>);

impl Observer for Feed {
    fn reset(&self, objects: &mut dyn Iterator<Item = &Arc<Stored>>) {
        let services = objects.filter(|stored| stored.key.starts_with(API_SERVICES));
        let backends = services.filter_map(|stored| self.0.read(stored));
        let backends = backends.map(|backend| ((backend.group.clone(), backend.version.clone()), backend));
        *self.0.backends.write() = Arc::new(backends.collect());
        self.0.changed.send_replace(());
    }

    fn changed(&self, change: &Change) {
        let Some(either) = change.now.as_ref().or(change.before.as_ref()) else { return };
        if either.key.starts_with(API_SERVICES) {
            self.0.replace(names_of(&either.key).1, change.now.as_ref().and_then(|now| self.0.read(now)));
            self.0.changed.send_replace(());
        } else if BEHIND.iter().any(|prefix| either.key.starts_with(prefix)) {
            let namespace = names_of(&either.key).0;
            if self.0.backends.read().values().any(|backend| backend.namespace == namespace) {
                self.0.changed.send_replace(());
            }
        }
    }
}

impl Aggregation {
    fn read(&self, stored: &Stored) -> Option<Arc<Backend>> {
        let object: Value = serde_json::from_slice(&stored.json).unwrap_or_default();
        Backend::of(&object, &self.identity).map(Arc::new)
    }

    /// Puts an APIService's newest state in the place of what it said before.
    fn replace(&self, name: &str, now: Option<Arc<Backend>>) {
        let mut guard = self.backends.write();
        let others = guard.iter().filter(|(_, backend)| backend.name != name);
        let mut next: super::Backends = others.map(|(key, backend)| (key.clone(), backend.clone())).collect();
        match now {
            Some(now) => drop(next.insert((now.group.clone(), now.version.clone()), now)),
            None => drop(self.learned.lock().remove(name)),
        }
        *guard = Arc::new(next);
    }
}
