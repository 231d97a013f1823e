//! The smallest change that would place a pod. Candidates come from the reasons of the nodes that are nearest
//! to taking it; each is tried on a copy of the cluster, and only what works is said.

use std::rc::Rc;

use scheduler::diagnosis::NodeExplanation;
use scheduler::plugins::Reason;
use scheduler::taint::Taint;
use serde_json::{Value, json};

use super::answer::{Answer, place};
use super::placement::{Edits, Site, amount_text, feasible, requested};
use super::view::text;

/// Nodes whose reasons are looked at, those that fewest rules refuse first.
const NODES: usize = 4;
/// Changes that are tried at most; each costs a look at all nodes.
const TRIED: usize = 24;
/// Changes that are told.
const TOLD: usize = 3;

/// One change, or several together.
#[derive(Clone, Default)]
struct Change {
    words: Vec<String>,
    command: Option<String>,
    steps: Vec<Step>,
    /// Changes of a node cost least, of the pod more, of other pods most.
    cost: usize,
}

/// What is done to an object; steps of several changes are done one after the other.
type Edit = Rc<dyn Fn(&mut Value)>;

#[derive(Clone)]
enum Step {
    Pod(Edit),
    Node(String, Edit),
    Gone(String),
}

impl Change {
    /// What is different once it is made.
    fn edits(&self, site: &Site<'_>, pod: &Value) -> Edits {
        let mut edits = Edits::default();
        for step in &self.steps {
            match step {
                Step::Pod(edit) => edit(edits.pod.get_or_insert_with(|| pod.clone())),
                Step::Node(name, edit) => {
                    let original = || site.node(name).cloned().unwrap_or_default();
                    edit(edits.nodes.entry(name.clone()).or_insert_with(original));
                }
                Step::Gone(pod) => drop(edits.gone.insert(pod.clone())),
            }
        }
        edits
    }

    /// Both changes together; then there is no one command for it.
    fn with(&self, other: &Change) -> Change {
        if other.words.iter().all(|words| self.words.contains(words)) {
            return self.clone();
        }
        let command = if self.words.is_empty() { other.command.clone() } else { None };
        Change {
            words: [&self.words[..], &other.words].concat(),
            steps: [&self.steps[..], &other.steps].concat(),
            cost: self.cost + other.cost,
            command,
        }
    }
}

/// Adds the smallest changes that would place `pod`.
pub fn suggest(answer: &mut Answer, site: &Site<'_>, pod: &Value, judged: &[NodeExplanation]) {
    if judged.is_empty() {
        return answer.fix("start a node", Some("amoeba node --help".to_owned()), "then there is one to ask");
    }
    let mut nearest: Vec<&NodeExplanation> = judged.iter().collect();
    nearest.sort_by_key(|node| (node.rejections.len(), node.node.clone()));
    let mut candidates: Vec<Change> =
        nearest.into_iter().take(NODES).flat_map(|node| of_node(site, pod, node)).collect();
    candidates.sort_by_key(|change| (change.words.len(), change.cost));
    let mut told: Vec<String> = Vec::new();
    for change in candidates.into_iter().take(TRIED) {
        let words = change.words.join(" and ");
        if told.len() == TOLD || told.contains(&words) {
            continue;
        }
        let after = site.judge(pod, &change.edits(site, pod));
        let places: Vec<String> = feasible(&after).map(|node| node.node.to_string()).collect();
        if !places.is_empty() {
            answer.fix(&words, change.command, format!("then it fits on {}", shortened(&places)));
            told.push(words);
        }
    }
}

fn shortened(nodes: &[String]) -> String {
    match nodes.len() {
        0..=3 => crate::text::and(nodes),
        many => format!("{} and {} more", nodes[..2].join(", "), many - 2),
    }
}

/// What would make one node take the pod: for every reason one change, and all combinations of them.
fn of_node(site: &Site<'_>, pod: &Value, node: &NodeExplanation) -> Vec<Change> {
    let name = node.node.to_string();
    let Some(object) = site.node(&name) else { return Vec::new() };
    let reasons = node.rejections.iter().flat_map(|rejection| &rejection.reasons);
    let mut combined = vec![Change::default()];
    for reason in reasons {
        let ways = of_reason(site, pod, object, reason);
        combined = combined.iter().flat_map(|so_far| ways.iter().map(|way| so_far.with(way))).collect();
        combined.truncate(TRIED);
    }
    combined
}

fn of_reason(site: &Site<'_>, pod: &Value, node: &Value, reason: &Reason) -> Vec<Change> {
    let name = api::object::name(node);
    match reason {
        Reason::Unschedulable => vec![uncordon(node)],
        Reason::UntoleratedTaint(taint) => taints(node, taint),
        Reason::NodeAffinity => affinity(pod, node),
        Reason::Insufficient(resource) => resources(site, pod, name, resource),
        Reason::TopologySpread | Reason::TopologySpreadMissingLabel => vec![loosen_spread()],
        Reason::PodAffinity => vec![without("podAffinity")],
        Reason::PodAntiAffinity => {
            [vec![without("podAntiAffinity")], without_one_of(site, name, |_| true)].concat()
        }
        Reason::TooManyPods => without_one_of(site, name, |_| true),
        Reason::NodePorts => without_one_of(site, name, |other| other.to_string().contains("\"hostPort\"")),
        _ => without_one_of(site, name, |other| !other["spec"]["affinity"]["podAntiAffinity"].is_null()),
    }
}

fn on_node(
    node: &Value,
    words: String,
    command: Option<String>,
    edit: impl Fn(&mut Value) + 'static,
) -> Change {
    let steps = vec![Step::Node(api::object::name(node).to_owned(), Rc::new(edit))];
    Change { words: vec![words], command, steps, cost: 1 }
}

fn on_pod(words: String, edit: impl Fn(&mut Value) + 'static) -> Change {
    let steps = vec![Step::Pod(Rc::new(move |pod: &mut Value| edit(&mut pod["spec"])))];
    Change { words: vec![words], command: None, steps, cost: 2 }
}

fn uncordon(node: &Value) -> Change {
    let name = api::object::name(node);
    on_node(node, format!("uncordon node {name}"), Some(format!("kubectl uncordon {name}")), |node| {
        node["spec"]["unschedulable"] = json!(false);
        // What cordoning adds goes with it.
        remove_taint(node, scheduler::taint::UNSCHEDULABLE);
    })
}

fn remove_taint(node: &mut Value, key: &str) {
    if let Some(taints) = node["spec"]["taints"].as_array_mut() {
        taints.retain(|taint| taint["key"] != key);
    }
}

fn taints(node: &Value, taint: &Taint) -> Vec<Change> {
    let (name, key) = (api::object::name(node), taint.key.to_string());
    if key == scheduler::taint::UNSCHEDULABLE {
        return vec![uncordon(node)];
    }
    let (words, command) = match key.strip_prefix("node.kubernetes.io/") {
        Some(trouble) => (format!("bring node {name} back: it is {trouble}"), None),
        None => {
            let command = format!("kubectl taint nodes {name} {key}-");
            (format!("remove the taint {key} from node {name}"), Some(command))
        }
    };
    let taint = key.clone();
    let removed = on_node(node, words, command, move |node| remove_taint(node, &taint));
    let tolerated = on_pod(format!("let the pod tolerate the taint {key}"), move |spec| {
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        tolerations.push(json!({"key": key, "operator": "Exists"}));
        spec["tolerations"] = json!(tolerations);
    });
    vec![removed, tolerated]
}

fn affinity(pod: &Value, node: &Value) -> Vec<Change> {
    let labels = api::object::labels(node);
    let wanted: Vec<(String, String)> =
        api::object::text_map(pod["spec"].get("nodeSelector")).into_iter().collect();
    let missing: Vec<(String, String)> =
        wanted.into_iter().filter(|(key, value)| labels.get(key) != Some(value)).collect();
    if missing.is_empty() {
        return vec![on_pod("drop the pod's required node affinity".to_owned(), |spec| {
            spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = Value::Null;
        })];
    }
    vec![labelled(node, missing.clone()), unselected(missing)]
}

fn pairs(labels: &[(String, String)]) -> Vec<String> {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn labelled(node: &Value, labels: Vec<(String, String)>) -> Change {
    let (name, pairs) = (api::object::name(node), pairs(&labels));
    let command = format!("kubectl label --overwrite node {name} {}", pairs.join(" "));
    let words = format!("label node {name} with {}", crate::text::and(&pairs));
    on_node(node, words, Some(command), move |node| {
        labels.iter().for_each(|(key, value)| api::object::set_label(node, key, value));
    })
}

fn unselected(labels: Vec<(String, String)>) -> Change {
    let words = format!("drop {} from the pod's nodeSelector", crate::text::and(&pairs(&labels)));
    on_pod(words, move |spec| {
        if let Some(selector) = spec["nodeSelector"].as_object_mut() {
            labels.iter().for_each(|(key, _)| drop(selector.remove(key)));
        }
    })
}

/// Ask for less, or end the smallest pod that leaves enough.
fn resources(site: &Site<'_>, pod: &Value, node: &str, resource: &str) -> Vec<Change> {
    let (_, left) = site.capacity(node, resource);
    let asked = requested(pod, resource);
    let short = asked - left;
    let mut changes: Vec<Change> = ask_less(pod, resource, short, left).into_iter().collect();
    let mut others: Vec<(i64, &Value)> = site
        .pods_on(node)
        .map(|(other, info)| (info.shape.needs.requests.exact.get(resource), other))
        .filter(|(amount, _)| *amount >= short)
        .collect();
    others.sort_by_key(|(amount, _)| *amount);
    changes.extend(others.first().map(|(amount, other)| {
        let freed = amount_text(resource, *amount);
        gone(other, &format!("which asks for {freed} {resource}"))
    }));
    changes
}

/// The container that asks for most asks for so much less.
fn ask_less(pod: &Value, resource: &str, short: i64, left: i64) -> Option<Change> {
    let containers = pod["spec"]["containers"].as_array()?;
    let asked = |container: &Value| {
        let alone = json!({"metadata": {"name": "c"}, "spec": {"containers": [container]}});
        requested(&alone, resource)
    };
    let largest = (0..containers.len()).max_by_key(|at| asked(&containers[*at]))?;
    let amount = asked(&containers[largest]) - short;
    if amount <= 0 || left <= 0 {
        return None;
    }
    let amount = amount_text(resource, amount);
    let name = text(&containers[largest], "/name");
    let words = format!("let container {name} ask for at most {amount} {resource}");
    let resource = resource.to_owned();
    Some(on_pod(words, move |spec| {
        spec["containers"][largest]["resources"]["requests"][resource.as_str()] = json!(amount);
    }))
}

fn loosen_spread() -> Change {
    let words = "make the pod's topology spread constraints ScheduleAnyway".to_owned();
    on_pod(words, |spec| {
        for rule in spec["topologySpreadConstraints"].as_array_mut().into_iter().flatten() {
            rule["whenUnsatisfiable"] = json!("ScheduleAnyway");
        }
    })
}

fn without(field: &'static str) -> Change {
    on_pod(format!("drop the pod's required {field}"), move |spec| {
        spec["affinity"][field]["requiredDuringSchedulingIgnoredDuringExecution"] = Value::Null;
    })
}

/// Each of the node's pods that may be in the way, the least important first.
fn without_one_of(site: &Site<'_>, node: &str, in_the_way: impl Fn(&Value) -> bool) -> Vec<Change> {
    let pods = site.pods_on(node).filter(|(other, _)| in_the_way(other));
    let mut pods: Vec<(i32, &Value)> = pods.map(|(other, info)| (info.priority, other)).collect();
    pods.sort_by_key(|(priority, pod)| (*priority, place(pod)));
    pods.into_iter().take(NODES).map(|(_, pod)| gone(pod, "which is in its way")).collect()
}

fn gone(pod: &Value, why: &str) -> Change {
    let (namespace, name) = (api::object::namespace(pod), api::object::name(pod));
    Change {
        words: vec![format!("end pod {}, {why}", place(pod))],
        command: Some(format!("kubectl -n {namespace} delete pod {name}")),
        steps: vec![Step::Gone(place(pod))],
        cost: 4,
    }
}
