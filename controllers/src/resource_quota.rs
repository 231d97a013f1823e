//! ResourceQuota: counts what a namespace uses. The API server charges a quota with each write; what is given back
//! when objects go, end or shrink is found out here.
//!
//! What always holds: a count is written only onto the quota's state from before the counting, so it never takes
//! back a charge that it hasn't seen. Upstream's `pkg/controller/resourcequota` gives the rules; what an object
//! uses is `api::quota`'s.

use crate::plan::{Part, Plan, Target, to_value};
use api::quota::{self, Amounts};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

/// Kinds whose use has names of its own, by what those names begin with.
const NAMED: [(&str, &str); 12] = [
    ("cpu", "pods"),
    ("memory", "pods"),
    ("ephemeral-storage", "pods"),
    ("hugepages-", "pods"),
    ("requests.", "pods"),
    ("limits.", "pods"),
    ("pods", "pods"),
    ("services", "services"),
    ("configmaps", "configmaps"),
    ("secrets", "secrets"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("resourcequotas", "resourcequotas"),
];
const CLAIMS: &str = "persistentvolumeclaims";

/// Objects of one kind in the quota's namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    /// API group, empty for the core one.
    pub group: String,
    /// Plural.
    pub plural: String,
    /// All of them.
    pub items: Vec<Value>,
}

/// Which kinds must be counted for the quota: group and plural.
pub fn counted_kinds(quota: &ResourceQuota) -> Vec<(String, String)> {
    let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    let mut kinds: Vec<(String, String)> = hard.filter_map(|(name, _)| kind_of(name)).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// The kind that uses what a quota calls `name`.
fn kind_of(name: &str) -> Option<(String, String)> {
    let core = |plural: &str| Some((String::new(), plural.to_owned()));
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group.to_owned(), plural.to_owned()));
    }
    if name == CLAIMS || name == "requests.storage" || name.contains(".storageclass.storage.k8s.io/") {
        return core(CLAIMS);
    }
    NAMED.iter().find(|(prefix, _)| name.starts_with(prefix)).and_then(|(_, plural)| core(plural))
}

/// What to do for `quota`, given all objects of its [`counted_kinds`], read after it.
pub fn reconcile(quota: &ResourceQuota, objects: &[Objects]) -> Plan {
    let mut plan = Plan::nothing();
    let value = to_value(quota);
    let hard = quota::amounts(&value["spec"]["hard"]);
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), Default::default())).collect();
    for kind in objects {
        let counts = |object: &&Value| quota::selects(&value["spec"], &kind.group, &kind.plural, object);
        for object in kind.items.iter().filter(counts) {
            quota::add(&mut used, &quota::usage(&kind.group, &kind.plural, object));
        }
    }
    used.retain(|name, _| hard.contains_key(name));
    let known = [&value["status"]["hard"], &value["status"]["used"]].map(quota::amounts);
    if known != [hard.clone(), used.clone()] {
        // Names that the quota no longer limits go, too.
        let old = value["status"]["used"].as_object().cloned().unwrap_or_default();
        let mut counted = quota::to_value(&used);
        for gone in old.keys().filter(|name| !hard.contains_key(*name)) {
            counted[gone] = Value::Null;
        }
        let mut limits = value["spec"]["hard"].clone();
        for gone in value["status"]["hard"].as_object().into_iter().flatten().map(|(name, _)| name) {
            if !hard.contains_key(gone) {
                limits[gone] = Value::Null;
            }
        }
        let patch = json!({"status": {"hard": limits, "used": counted}});
        plan.patch(Target::of(quota), Part::Status, patch, "what there is was counted");
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::{Objects, counted_kinds, reconcile};
    use k8s_openapi::api::core::v1::ResourceQuota;
    use serde_json::{Value, json};

    fn quota(hard: Value, status: Value) -> ResourceQuota {
        let metadata = json!({"name": "q", "namespace": "ns", "uid": "u", "resourceVersion": "7"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"hard": hard}, "status": status}))
            .expect("a quota")
    }

    fn pods(phases: &[&str]) -> Objects {
        let pod = |phase: &&str| {
            json!({"metadata": {"name": "p"}, "status": {"phase": phase},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}}}]}})
        };
        Objects { group: String::new(), plural: "pods".to_owned(), items: phases.iter().map(pod).collect() }
    }

    #[test]
    fn names_lead_to_kinds() {
        let hard = json!({"requests.cpu": "1", "count/jobs.batch": "2", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"});
        let kinds = counted_kinds(&quota(hard, json!({})));
        let kinds: Vec<String> = kinds.iter().map(|(group, plural)| format!("{plural}.{group}")).collect();
        assert_eq!(kinds, ["persistentvolumeclaims.", "pods.", "jobs.batch"]);
    }

    #[test]
    fn ended_pods_give_back_what_they_used() {
        let hard = json!({"requests.cpu": "1", "pods": "10"});
        let counted =
            reconcile(&quota(hard.clone(), json!({})), &[pods(&["Running", "Running", "Succeeded"])]);
        let [crate::plan::Action::Patch { patch, .. }] = counted.actions.as_slice() else {
            panic!("{counted}")
        };
        assert_eq!(patch["status"], json!({"hard": hard, "used": {"pods": "2", "requests.cpu": "500m"}}));
        let status = json!({"hard": hard, "used": {"pods": "2", "requests.cpu": "0.5"}});
        assert_eq!(reconcile(&quota(hard, status), &[pods(&["Running", "Running"])]).actions, []);
    }
}
