//! Keeps the authorizer's view of roles, bindings and pods as new as the cache.
//!
//! It is told before any reader of the cache can see a change, so a client that has seen its binding may
//! rely on it, and so may a node that has seen its pod.

use std::sync::Arc;

use serde_json::Value;

use crate::auth::Authorizer;
use crate::storage::cache::Observer;
use crate::storage::change::Change;
use crate::storage::object::Stored;

const PREFIX: &[u8] = b"/registry/rbac.authorization.k8s.io/";
const PODS: &[u8] = b"/registry/core/pods/";

/// Tells the authorizer of roles, bindings and pods.
pub struct RbacFeed(Arc<Authorizer>);

impl RbacFeed {
    /// For this authorizer.
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self(authorizer)
    }
}

impl Observer for RbacFeed {
    fn reset(&self, objects: &mut dyn Iterator<Item = &Arc<Stored>>) {
        let objects: Vec<&Arc<Stored>> = objects.collect();
        let values: Vec<Value> = objects.iter().filter_map(|stored| rbac_object(stored)).collect();
        let pods = objects.iter().filter(|stored| stored.key.starts_with(PODS));
        self.0.replace_pods(pods.map(|stored| (stored.key.as_ref(), stored.json.as_ref())));
        self.0.replace(values.iter().map(|value| (api::object::kind(value), value)));
    }

    fn changed(&self, change: &Change) {
        let subject = change.now.as_deref().or(change.before.as_deref());
        if let Some(pod) = subject.filter(|stored| stored.key.starts_with(PODS)) {
            self.0.pod(&pod.key, change.now.as_deref().map(|stored| stored.json.as_ref()));
        } else if let Some(value) = change.now.as_deref().and_then(rbac_object) {
            self.0.update(api::object::kind(&value), &value);
        } else if let Some(value) = change.before.as_deref().and_then(rbac_object) {
            self.0.delete(api::object::kind(&value), &value);
        }
    }
}

fn rbac_object(stored: &Stored) -> Option<Value> {
    let is_rbac = stored.key.starts_with(PREFIX);
    is_rbac.then(|| serde_json::from_slice(&stored.json).ok()).flatten()
}
