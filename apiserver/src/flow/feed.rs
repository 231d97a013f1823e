//! Keeps the levels as the FlowSchemas and PriorityLevelConfigurations in the cache say.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use crate::flow::Flow;
use crate::storage::cache::Observer;
use crate::storage::change::Change;
use crate::storage::object::Stored;

const PREFIX: &[u8] = b"/registry/flowcontrol.apiserver.k8s.io/";

/// Tells of every change. There are a few dozen objects and they rarely change, so each change reads all anew.
pub struct FlowFeed {
    flow: Arc<Flow>,
    objects: Mutex<BTreeMap<Bytes, Value>>,
}

/// Whether objects of this kind configure priority and fairness.
pub fn is_ours(kind: &str) -> bool {
    matches!(kind, "FlowSchema" | "PriorityLevelConfiguration")
}

impl FlowFeed {
    /// For this flow control.
    pub fn new(flow: Arc<Flow>) -> Self {
        Self { flow, objects: Mutex::default() }
    }

    fn tell(&self, objects: &BTreeMap<Bytes, Value>) {
        let objects: Vec<Value> = objects.values().cloned().collect();
        self.flow.configure(&objects);
    }
}

impl Observer for FlowFeed {
    fn reset(&self, objects: &mut dyn Iterator<Item = &Arc<Stored>>) {
        let ours = objects.filter_map(|stored| Some((stored.key.clone(), object(stored)?)));
        let mut kept = self.objects.lock();
        *kept = ours.collect();
        self.tell(&kept);
    }

    fn changed(&self, change: &Change) {
        let Some(stored) = change.now.as_ref().or(change.before.as_ref()) else { return };
        if !stored.key.starts_with(PREFIX) {
            return;
        }
        let mut kept = self.objects.lock();
        match change.now.as_deref().and_then(object) {
            Some(object) => kept.insert(stored.key.clone(), object),
            None => kept.remove(&stored.key),
        };
        self.tell(&kept);
    }
}

fn object(stored: &Stored) -> Option<Value> {
    let ours = stored.key.starts_with(PREFIX);
    ours.then(|| serde_json::from_slice(&stored.json).ok()).flatten()
}
