//! Conversations with the scheduler, in `testdata/*.txt`: commands, a line `----`, and the answer.
//!
//! `UPDATE=1 cargo test -p scheduler` rewrites the answers; the diff is the review.

mod storage;

use super::{ClaimWrite, Effect, Event, Scheduler};
use crate::budget::Budget;
use crate::gang::GroupInfo;
use crate::name::{NodeName, PodKey};
use crate::namespace::NamespaceInfo;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::profile::{Profile, Profiles, Strategy};
use crate::queue::Backoff;
use crate::selector::NodeTerm;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn scripts() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .expect("testdata")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "there are scripts");
    for path in names {
        let script = std::fs::read_to_string(&path).expect("a readable script");
        let answered = run(&script);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &answered).expect("a writable script");
        } else {
            assert_eq!(script, answered, "{} (UPDATE=1 rewrites it)", path.display());
        }
    }
}

/// The script with the answers it gets now.
fn run(script: &str) -> String {
    let mut world = World::new();
    let mut answered = String::new();
    for block in script.trim_end().split("\n\n") {
        let commands = block.split("\n----").next().expect("split yields at least one part");
        if commands.lines().all(|line| line.starts_with('#')) {
            writeln!(answered, "{commands}\n").expect("a string takes everything");
            continue;
        }
        let answer: String = commands.lines().map(|line| world.command(line)).collect();
        writeln!(answered, "{commands}\n----\n{answer}").expect("a string takes everything");
    }
    format!("{}\n", answered.trim_end())
}

struct World {
    scheduler: Scheduler,
    now: Instant,
    pods: BTreeMap<String, Value>,
    binding: BTreeMap<String, NodeName>,
    profiles: Vec<(Arc<str>, Profile)>,
}

impl World {
    fn new() -> Self {
        World {
            scheduler: Scheduler::new("default-scheduler"),
            now: Instant::now(),
            pods: BTreeMap::new(),
            binding: BTreeMap::new(),
            profiles: Vec::new(),
        }
    }

    fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [first, ..] if first.starts_with('#') => {}
            ["node", name, options @ ..] => self.observe(Event::Node(node(name, options))),
            ["pod", name, options @ ..] => self.apply(name, pod(name, options)),
            ["budget", name, options @ ..] => self.observe(Event::Budget(budget(name, options))),
            ["group", name, options @ ..] => self.observe(Event::Group(group(name, options))),
            ["profile", name, options @ ..] => self.profile(name, options),
            ["namespace", name, labels @ ..] => self.observe(Event::Namespace(namespace(name, labels))),
            ["delete", "namespace", name] => self.observe(Event::NamespaceGone((*name).into())),
            ["delete", "budget", name] => self.observe(Event::BudgetGone(key(name))),
            ["delete", "group", name] => self.observe(Event::GroupGone(key(name))),
            ["claim" | "volume" | "class" | "limits", ..] => self.observe(storage::event(&words)),
            ["delete", "claim" | "volume" | "class" | "limits", ..] => {
                self.observe(storage::gone(&words[1..]))
            }
            ["prepared", name] => self.prepared(name, true),
            ["unprepared", name] => self.prepared(name, false),
            ["stays", name] => {
                let uid = pod_info(self.pods[*name].clone()).uid;
                self.observe(Event::NotEvicted(uid));
            }
            ["delete", "node", name] => self.observe(Event::NodeGone((*name).into())),
            ["delete", "pod", name] => self.observe(Event::PodGone(key(name))),
            ["bound", name] => self.answer(name, true),
            ["refused", name] => self.answer(name, false),
            ["seen", name] => self.seen(name),
            ["advance", seconds] => self.now += Duration::from_secs_f64(seconds.parse().expect("seconds")),
            ["schedule"] => return self.schedule(),
            ["wake"] => drop(self.scheduler.schedule(0, self.now, &mut || 0)),
            ["queue"] => return self.queue(),
            ["explain", name] => return self.explain(name),
            _ => panic!("unknown command: {line}"),
        }
        String::new()
    }

    /// Begins anew with one profile more. `NAME=weight` scores, `NAME` isn't asked, `most` packs, and `list=…` is a
    /// default constraint as in `spread`, without labels.
    fn profile(&mut self, name: &str, options: &[&str]) {
        let mut profile = Profile::default();
        for (option, value) in options.iter().map(|word| option(word)) {
            match (option, value) {
                ("most", _) => profile.scoring.strategy = Strategy::MostAllocated,
                ("list", rule) => {
                    let mut rule = spread(&format!("{rule}:x=y"));
                    rule["labelSelector"] = Value::Null;
                    let rule = serde_json::from_value(rule).expect("a constraint");
                    profile.spread.get_or_insert_default().push(rule);
                }
                ("added", rule) => {
                    let term = serde_json::from_value(term(rule)).expect("a term");
                    profile.added.required.get_or_insert_default().push(NodeTerm::of(&term));
                }
                ("DefaultPreemption", _) => profile.preemption = None,
                (plugin, "") => {
                    profile.filters.remove(&plugin.parse().expect("a plugin"));
                }
                (plugin, weight) => {
                    let weight = weight.parse().expect("a weight");
                    profile.weights.insert(plugin.parse().expect("a plugin"), weight);
                }
            }
        }
        self.profiles.push((name.into(), profile));
        let all = self.profiles.clone().into_iter().chain([("default-scheduler".into(), Profile::default())]);
        self.scheduler = Scheduler::with(Profiles::new(all), Backoff::default());
    }

    fn observe(&mut self, event: Event) {
        self.scheduler.observe(event, self.now);
    }

    fn apply(&mut self, name: &str, pod: Value) {
        self.pods.insert(name.to_owned(), pod.clone());
        self.observe(Event::Pod(pod_info(pod)));
    }

    fn answer(&mut self, name: &str, accepted: bool) {
        let uid = pod_info(self.pods[name].clone()).uid;
        self.observe(Event::Bound { pod: key(name), uid, accepted });
    }

    fn prepared(&mut self, name: &str, accepted: bool) {
        let uid = pod_info(self.pods[name].clone()).uid;
        self.observe(Event::Prepared { pod: key(name), uid, accepted });
    }

    /// The watch shows the pod on the node it was bound to.
    fn seen(&mut self, name: &str) {
        let mut pod = self.pods[name].clone();
        pod["spec"]["nodeName"] = json!(self.binding[name].to_string());
        self.apply(name, pod);
    }

    fn schedule(&mut self) -> String {
        let mut text = String::new();
        loop {
            let effects = self.scheduler.schedule(4, self.now, &mut || 0);
            if effects.is_empty() {
                return text;
            }
            for effect in effects {
                text += &self.effect(effect);
            }
        }
    }

    fn effect(&mut self, effect: Effect) -> String {
        match effect {
            Effect::Bind { pod, node, .. } => {
                self.binding.insert(pod.name.to_string(), node.clone());
                format!("{} -> {node}\n", pod.name)
            }
            Effect::Prepare { pod, node, claims, .. } => {
                let claims: String = claims.iter().map(claim_write).collect();
                format!("{} will go to {node}:{claims}\n", pod.name)
            }
            Effect::ReportGroup { group, said, .. } => {
                let state = if said.scheduled { "scheduled" } else { "unschedulable" };
                format!("group {} is {state}: {}\n", group.name, said.message)
            }
            Effect::Report { pod, message, nominated, .. } => {
                let nominated = nominated.map(|node| format!(" (nominated to {node})")).unwrap_or_default();
                format!("{}: {message}{nominated}\n", pod.name)
            }
            Effect::Evict { pod, preemptor, node, .. } => {
                format!("{} leaves {node} for {preemptor}\n", pod.name)
            }
        }
    }

    fn queue(&self) -> String {
        let place = |name: &String| Some(format!("{name} {}\n", self.scheduler.queue().place(&key(name))?));
        let text: String = self.pods.keys().filter_map(place).collect();
        let wake = self.scheduler.next_wake().map(|at| format!("next wake in {:?}\n", at - self.now));
        if text.is_empty() { "empty\n".to_owned() } else { text + &wake.unwrap_or_default() }
    }

    fn explain(&mut self, name: &str) -> String {
        let nodes = self.scheduler.explain(&key(name)).unwrap_or_default();
        nodes.iter().map(|node| format!("{node}\n")).collect()
    }
}

fn claim_write(write: &ClaimWrite) -> String {
    match write {
        ClaimWrite::Select { claim, node, .. } => format!(" {} is for {node}", claim.name),
        ClaimWrite::Give { volume, claim, ours, .. } => {
            format!(" {} gets {volume}{}", claim.0.name, if *ours { "" } else { ", which named it" })
        }
    }
}

fn key(name: &str) -> PodKey {
    PodKey::new("default", name)
}

/// `app=web allows=1`: a label and how many may be disrupted.
fn budget(name: &str, options: &[&str]) -> Budget {
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
fn group(name: &str, options: &[&str]) -> GroupInfo {
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
fn namespace(name: &str, labels: &[&str]) -> NamespaceInfo {
    let labels = labels.iter().map(|word| option(word));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    NamespaceInfo { name: name.into(), labels }
}

fn pod_info(pod: Value) -> PodInfo {
    PodInfo::of(&serde_json::from_value(pod).expect("a pod"))
}

/// `name=value`, or `name` alone with an empty value.
fn option(word: &str) -> (&str, &str) {
    word.split_once('=').unwrap_or((word, ""))
}

fn node(name: &str, options: &[&str]) -> NodeInfo {
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

fn pod(name: &str, options: &[&str]) -> Value {
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
fn term(text: &str) -> Value {
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
fn spread(text: &str) -> Value {
    let parts: Vec<&str> = text.split(':').collect();
    let (key, value) = option(parts[3]);
    let when = if parts[2] == "hard" { "DoNotSchedule" } else { "ScheduleAnyway" };
    json!({
        "topologyKey": parts[0], "maxSkew": parts[1].parse::<i32>().expect("a skew"), "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {key: value}},
        "minDomains": parts.get(4).map(|number| number.parse::<i32>().expect("a number of domains")),
    })
}
