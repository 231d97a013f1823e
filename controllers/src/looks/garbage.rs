//! Looks of the garbage collector, and how its graph is fed.

use crate::{
    driver::{Controller, Report},
    garbage_collector::{self, Graph, Node},
    plan::Plan,
};
use client::informer::Change;
use jiff::Timestamp;
use kube::{Resource, core::ApiResource};
use parking_lot::Mutex;
use std::{fmt, sync::Arc};

/// The identity of an object over all kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub String);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The garbage collector; clones share one graph.
#[derive(Clone)]
pub struct GarbageCollector(Arc<Mutex<Graph>>);

impl GarbageCollector {
    /// Over a graph that is fed by [`GarbageCollector::observe`].
    pub fn new(graph: Graph) -> GarbageCollector {
        GarbageCollector(Arc::new(Mutex::new(graph)))
    }

    /// Takes in a kind that came later; returns what to look at again.
    pub fn learn(&self, kind: &ApiResource, namespaced: bool) -> Vec<Uid> {
        self.0.lock().learn(kind.clone(), namespaced).into_iter().map(Uid).collect()
    }

    /// Takes in a change of an object of `kind`; returns what to look at again.
    pub fn observe<K: Resource>(&self, kind: &ApiResource, change: &Change<K>) -> Vec<Uid> {
        let mut graph = self.0.lock();
        let affected = match change {
            Change::Applied { old, new } => {
                let mut affected = replaced(&mut graph, old.as_deref(), &**new);
                affected.extend(graph.apply(Node::of(kind, new.meta())));
                affected
            }
            Change::Deleted(last) => graph.remove(last.meta().uid.as_deref().unwrap_or_default()),
            Change::Synced => Vec::new(),
        };
        affected.into_iter().map(Uid).collect()
    }
}

/// A new object under a known name means that the old one is gone.
fn replaced<K: Resource>(graph: &mut Graph, old: Option<&K>, new: &K) -> Vec<String> {
    match old.and_then(|old| old.meta().uid.as_ref()) {
        Some(uid) if Some(uid) != new.meta().uid.as_ref() => graph.remove(uid),
        _ => Vec::new(),
    }
}

impl Controller for GarbageCollector {
    type Key = Uid;
    const NAME: &'static str = "garbage-collector-controller";

    async fn look(&self, key: &Uid, _: Timestamp) -> kube::Result<Plan> {
        Ok(garbage_collector::reconcile(&key.0, &self.0.lock()))
    }

    fn performed(&self, _: &Uid, report: &Report, _: Timestamp) {
        let mut graph = self.0.lock();
        for uid in &report.gone {
            graph.confirm_absent(uid);
        }
    }
}
