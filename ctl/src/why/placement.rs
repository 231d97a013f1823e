//! Where a pod could go: the scheduler's own rules, asked about the cluster as it is or as it might be.

use std::collections::{BTreeMap, BTreeSet};

use api::k8s::api::core::v1::Node;
use scheduler::diagnosis::NodeExplanation;
use scheduler::namespace::NamespaceInfo;
use scheduler::node::NodeInfo;
use scheduler::object::PodObject;
use scheduler::pod::PodInfo;
use scheduler::profile::Profiles;
use scheduler::queue::Backoff;
use scheduler::scheduler::{Event, Scheduler};
use scheduler::storage::{ClaimInfo, ClassInfo, NodeLimits, StorageEvent, VolumeInfo};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::place;
use super::view::{View, text};

/// Nodes and the pods on them, read for the scheduler.
pub struct Site<'a> {
    nodes: Vec<(&'a Value, NodeInfo)>,
    pods: Vec<(&'a Value, PodInfo)>,
    namespaces: Vec<NamespaceInfo>,
    profiles: Option<Profiles>,
    storage: Vec<StorageEvent>,
}

/// What is different from the cluster as it is.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// The pod, edited.
    pub pod: Option<Value>,
    /// Edited nodes by name.
    pub nodes: BTreeMap<String, Value>,
    /// Pods that are gone, as `namespace/name`.
    pub gone: BTreeSet<String>,
}

impl<'a> Site<'a> {
    /// Of all nodes and of all pods that occupy one.
    pub fn of(view: &'a View) -> Self {
        let nodes = view.all("Node").iter().filter_map(|node| Some((node, node_info(node)?)));
        let pods = view.all("Pod").iter().filter(|pod| !text(pod, "/spec/nodeName").is_empty());
        let pods = pods.filter_map(|pod| Some((pod, pod_info(pod)?))).filter(|(_, info)| !info.finished);
        let namespaces = objects(view, "Namespace").map(|one| NamespaceInfo::of(&one)).collect();
        Site {
            nodes: nodes.collect(),
            pods: pods.collect(),
            namespaces,
            profiles: view.profiles.clone(),
            storage: storage(view),
        }
    }

    /// The node objects.
    pub fn nodes(&self) -> impl Iterator<Item = &'a Value> {
        self.nodes.iter().map(|(node, _)| *node)
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&'a Value> {
        self.nodes().find(|node| api::object::name(node) == name)
    }

    /// The pods on a node, with what the scheduler reads of them.
    pub fn pods_on<'s>(&'s self, node: &'s str) -> impl Iterator<Item = (&'a Value, &'s PodInfo)> {
        let here = self.pods.iter().filter(move |(pod, _)| text(pod, "/spec/nodeName") == node);
        here.map(|(pod, info)| (*pod, info))
    }

    /// How much of a resource a node offers, and how much of it its pods leave.
    pub fn capacity(&self, node: &str, resource: &str) -> (i64, i64) {
        let offered = self.nodes.iter().find(|(object, _)| api::object::name(object) == node);
        let offered = offered.map_or(0, |(_, info)| info.allocatable.get(resource));
        let used: i64 =
            self.pods_on(node).map(|(_, info)| info.shape.needs.requests.exact.get(resource)).sum();
        (offered, offered - used)
    }

    /// What every rule says about every node, in their order by name, if these edits were made.
    pub fn judge(&self, pod: &Value, edits: &Edits) -> Vec<NodeExplanation> {
        let Some(mut wanted) = pod_info(&unplaced(edits.pod.as_ref().unwrap_or(pod))) else {
            return Vec::new();
        };
        wanted.gated = false;
        let now = std::time::Instant::now();
        let name = &wanted.scheduler_name;
        let profiles = self.profiles.clone().unwrap_or_else(|| Profiles::upstream(name)).or_upstream(name);
        let mut scheduler = Scheduler::with(profiles, Backoff::default());
        for (object, info) in &self.nodes {
            let edited = edits.nodes.get(api::object::name(object)).and_then(node_info);
            scheduler.observe(Event::Node(edited.unwrap_or_else(|| info.clone())), now);
        }
        for namespace in &self.namespaces {
            scheduler.observe(Event::Namespace(namespace.clone()), now);
        }
        for event in &self.storage {
            scheduler.observe(Event::Storage(event.clone()), now);
        }
        let itself = place(pod);
        for (object, info) in &self.pods {
            let name = place(object);
            if name != itself && !edits.gone.contains(&name) {
                scheduler.observe(Event::Pod(info.clone()), now);
            }
        }
        let key = wanted.key.clone();
        scheduler.observe(Event::Pod(wanted), now);
        scheduler.explain(&key).unwrap_or_default()
    }
}

/// The nodes that every rule accepts.
pub fn feasible(judged: &[NodeExplanation]) -> impl Iterator<Item = &NodeExplanation> {
    judged.iter().filter(|node| node.rejections.is_empty())
}

/// The sum of a feasible node's scores.
pub fn total(node: &NodeExplanation) -> i64 {
    node.scores.iter().map(|(_, score)| score).sum()
}

/// A row for each node: the best first, then those that fewest rules refuse.
pub fn rows(site: &Site<'_>, pod: &Value, judged: &[NodeExplanation]) -> Vec<Vec<String>> {
    let mut sorted: Vec<&NodeExplanation> = judged.iter().collect();
    sorted.sort_by_key(|node| (node.rejections.len(), -total(node)));
    sorted.into_iter().flat_map(|node| node_rows(site, pod, node)).collect()
}

fn node_rows(site: &Site<'_>, pod: &Value, node: &NodeExplanation) -> Vec<Vec<String>> {
    let name = node.node.to_string();
    if node.rejections.is_empty() {
        let parts: Vec<String> = node.scores.iter().map(|(rule, score)| format!("{rule} {score}")).collect();
        return vec![vec![name, format!("score {}", total(node)), "-".to_owned(), parts.join(", ")]];
    }
    let row = |(at, rejection): (usize, &scheduler::diagnosis::Rejection)| {
        let reasons: Vec<String> =
            rejection.reasons.iter().map(|reason| told(site, pod, &name, reason)).collect();
        let (name, verdict) = if at == 0 { (name.clone(), "refused") } else { (String::new(), "") };
        vec![name, verdict.to_owned(), rejection.plugin.to_string(), reasons.join(", ")]
    };
    node.rejections.iter().enumerate().map(row).collect()
}

/// A reason with its figures.
fn told(site: &Site<'_>, pod: &Value, node: &str, reason: &scheduler::plugins::Reason) -> String {
    match reason {
        scheduler::plugins::Reason::Insufficient(resource) => {
            let (offered, left) = site.capacity(node, resource);
            let asked = requested(pod, resource);
            let [asked, left, offered] = [asked, left, offered].map(|amount| amount_text(resource, amount));
            format!("{reason} (asks for {asked}; {left} of {offered} left)")
        }
        reason => reason.to_string(),
    }
}

/// How much of a resource the pod asks for.
pub fn requested(pod: &Value, resource: &str) -> i64 {
    pod_info(pod).map_or(0, |info| info.shape.needs.requests.exact.get(resource))
}

/// `1500m`, `2Gi`, `7`
pub fn amount_text(resource: &str, amount: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    match resource {
        "cpu" if amount % 1000 == 0 => (amount / 1000).to_string(),
        "cpu" => format!("{amount}m"),
        "memory" | "ephemeral-storage" => {
            let unit = UNITS.into_iter().find(|(_, size)| amount != 0 && amount % size == 0);
            unit.map_or_else(|| amount.to_string(), |(unit, size)| format!("{}{unit}", amount / size))
        }
        _ => amount.to_string(),
    }
}

/// What there is of claims, volumes, classes and nodes' limits.
fn storage(view: &View) -> Vec<StorageEvent> {
    let mut events = Vec::new();
    events.extend(objects(view, "PersistentVolumeClaim").map(|one| StorageEvent::Claim(ClaimInfo::of(&one))));
    events.extend(objects(view, "PersistentVolume").map(|one| StorageEvent::Volume(VolumeInfo::of(&one))));
    events.extend(objects(view, "StorageClass").map(|one| StorageEvent::Class(ClassInfo::of(&one))));
    events.extend(objects(view, "CSINode").map(|one| StorageEvent::Limits(NodeLimits::of(&one))));
    events
}

fn objects<T: DeserializeOwned>(view: &View, kind: &str) -> impl Iterator<Item = T> {
    view.all(kind).iter().filter_map(|object| serde_json::from_value(object.clone()).ok())
}

fn node_info(node: &Value) -> Option<NodeInfo> {
    Some(NodeInfo::of(&serde_json::from_value::<Node>(node.clone()).ok()?))
}

/// What the scheduler reads of a pod.
pub fn pod_info(pod: &Value) -> Option<PodInfo> {
    Some(PodInfo::of(&serde_json::from_value::<PodObject>(pod.clone()).ok()?))
}

/// The pod as it was before it had a node.
fn unplaced(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("nodeName");
        spec.remove("schedulingGates");
    }
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("deletionTimestamp");
    }
    pod["status"] = json!({"phase": "Pending"});
    pod
}
