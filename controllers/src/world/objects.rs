//! Making and editing objects in few words.

use super::{
    World,
    kinds::{is_namespaced, kind},
    server::merge,
    templates, text,
};
use client::informer::ObjectKey;
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub type Words<'a> = BTreeMap<&'a str, &'a str>;

/// `key=value` words; a word without `=` is a flag.
pub fn words<'a>(rest: &[&'a str]) -> Words<'a> {
    rest.iter().map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

pub fn number(words: &Words<'_>, name: &str, default: i64) -> i64 {
    words.get(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

pub fn count_or_percent(value: &str) -> Value {
    value.parse::<i64>().map_or_else(|_| json!(value), |count| json!(count))
}

impl World {
    /// Creates the object that a script line describes.
    pub fn make(&mut self, noun: &str, name: &str, words: &Words<'_>) {
        self.make_with(noun, name, words, &json!({}));
    }

    /// The same, with more fields merged in.
    pub fn make_with(&mut self, noun: &str, name: &str, words: &Words<'_>, more: &Value) {
        let namespace = words.get("ns").copied().unwrap_or("default");
        let (plural, mut object) = match noun {
            "deployment" => ("deployments", templates::deployment(words)),
            "replicaset" => ("replicasets", templates::replica_set(words)),
            "pod" => ("pods", self.pod(words)),
            "node" => ("nodes", self.node(words)),
            "lease" => ("leases", self.lease()),
            "namespace" => {
                ("namespaces", json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}))
            }
            "job" => ("jobs", templates::job(words)),
            "cronjob" => ("cronjobs", templates::cron_job(words)),
            "statefulset" => ("statefulsets", templates::stateful_set(words)),
            "daemonset" => ("daemonsets", templates::daemon_set(words)),
            "rc" => ("replicationcontrollers", templates::replication_controller(words)),
            "service" => ("services", templates::service(words)),
            "endpoints" => ("endpoints", json!({})),
            "budget" => ("poddisruptionbudgets", templates::budget(words)),
            "claim" => ("persistentvolumeclaims", templates::claim(words)),
            "volume" => ("persistentvolumes", templates::volume(words)),
            "class" => ("storageclasses", templates::class(words)),
            "clusterrole" => ("clusterroles", json!({"metadata": {}})),
            "account" => ("serviceaccounts", json!({})),
            "configmap" => ("configmaps", json!({"data": {}})),
            "secret" => ("secrets", json!({})),
            "request" => ("certificatesigningrequests", json!({})),
            "quota" => ("resourcequotas", json!({})),
            "autoscaler" => ("horizontalpodautoscalers", json!({})),
            "range" => ("servicecidrs", templates::range(words)),
            "address" => ("ipaddresses", templates::address()),
            other => panic!("can't make a {other}"),
        };
        object["metadata"]["name"] = json!(name);
        if let Some(uid) = words.get("uid") {
            object["metadata"]["uid"] = json!(uid);
        }
        if is_namespaced(plural) {
            object["metadata"]["namespace"] =
                json!(if plural == "leases" { "kube-node-lease" } else { namespace });
        }
        if let Some(finalizer) = words.get("finalizer") {
            object["metadata"]["finalizers"] = json!([finalizer]);
        }
        let owners: Vec<Value> = words
            .get("owner")
            .into_iter()
            .flat_map(|list| list.split(','))
            .map(|owner| self.owner(owner, words))
            .collect();
        if !owners.is_empty() {
            object["metadata"]["ownerReferences"] = json!(owners);
        }
        merge(&mut object, more);
        let kind = kind(plural);
        object["apiVersion"] = json!(kind.api_version);
        object["kind"] = json!(kind.kind);
        self.server.create(&kind, object).unwrap_or_else(|end| panic!("{name}: {end:?}"));
    }

    /// `replicasets/web` is that object in the namespace; `configmaps/gone:u99` names a uid that may not exist.
    fn owner(&self, owner: &str, words: &Words<'_>) -> Value {
        let (plural, name) = owner.split_once('/').expect("owner=PLURAL/NAME");
        let (name, uid) =
            name.split_once(':').map_or((name, None), |(name, uid)| (name, Some(uid.to_owned())));
        let kind = kind(plural);
        let uid = uid.unwrap_or_else(|| {
            let found = self.server.of_kind(plural).find(|(key, _)| key.name == name);
            text(found.unwrap_or_else(|| panic!("there is no {owner}")).1, "/metadata/uid")
        });
        json!({"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "uid": uid,
            "controller": kind.kind == "ReplicaSet" || kind.kind == "Deployment",
            "blockOwnerDeletion": !words.contains_key("nonblocking")})
    }

    fn pod(&self, words: &Words<'_>) -> Value {
        let app = words.get("app").copied().unwrap_or("web");
        let mut pod = json!({
            "metadata": {"labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": words.get("phase").copied().unwrap_or("Pending")},
        });
        if let Some(node) = words.get("node") {
            pod["spec"]["nodeName"] = json!(node);
        }
        if let Some(seconds) = words.get("tolerates") {
            let toleration = json!({"operator": "Exists", "effect": "NoExecute"});
            pod["spec"]["tolerations"] = json!([toleration]);
            if *seconds != "forever" {
                pod["spec"]["tolerations"][0]["tolerationSeconds"] = json!(number(words, "tolerates", 0));
            }
        }
        if let Some(age) = words.get("age") {
            let age = age.parse().expect("age=SECONDS");
            pod["metadata"]["creationTimestamp"] =
                json!((self.server.now - SignedDuration::from_secs(age)).to_string());
        }
        if let Some(cost) = words.get("cost") {
            pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": cost});
        }
        if words.contains_key("ready") {
            let since = self.server.now - SignedDuration::from_secs(number(words, "ready-for", 0));
            pod["status"] = templates::running(&since.to_string());
            let restarts = json!([{"name": "c", "ready": true, "restartCount": number(words, "restarts", 0),
                "image": "i", "imageID": ""}]);
            pod["status"]["containerStatuses"] = restarts;
        }
        pod
    }

    fn node(&self, words: &Words<'_>) -> Value {
        let now = self.server.now.to_string();
        let mut node = json!({"metadata": {"labels": {}}, "spec": {}, "status": {}});
        if let Some(zone) = words.get("zone") {
            node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
        }
        if !words.contains_key("new") {
            let ready = words.get("ready").filter(|ready| !ready.is_empty()).copied().unwrap_or("True");
            node["status"]["conditions"] = json!([{"type": "Ready", "status": ready,
                "lastHeartbeatTime": now, "lastTransitionTime": now}]);
        }
        node
    }

    pub fn lease(&self) -> Value {
        let renewed = format!("{:.6}", self.server.now);
        json!({"spec": {"holderIdentity": "kubelet", "leaseDurationSeconds": 40, "renewTime": renewed}})
    }

    /// Somebody edits an object without looking at its version.
    pub fn edit(&mut self, plural: &str, key: &ObjectKey, patch: &Value) {
        let slot = (plural.to_owned(), key.clone());
        let mut object =
            self.server.objects.get(&slot).unwrap_or_else(|| panic!("there is no {plural} {key}")).clone();
        merge(&mut object, patch);
        self.server.put(slot, object);
    }
}
