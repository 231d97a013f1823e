//! What a line of a script says of an object, as the scheduler reads it: `NAME option=value …`.

use crate::budget::Budget;
use crate::gang::GroupInfo;
use crate::name::PodKey;
use crate::namespace::NamespaceInfo;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use serde_json::{Value, json};

pub(super) fn key(name: &str) -> PodKey {
    PodKey::new("default", name)
}

/// `app=web allows=1`: a label and how many may be disrupted.
pub(super) fn budget(name: &str, options: &[&str]) -> Budget {
    let (mut labels, mut allowed) = (json!({}), 0);
    for (option, value) in options.iter().map(|word| option(word)) {
        match option {
            "allows" => allowed = value.parse::<i32>().expect("a number"),
            label => labels[label] = json!(value),
        }
    }
    let object = json!({
        "metadata": {"name": name, "namespace": "default"}, "spec": {"selector": {"matchLabels": labels}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    });
    Budget::of(&serde_json::from_value(object).expect("a budget"))
}

/// `gang=3`, or nothing for a group whose pods are placed one by one.
pub(super) fn group(name: &str, options: &[&str]) -> GroupInfo {
    let gang = options.iter().find_map(|word| word.strip_prefix("gang="));
    let policy = match gang {
        Some(count) => json!({"gang": {"minCount": count.parse::<i64>().expect("a number")}}),
        None => json!({"basic": {}}),
    };
    let object =
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"schedulingPolicy": policy}});
    GroupInfo::of(&serde_json::from_value(object).expect("a group"))
}

/// `team=a`: its labels.
pub(super) fn namespace(name: &str, labels: &[&str]) -> NamespaceInfo {
    let labels = labels.iter().map(|word| option(word));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    NamespaceInfo { name: name.into(), labels }
}

pub(super) fn pod_info(pod: Value) -> PodInfo {
    PodInfo::of(&serde_json::from_value(pod).expect("a pod"))
}

/// `name=value`, or `name` alone with an empty value.
pub(super) fn option(word: &str) -> (&str, &str) {
    word.split_once('=').unwrap_or((word, ""))
}

pub(super) fn node(name: &str, options: &[&str]) -> NodeInfo {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {"taints": []},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    for (option, value) in options.iter().map(|word| option(word)) {
        match option {
            "label" => {
                let (key, value) = self::option(value);
                node["metadata"]["labels"][key] = json!(value);
            }
            "nolabels" => node["metadata"]["labels"] = json!({}),
            "taint" => node["spec"]["taints"].as_array_mut().expect("taints").push(taint(value)),
            "image" => {
                let (name, size) = self::option(value);
                let image = json!({"names": [name], "sizeBytes": size.parse::<i64>().expect("MB") << 20});
                push(&mut node["status"]["images"], image);
            }
            "cordoned" => node["spec"]["unschedulable"] = json!(true),
            resource => node["status"]["allocatable"][resource] = json!(value),
        }
    }
    NodeInfo::of(&serde_json::from_value(node).expect("a node"))
}

/// `key=value:Effect` or `key:Effect`.
fn taint(text: &str) -> Value {
    let (pair, effect) = text.rsplit_once(':').expect("key:Effect");
    let (key, value) = option(pair);
    json!({"key": key, "value": value, "effect": effect})
}

/// `key=value:Effect`, `key:Effect` (any value) or `all`.
fn toleration(text: &str) -> Value {
    let Some((pair, effect)) = text.rsplit_once(':') else { return json!({"operator": "Exists"}) };
    match pair.split_once('=') {
        Some((key, value)) => json!({"key": key, "value": value, "effect": effect}),
        None => json!({"key": pair, "operator": "Exists", "effect": effect}),
    }
}

pub(super) fn pod(name: &str, options: &[&str]) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {}}, "ports": []}]},
        "status": {},
    });
    for (option, value) in options.iter().map(|word| option(word)) {
        set_option(&mut pod, option, value);
    }
    pod
}

fn set_option(pod: &mut Value, option: &str, value: &str) {
    match option {
        "in" => pod["metadata"]["namespace"] = json!(value),
        "uid" => pod["metadata"]["uid"] = json!(value),
        "node" => pod["spec"]["nodeName"] = json!(value),
        "label" => {
            let (key, value) = self::option(value);
            pod["metadata"]["labels"][key] = json!(value);
        }
        "owner" => own(pod, "apps/v1", "ReplicaSet", value),
        "job" => own(pod, "batch/v1", "Job", value),
        "created" => pod["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{value}Z")),
        "terminating" => pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        "started" => pod["status"]["startTime"] = json!(format!("2026-01-01T00:00:{value}Z")),
        "resizing" => {
            let (reason, cpu) = self::option(value);
            pod["status"]["conditions"] =
                json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
            pod["status"]["containerStatuses"] = json!([{"name": "c", "allocatedResources": {"cpu": cpu}}]);
        }
        "nominated" => pod["status"]["nominatedNodeName"] = json!(value),
        "phase" => pod["status"]["phase"] = json!(value),
        "reported" => {
            pod["status"]["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": value.replace('_', " "),
            }])
        }
        _ => set_spec_option(&mut pod["spec"], option, value),
    }
}

fn own(pod: &mut Value, version: &str, kind: &str, name: &str) {
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": true,
    }]);
}

fn set_spec_option(spec: &mut Value, option: &str, value: &str) {
    match option {
        "image" => spec["containers"][0]["image"] = json!(value),
        "claim" => {
            let volume = json!({"name": value, "persistentVolumeClaim": {"claimName": value}});
            push(&mut spec["volumes"], volume);
        }
        "ephemeral" => push(&mut spec["volumes"], json!({"name": value, "ephemeral": {}})),
        "never" => spec["preemptionPolicy"] = json!("Never"),
        "group" => spec["schedulingGroup"] = json!({"podGroupName": value}),
        "priority" => spec["priority"] = json!(value.parse::<i32>().expect("a priority")),
        "scheduler" => spec["schedulerName"] = json!(value),
        "gate" => spec["schedulingGates"] = json!([{"name": value}]),
        "select" => {
            let (key, value) = self::option(value);
            spec["nodeSelector"][key] = json!(value);
        }
        "affinity" => {
            spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!({"nodeSelectorTerms": [term(value)]});
        }
        "prefer" => {
            let (weight, rest) = value.split_once(':').expect("weight:term");
            let weight: i32 = weight.parse().expect("a weight");
            spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
                json!([{"weight": weight, "preference": term(rest)}]);
        }
        "wish" => {
            let (weight, rest) = value.split_once(':').expect("weight:term");
            let weight: i32 = weight.parse().expect("a weight");
            let kind = if weight > 0 { "podAffinity" } else { "podAntiAffinity" };
            let wish = json!({"weight": weight.abs(), "podAffinityTerm": pod_term(rest)});
            push(&mut spec["affinity"][kind]["preferredDuringSchedulingIgnoredDuringExecution"], wish);
        }
        "near" => push(&mut spec["affinity"]["podAffinity"][REQUIRED], pod_term(value)),
        "apart" => push(&mut spec["affinity"]["podAntiAffinity"][REQUIRED], pod_term(value)),
        "tolerate" => push(&mut spec["tolerations"], toleration(value)),
        "port" => push(&mut spec["containers"][0]["ports"], port(value)),
        "spread" => push(&mut spec["topologySpreadConstraints"], spread(value)),
        resource => spec["containers"][0]["resources"]["requests"][resource] = json!(value),
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// `topologyKey:label=value`, and perhaps `@label=value` (or `@`) of namespaces, or `/name` of one.
fn pod_term(text: &str) -> Value {
    let (topology_key, label) = text.split_once(':').expect("topologyKey:label=value");
    let (label, labelled) = label.split_once('@').map_or((label, None), |(label, more)| (label, Some(more)));
    let (label, named) = label.split_once('/').map_or((label, None), |(label, name)| (label, Some(name)));
    let (key, value) = option(label);
    let mut term = json!({"topologyKey": topology_key, "labelSelector": {"matchLabels": {key: value}}});
    if let Some(label) = labelled {
        let (key, value) = option(label);
        let all = if key.is_empty() { json!({}) } else { json!({"matchLabels": {key: value}}) };
        term["namespaceSelector"] = all;
    }
    if let Some(name) = named {
        term["namespaces"] = json!([name]);
    }
    term
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        _ => *list = json!([item]),
    }
}

/// `key:Operator:value|value`.
pub(super) fn term(text: &str) -> Value {
    let parts: Vec<&str> = text.split(':').collect();
    let values: Vec<&str> = parts.get(2).map(|values| values.split('|').collect()).unwrap_or_default();
    json!({"matchExpressions": [{"key": parts[0], "operator": parts[1], "values": values}]})
}

/// `[address/]port[/UDP]`.
fn port(text: &str) -> Value {
    let (address, rest) = text.split_once('@').unwrap_or(("", text));
    let (number, protocol) = rest.split_once('/').unwrap_or((rest, "TCP"));
    json!({
        "containerPort": 80, "hostPort": number.parse::<i32>().expect("a port"), "hostIP": address,
        "protocol": protocol,
    })
}

/// `topologyKey:maxSkew:hard|soft:label=value[:minDomains]`.
pub(super) fn spread(text: &str) -> Value {
    let parts: Vec<&str> = text.split(':').collect();
    let (key, value) = option(parts[3]);
    let when = if parts[2] == "hard" { "DoNotSchedule" } else { "ScheduleAnyway" };
    json!({
        "topologyKey": parts[0], "maxSkew": parts[1].parse::<i32>().expect("a skew"), "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {key: value}},
        "minDomains": parts.get(4).map(|number| number.parse::<i32>().expect("a number of domains")),
    })
}
