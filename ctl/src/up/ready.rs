//! When the nodes of a cluster are Ready: told by a watch, not asked for again and again.
//!
//! After a restart the store still says Ready of nodes that don't run yet. A node counts only if its lease was
//! renewed after this start.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::cluster::watch::{EventKind, WatchStart};

/// Follows a collection until `done` says so. `done` sees each object once at first, then after each change.
pub async fn follow(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
    query: Query,
    mut done: impl FnMut(EventKind, &Value) -> bool,
) -> Result<(), RequestError> {
    let collection = path::collection(kind, namespace);
    loop {
        let list = cluster.get(&query.on(&collection)).await?;
        for object in list["items"].as_array().into_iter().flatten() {
            if done(EventKind::Added, object) {
                return Ok(());
            }
        }
        let resource_version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let start =
            WatchStart { path: collection.clone(), query: query.clone(), resource_version, as_table: false };
        match until(cluster, start, &mut done).await {
            // The history is gone: look again.
            Err(error) if error.is(410) => {}
            other => return other,
        }
    }
}

async fn until(
    cluster: &Cluster,
    start: WatchStart,
    done: &mut impl FnMut(EventKind, &Value) -> bool,
) -> Result<(), RequestError> {
    let mut watch = cluster.watch(start);
    loop {
        let event = watch.next().await?;
        if done(event.kind, &event.object) {
            return Ok(());
        }
    }
}

/// Returns when all `names` are Ready and alive since `start`. `progress` is told how many are.
pub async fn nodes(
    cluster: &Cluster,
    names: &BTreeSet<String>,
    start: Timestamp,
    mut progress: impl FnMut(usize),
) -> Result<(), RequestError> {
    let (nodes, leases) =
        (builtin("", "Node", "nodes", false), builtin("coordination.k8s.io", "Lease", "leases", true));
    let mut alive = Waiting::new(names);
    let fresh = |object: &Value| renewed(object).is_some_and(|time| time >= start);
    follow(cluster, &leases, Some("kube-node-lease"), Query::new(), |_, object| {
        alive.see(object, fresh(object))
    })
    .await?;
    let mut ready = Waiting::new(names);
    follow(cluster, &nodes, None, Query::new(), |_, object| {
        let all = ready.see(object, is_ready(object));
        progress(names.len() - ready.missing.len());
        all
    })
    .await
}

/// Kinds that every API server has need no discovery, which would cost two requests at start.
pub fn builtin(group: &str, kind: &str, plural: &str, namespaced: bool) -> Kind {
    Kind {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        namespaced,
        ..Kind::default()
    }
}

struct Waiting {
    names: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl Waiting {
    fn new(names: &BTreeSet<String>) -> Self {
        Self { names: names.clone(), missing: names.clone() }
    }

    /// True when nobody is missing.
    fn see(&mut self, object: &Value, good: bool) -> bool {
        let name = api::object::name(object);
        if good {
            self.missing.remove(name);
        } else if self.names.contains(name) {
            self.missing.insert(name.to_owned());
        }
        self.missing.is_empty()
    }
}

fn renewed(lease: &Value) -> Option<Timestamp> {
    lease["spec"]["renewTime"].as_str()?.parse().ok()
}

/// Whether a node's Ready condition is true.
pub fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_named_must_be_good_at_the_same_time() {
        let names = ["n1", "n2"].map(str::to_owned).into_iter().collect();
        let mut waiting = Waiting::new(&names);
        let object = |name: &str| json!({"metadata": {"name": name}});
        assert!(!waiting.see(&object("n1"), true));
        assert!(!waiting.see(&object("other"), true));
        assert!(!waiting.see(&object("n1"), false));
        assert!(!waiting.see(&object("n2"), true));
        assert!(waiting.see(&object("n1"), true));
    }

    #[test]
    fn ready_is_the_ready_condition() {
        let node =
            |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        assert!(is_ready(&node("Ready", "True")));
        assert!(!is_ready(&node("Ready", "Unknown")));
        assert!(!is_ready(&node("MemoryPressure", "True")));
        assert!(!is_ready(&json!({})));
    }
}
