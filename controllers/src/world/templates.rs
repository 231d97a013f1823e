//! Objects in few words: each noun of a script with what its words mean.

use super::objects::{Words, count_or_percent, number};
use serde_json::{Value, json};

pub fn running(since: &str) -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]})
}

pub fn template(words: &Words<'_>) -> Value {
    let app = words.get("app").copied().unwrap_or("web");
    let image = words.get("image").copied().unwrap_or("i");
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

pub fn deployment(words: &Words<'_>) -> Value {
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

pub fn replica_set(words: &Words<'_>) -> Value {
    let app = words.get("app").copied().unwrap_or("web");
    json!({"metadata": {"labels": {"app": app}}, "spec": {
        "replicas": number(words, "replicas", 1),
        "minReadySeconds": number(words, "min-ready", 0),
        "selector": {"matchLabels": {"app": app}},
        "template": template(words),
    }})
}

pub fn selector(words: &Words<'_>) -> Value {
    json!({"matchLabels": {"app": words.get("app").copied().unwrap_or("web")}})
}

pub fn job(words: &Words<'_>) -> Value {
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

pub fn cron_job(words: &Words<'_>) -> Value {
    let minutes = words.get("every").copied().unwrap_or("1");
    json!({"metadata": {}, "spec": {
        "schedule": format!("*/{minutes} * * * *"),
        "concurrencyPolicy": words.get("policy").copied().unwrap_or("Allow"),
        "jobTemplate": {"spec": job(words)["spec"].clone()},
    }})
}

pub fn stateful_set(words: &Words<'_>) -> Value {
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

pub fn daemon_set(words: &Words<'_>) -> Value {
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

pub fn replication_controller(words: &Words<'_>) -> Value {
    let mut object = replica_set(words);
    object["spec"]["selector"] = selector(words)["matchLabels"].clone();
    object
}

pub fn service(words: &Words<'_>) -> Value {
    let port = words.get("port").copied().unwrap_or("80");
    json!({"metadata": {}, "spec": {
        "selector": selector(words)["matchLabels"].clone(),
        "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": count_or_percent(port)}],
    }})
}

pub fn volume(words: &Words<'_>) -> Value {
    json!({"metadata": {}, "spec": {
        "capacity": {"storage": words.get("size").copied().unwrap_or("1Gi")},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": words.get("class").copied().unwrap_or_default(),
        "persistentVolumeReclaimPolicy": words.get("policy").copied().unwrap_or("Retain"),
        "hostPath": {"path": "/data"},
    }})
}

pub fn class(words: &Words<'_>) -> Value {
    let waits = if words.contains_key("waits") { "WaitForFirstConsumer" } else { "Immediate" };
    json!({"provisioner": words.get("by").copied().unwrap_or("amoeba.dev/local-path"),
        "reclaimPolicy": words.get("policy").copied().unwrap_or("Delete"), "volumeBindingMode": waits})
}

pub fn claim(words: &Words<'_>) -> Value {
    let mut spec = json!({});
    if let Some(size) = words.get("size") {
        spec["resources"] = json!({"requests": {"storage": size}});
        spec["accessModes"] = json!(["ReadWriteOnce"]);
        spec["storageClassName"] = json!(words.get("class").copied().unwrap_or_default());
    }
    json!({ "spec": spec })
}

pub fn budget(words: &Words<'_>) -> Value {
    let mut spec = json!({"selector": selector(words)});
    for (word, field) in [("min", "minAvailable"), ("max", "maxUnavailable")] {
        if let Some(value) = words.get(word) {
            spec[field] = count_or_percent(value);
        }
    }
    json!({"metadata": {}, "spec": spec})
}

pub fn range(words: &Words<'_>) -> Value {
    json!({"metadata": {}, "spec": {"cidrs": [words.get("of").copied().unwrap_or("10.96.0.0/16")]}})
}

pub fn address() -> Value {
    json!({"metadata": {"labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}}})
}
