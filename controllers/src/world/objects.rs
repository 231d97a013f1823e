//! Making and showing objects in few words, and what kubelets and a scheduler do to them.

use super::{World, kind, kind_is_namespaced, server::merge, text};
use client::informer::ObjectKey;
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub type Words<'a> = BTreeMap<&'a str, &'a str>;

/// `key=value` words; a word without `=` is a flag.
pub fn words<'a>(rest: &[&'a str]) -> Words<'a> {
    rest.iter().map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

fn number(words: &Words<'_>, name: &str, default: i64) -> i64 {
    words.get(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

fn count_or_percent(value: &str) -> Value {
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
            "deployment" => ("deployments", deployment(words)),
            "replicaset" => ("replicasets", replica_set(words)),
            "pod" => ("pods", self.pod(words)),
            "node" => ("nodes", self.node(words)),
            "lease" => ("leases", self.lease()),
            "namespace" => {
                ("namespaces", json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}))
            }
            "job" => ("jobs", job(words)),
            "cronjob" => ("cronjobs", cron_job(words)),
            "statefulset" => ("statefulsets", stateful_set(words)),
            "daemonset" => ("daemonsets", daemon_set(words)),
            "rc" => ("replicationcontrollers", replication_controller(words)),
            "service" => ("services", service(words)),
            "endpoints" => ("endpoints", json!({})),
            "budget" => ("poddisruptionbudgets", budget(words)),
            "claim" => ("persistentvolumeclaims", claim(words)),
            "volume" => ("persistentvolumes", volume(words)),
            "class" => ("storageclasses", class(words)),
            "clusterrole" => ("clusterroles", json!({"metadata": {}})),
            "account" => ("serviceaccounts", json!({})),
            "configmap" => ("configmaps", json!({"data": {}})),
            "secret" => ("secrets", json!({})),
            other => panic!("can't make a {other}"),
        };
        object["metadata"]["name"] = json!(name);
        if let Some(uid) = words.get("uid") {
            object["metadata"]["uid"] = json!(uid);
        }
        if kind_is_namespaced(plural) {
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
            pod["status"] = running(&since.to_string());
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

    fn lease(&self) -> Value {
        let renewed = format!("{:.6}", self.server.now);
        json!({"spec": {"holderIdentity": "kubelet", "leaseDurationSeconds": 40, "renewTime": renewed}})
    }

    /// Living kubelets start what is bound to them, end what is being deleted, and renew their leases.
    pub fn kubelets(&mut self, dead: &[&str]) {
        self.end_deleted_pods(dead);
        let now = self.server.now.to_string();
        let start: Vec<ObjectKey> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| {
                let node = text(pod, "/spec/nodeName");
                !node.is_empty() && !dead.contains(&node.as_str()) && text(pod, "/status/phase") == "Pending"
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in start {
            self.edit("pods", &key, &json!({"status": running(&now)}));
        }
        let nodes: Vec<ObjectKey> = self
            .server
            .of_kind("nodes")
            .map(|(key, _)| key.clone())
            .filter(|key| !dead.contains(&key.name.as_str()))
            .collect();
        for key in nodes {
            let lease = ObjectKey::new("kube-node-lease", &key.name);
            if self.server.objects.contains_key(&("leases".to_owned(), lease.clone())) {
                let spec = self.lease();
                self.edit("leases", &lease, &spec);
            }
            let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
                "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
            self.edit("nodes", &key, &ready);
        }
    }

    fn end_deleted_pods(&mut self, dead: &[&str]) {
        let ended: Vec<ObjectKey> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| {
                api::object::is_deleting(pod) && !dead.contains(&text(pod, "/spec/nodeName").as_str())
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            // Whom a finalizer holds is seen to have ended.
            let pod = &self.server.objects[&("pods".to_owned(), key.clone())];
            if !api::object::finalizers(pod).is_empty()
                && !matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed")
            {
                self.end(&key, "Failed", 137);
            }
            self.server.delete(&("pods".to_owned(), key), None, Some(0));
        }
    }

    /// The pod's container ends.
    pub fn end(&mut self, key: &ObjectKey, phase: &str, code: i32) {
        let now = self.server.now.to_string();
        let terminated = json!({"exitCode": code, "startedAt": now, "finishedAt": now});
        let status = json!({"status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}],
            "containerStatuses": [{"name": "c", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"terminated": terminated}}],
        }});
        self.edit("pods", key, &status);
    }

    /// Running pods of Jobs end: `succeed` says which way.
    pub fn finish_jobs(&mut self, succeed: impl Fn(&Value) -> bool) {
        let running: Vec<(ObjectKey, bool)> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| {
                text(pod, "/status/phase") == "Running"
                    && text(pod, "/metadata/ownerReferences/0/kind") == "Job"
            })
            .map(|(key, pod)| (key.clone(), succeed(pod)))
            .collect();
        for (key, succeeds) in running {
            let (phase, code) = if succeeds { ("Succeeded", 0) } else { ("Failed", 1) };
            self.end(&key, phase, code);
        }
    }

    /// Binds each pending pod to the ready node with the fewest pods.
    pub fn schedule(&mut self) {
        let unbound: Vec<ObjectKey> = self
            .server
            .of_kind("pods")
            .filter(|(_, pod)| text(pod, "/spec/nodeName").is_empty() && !api::object::is_deleting(pod))
            .map(|(key, _)| key.clone())
            .collect();
        for key in unbound {
            let chosen = self.bound_by_affinity(&key).or_else(|| self.emptiest_node());
            if let Some(node) = chosen {
                self.edit("pods", &key, &json!({"spec": {"nodeName": node}}));
            }
        }
    }

    /// The node that a daemon pod is meant for.
    fn bound_by_affinity(&self, key: &ObjectKey) -> Option<String> {
        let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        let field = "/nodeSelectorTerms/0/matchFields/0/values/0";
        let pod = &self.server.objects[&("pods".to_owned(), key.clone())];
        Some(text(pod, &format!("{required}{field}"))).filter(|node| !node.is_empty())
    }

    fn emptiest_node(&self) -> Option<String> {
        let usable =
            |node: &Value| node.pointer("/spec/taints").and_then(Value::as_array).is_none_or(Vec::is_empty);
        let nodes = self.server.of_kind("nodes").filter(|(_, node)| usable(node));
        let load = |name: &str| {
            self.server.of_kind("pods").filter(|(_, pod)| text(pod, "/spec/nodeName") == name).count()
        };
        nodes.map(|(key, _)| key.name.clone()).min_by_key(|name| (load(name), name.clone()))
    }

    /// Somebody edits an object without looking at its version.
    pub fn edit(&mut self, plural: &str, key: &ObjectKey, patch: &Value) {
        let slot = (plural.to_owned(), key.clone());
        let mut object =
            self.server.objects.get(&slot).unwrap_or_else(|| panic!("there is no {plural} {key}")).clone();
        merge(&mut object, patch);
        self.server.put(slot, object);
    }

    /// One line an object.
    pub fn show(&self, plural: &str) -> Vec<String> {
        self.server.of_kind(plural).map(|(key, object)| line(plural, key, object)).collect()
    }
}

fn running(since: &str) -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]})
}

fn template(words: &Words<'_>) -> Value {
    let app = words.get("app").copied().unwrap_or("web");
    let image = words.get("image").copied().unwrap_or("i");
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(words: &Words<'_>) -> Value {
    let rolling = json!({
        "maxSurge": count_or_percent(words.get("surge").copied().unwrap_or("25%")),
        "maxUnavailable": count_or_percent(words.get("unavailable").copied().unwrap_or("25%")),
    });
    let strategy = match words.contains_key("recreate") {
        true => json!({"type": "Recreate"}),
        false => json!({"type": "RollingUpdate", "rollingUpdate": rolling}),
    };
    json!({"metadata": {}, "spec": {
        "replicas": number(words, "replicas", 1),
        "selector": {"matchLabels": {"app": words.get("app").copied().unwrap_or("web")}},
        "template": template(words),
        "strategy": strategy,
        "revisionHistoryLimit": number(words, "history", 10),
        "progressDeadlineSeconds": number(words, "deadline", 600),
    }})
}

fn replica_set(words: &Words<'_>) -> Value {
    let app = words.get("app").copied().unwrap_or("web");
    json!({"metadata": {"labels": {"app": app}}, "spec": {
        "replicas": number(words, "replicas", 1),
        "minReadySeconds": number(words, "min-ready", 0),
        "selector": {"matchLabels": {"app": app}},
        "template": template(words),
    }})
}

fn selector(words: &Words<'_>) -> Value {
    json!({"matchLabels": {"app": words.get("app").copied().unwrap_or("web")}})
}

fn job(words: &Words<'_>) -> Value {
    let mut spec = json!({
        "parallelism": number(words, "parallelism", 1),
        "backoffLimit": number(words, "backoff", 6),
        "selector": selector(words),
        "template": template(words),
        "podReplacementPolicy": "TerminatingOrFailed",
    });
    if words.contains_key("completions") {
        spec["completions"] = json!(number(words, "completions", 1));
    }
    if words.contains_key("indexed") {
        spec["completionMode"] = json!("Indexed");
    }
    for (word, field) in [
        ("per-index", "backoffLimitPerIndex"),
        ("max-failed", "maxFailedIndexes"),
        ("deadline", "activeDeadlineSeconds"),
        ("ttl", "ttlSecondsAfterFinished"),
    ] {
        if words.contains_key(word) {
            spec[field] = json!(number(words, word, 0));
        }
    }
    if words.contains_key("suspend") {
        spec["suspend"] = json!(true);
    }
    json!({"metadata": {}, "spec": spec})
}

fn cron_job(words: &Words<'_>) -> Value {
    let minutes = words.get("every").copied().unwrap_or("1");
    json!({"metadata": {}, "spec": {
        "schedule": format!("*/{minutes} * * * *"),
        "concurrencyPolicy": words.get("policy").copied().unwrap_or("Allow"),
        "jobTemplate": {"spec": job(words)["spec"].clone()},
    }})
}

fn stateful_set(words: &Words<'_>) -> Value {
    json!({"metadata": {}, "spec": {
        "replicas": number(words, "replicas", 1),
        "serviceName": "web",
        "selector": selector(words),
        "template": template(words),
        "podManagementPolicy": if words.contains_key("parallel") { "Parallel" } else { "OrderedReady" },
        "revisionHistoryLimit": number(words, "history", 10),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": number(words, "partition", 0)}},
    }})
}

fn daemon_set(words: &Words<'_>) -> Value {
    let rolling = json!({
        "maxSurge": count_or_percent(words.get("surge").copied().unwrap_or("0")),
        "maxUnavailable": count_or_percent(words.get("unavailable").copied().unwrap_or("1")),
    });
    json!({"metadata": {}, "spec": {
        "selector": selector(words),
        "template": template(words),
        "revisionHistoryLimit": number(words, "history", 10),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
    }})
}

fn replication_controller(words: &Words<'_>) -> Value {
    let mut object = replica_set(words);
    object["spec"]["selector"] = selector(words)["matchLabels"].clone();
    object
}

fn service(words: &Words<'_>) -> Value {
    let port = words.get("port").copied().unwrap_or("80");
    json!({"metadata": {}, "spec": {
        "selector": selector(words)["matchLabels"].clone(),
        "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": count_or_percent(port)}],
    }})
}

fn volume(words: &Words<'_>) -> Value {
    json!({"metadata": {}, "spec": {
        "capacity": {"storage": words.get("size").copied().unwrap_or("1Gi")},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": words.get("class").copied().unwrap_or_default(),
        "persistentVolumeReclaimPolicy": words.get("policy").copied().unwrap_or("Retain"),
        "hostPath": {"path": "/data"},
    }})
}

fn class(words: &Words<'_>) -> Value {
    let waits = if words.contains_key("waits") { "WaitForFirstConsumer" } else { "Immediate" };
    json!({"provisioner": words.get("by").copied().unwrap_or("amoeba.dev/local-path"),
        "reclaimPolicy": words.get("policy").copied().unwrap_or("Delete"), "volumeBindingMode": waits})
}

fn claim(words: &Words<'_>) -> Value {
    let mut spec = json!({});
    if let Some(size) = words.get("size") {
        spec["resources"] = json!({"requests": {"storage": size}});
        spec["accessModes"] = json!(["ReadWriteOnce"]);
        spec["storageClassName"] = json!(words.get("class").copied().unwrap_or_default());
    }
    json!({ "spec": spec })
}

fn budget(words: &Words<'_>) -> Value {
    let mut spec = json!({"selector": selector(words)});
    for (word, field) in [("min", "minAvailable"), ("max", "maxUnavailable")] {
        if let Some(value) = words.get(word) {
            spec[field] = count_or_percent(value);
        }
    }
    json!({"metadata": {}, "spec": spec})
}

fn line(plural: &str, key: &ObjectKey, object: &Value) -> String {
    let deleting = if api::object::is_deleting(object) { " deleting" } else { "" };
    let facts = match plural {
        "pods" => format!(
            "{} on {:?}{}",
            text(object, "/status/phase"),
            text(object, "/spec/nodeName"),
            avoided(object)
        ),
        "deployments" => format!("revision={} {}", annotation(object, "revision"), status(object)),
        "replicasets" => {
            let replicas = &object["spec"]["replicas"];
            format!("revision={} replicas={replicas} {}", annotation(object, "revision"), status(object))
        }
        "jobs"
        | "statefulsets"
        | "daemonsets"
        | "replicationcontrollers"
        | "cronjobs"
        | "poddisruptionbudgets" => status(object),
        "endpointslices" => format!("{} {}", object["ports"], object["endpoints"]),
        "endpoints" => object["subsets"].to_string(),
        "controllerrevisions" => format!("revision={}", object["revision"]),
        "persistentvolumes" => {
            let claim = &object["spec"]["claimRef"];
            format!("{} for {:?}", text(object, "/status/phase"), text(claim, "/name"))
        }
        "clusterroles" => object["rules"].to_string(),
        "nodes" => format!("{} {}", object["status"]["conditions"][0]["status"], taints(object)),
        "namespaces" => text(object, "/status/phase"),
        _ => format!(
            "finalizers={:?} owners={}",
            api::object::finalizers(object),
            api::object::owner_references(object).len()
        ),
    };
    format!("{plural} {key} {facts}{deleting}")
}

/// The nodes that a pod would rather not run on.
fn avoided(pod: &Value) -> String {
    let preferred =
        "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/preference";
    let fields = pod.pointer(preferred).and_then(|term| term["matchFields"].as_array());
    fields.map_or_else(String::new, |fields| {
        let nodes: Vec<String> = fields.iter().map(|field| text(field, "/values/0")).collect();
        format!(" rather than {}", nodes.join(", "))
    })
}

fn annotation(object: &Value, name: &str) -> String {
    text(object, &format!("/metadata/annotations/deployment.kubernetes.io~1{name}"))
}

fn status(object: &Value) -> String {
    let mut status = object["status"].clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("conditions");
        fields.remove("observedGeneration");
        fields.retain(|_, count| *count != json!(0));
    }
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions: Vec<String> = conditions
        .iter()
        .map(|condition| {
            format!(
                "{}={}/{}",
                text(condition, "/type"),
                text(condition, "/status"),
                text(condition, "/reason")
            )
        })
        .collect();
    format!("{status} {}", conditions.join(" "))
}

fn taints(node: &Value) -> String {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let taints: Vec<String> =
        taints.iter().map(|taint| format!("{}:{}", text(taint, "/key"), text(taint, "/effect"))).collect();
    taints.join(",")
}
