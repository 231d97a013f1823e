//! Which pods would have to go so that this one fits: those of lower priority, as few as do.

use serde_json::Value;

use super::answer::place;
use super::budget;
use super::placement::{Edits, Site, feasible};
use super::view::{View, number, text};

/// Nodes that are looked at, those with the fewest candidates first.
const NODES: usize = 8;
/// Pods of a node that are tried one by one whether they may stay.
const PODS: usize = 16;

/// A row for each node on which pods of lower priority are all that is in the way.
pub fn rows(site: &Site<'_>, pod: &Value, view: &View) -> Vec<Vec<String>> {
    let mut nodes: Vec<(&str, Vec<&Value>)> = site
        .nodes()
        .map(api::object::name)
        .map(|node| (node, lower(site, pod, node)))
        .filter(|(_, pods)| !pods.is_empty())
        .collect();
    nodes.sort_by_key(|(_, pods)| pods.len());
    let rows = nodes.into_iter().take(NODES).filter_map(|(node, pods)| row(site, pod, view, node, &pods));
    rows.collect()
}

/// Why nothing is evicted for this pod, if that is so whatever runs.
pub fn excluded(pod: &Value) -> Option<String> {
    (text(pod, "/spec/preemptionPolicy") == "Never")
        .then(|| "its preemptionPolicy is Never: no other pod is evicted for it".to_owned())
}

/// The pods of a node that are less important, the most important first.
fn lower<'a>(site: &Site<'a>, pod: &Value, node: &str) -> Vec<&'a Value> {
    let priority = |pod: &Value| number(pod, "/spec/priority");
    let pods = site.pods_on(node).map(|(other, _)| other);
    let mut pods: Vec<&Value> = pods.filter(|other| priority(other) < priority(pod)).collect();
    pods.sort_by_cached_key(|other| (-priority(other), api::object::creation_timestamp(other)));
    pods
}

fn row(site: &Site<'_>, pod: &Value, view: &View, node: &str, pods: &[&Value]) -> Option<Vec<String>> {
    let mut edits = Edits { gone: pods.iter().map(|pod| place(pod)).collect(), ..Edits::default() };
    let fits = |edits: &Edits| feasible(&site.judge(pod, edits)).any(|one| *one.node.0 == *node);
    if !fits(&edits) {
        return None;
    }
    for kept in pods.iter().take(PODS) {
        let name = place(kept);
        edits.gone.remove(&name);
        if !fits(&edits) {
            edits.gone.insert(name);
        }
    }
    let victims = pods.iter().filter(|pod| edits.gone.contains(&place(pod)));
    let budgets: Vec<String> = victims.clone().flat_map(|victim| budget::broken_by(victim, view)).collect();
    let victims: Vec<String> = victims
        .map(|victim| format!("{} (priority {})", place(victim), number(victim, "/spec/priority")))
        .collect();
    let budgets = if budgets.is_empty() { "-".to_owned() } else { budgets.join(", ") };
    Some(vec![node.to_owned(), victims.join(", "), budgets])
}
